package car

import (
	"sync"
	"time"

	"external-server/internal/session"
)

// item is one thing that happened to a car, in order of arrival.
type item struct {
	kind     session.EventKind
	at       time.Time // EventMessage: when the link delivered it
	payload  []byte    // EventMessage: not decoded yet
	dup      bool
	ticket   uint64 // EventAdmission
	admitted bool
	reason   error // EventLinkDown
}

// verdict is what the mailbox says about an item.
type verdict uint8

const (
	taken   verdict = iota
	full            // the car's goroutine does not keep up
	tooMany         // above the configured rate
	gone            // the car has ended
)

// maxIdleItems is the largest buffer kept when a burst is over, in items.
const maxIdleItems = 64

// mailbox is the bounded queue in front of a car. Putting never blocks. Only
// messages of the gateway are bounded: the rest is bounded by its cause (one
// admission per device, one change of the link per connection).
type mailbox struct {
	mu       sync.Mutex
	items    []item
	messages int // of the items
	bytes    int // of the messages
	limit    int
	maxBytes int
	rate     bucket
	commands map[int32]bool // modules with commands to fetch
	closed   bool
	wake     chan struct{} // capacity 1
}

func newMailbox(limit, maxBytes int) *mailbox {
	return &mailbox{limit: limit, maxBytes: maxBytes, commands: make(map[int32]bool), wake: make(chan struct{}, 1)}
}

// put queues an item if there is room.
func (m *mailbox) put(it item) verdict {
	m.mu.Lock()
	v := taken
	switch {
	case m.closed:
		v = gone
	case it.kind != session.EventMessage:
	case m.rate.perSecond > 0 && !m.rate.take(time.Now()):
		v = tooMany
	case m.messages >= m.limit || m.messages > 0 && m.bytes+len(it.payload) > m.maxBytes:
		v = full
	default:
		m.messages++
		m.bytes += len(it.payload)
	}
	if v == taken {
		m.items = append(m.items, it)
	}
	m.mu.Unlock()
	if v == taken {
		m.signal()
	}
	return v
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

// setRate replaces the limit of messages per second; 0: none.
func (m *mailbox) setRate(perSecond, burst int) {
	m.mu.Lock()
	m.rate.set(perSecond, burst)
	m.mu.Unlock()
}

// take swaps the queued items with the given empty slice and returns the modules
// that have commands, appended to modules.
func (m *mailbox) take(empty []item, modules []int32) ([]item, []int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = empty[:0]
	m.messages, m.bytes = 0, 0
	for n := range m.commands {
		modules = append(modules, n)
	}
	clear(m.commands)
	return items, modules
}

// close refuses everything from now on and forgets what is queued.
func (m *mailbox) close() {
	m.mu.Lock()
	m.closed, m.items = true, nil
	m.mu.Unlock()
}
