package car

import (
	"sync"

	"external-server/internal/session"
)

// item is one thing that happened to a car, in order of arrival.
type item struct {
	kind     session.EventKind
	payload  []byte // EventMessage: not decoded yet
	dup      bool
	ticket   uint64 // EventAdmission
	admitted bool
	err      error // EventLinkDown, EventAdmission
}

// mailbox is the bounded queue in front of a car. Putting never blocks. Only
// messages of the gateway are bounded: the rest is bounded by its cause (one
// admission per device, one change of the link per connection).
type mailbox struct {
	mu       sync.Mutex
	items    []item
	messages int
	limit    int
	commands map[int32]bool // modules with commands to fetch
	wake     chan struct{}  // capacity 1
}

func newMailbox(limit int) *mailbox {
	return &mailbox{limit: limit, commands: make(map[int32]bool), wake: make(chan struct{}, 1)}
}

// put queues an item and reports whether there was room.
func (m *mailbox) put(it item) bool {
	m.mu.Lock()
	if it.kind == session.EventMessage {
		if m.messages >= m.limit {
			m.mu.Unlock()
			return false
		}
		m.messages++
	}
	m.items = append(m.items, it)
	m.mu.Unlock()
	m.signal()
	return true
}

// putCommands notes that a module has commands; repeated notes are one.
func (m *mailbox) putCommands(module int32) {
	m.mu.Lock()
	m.commands[module] = true
	m.mu.Unlock()
	m.signal()
}

func (m *mailbox) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take swaps the queued items with the given empty slice and returns the modules
// that have commands, appended to modules.
func (m *mailbox) take(empty []item, modules []int32) ([]item, []int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = empty[:0]
	m.messages = 0
	for n := range m.commands {
		modules = append(modules, n)
	}
	clear(m.commands)
	return items, modules
}
