package car

import (
	"slices"
	"sync"
	"time"

	"external-server/internal/link"
	"external-server/internal/session"
)

// kindDropped is a message that was dropped; the broker still has to be told that it
// is handled.
const kindDropped session.EventKind = 0

// kindRecord asks whether the journal has begun anew.
const kindRecord session.EventKind = 255

// item is one thing that happened to a car, in order of arrival.
type item struct {
	kind     session.EventKind
	at       time.Time     // EventMessage, EventLinkUp, EventLinkDown: when the link told it
	kept     bool          // EventLinkUp, EventLinkDown: the broker keeps what comes
	downs    int64         // EventLinkUp, EventLinkDown: losses of the link until then
	payload  []byte        // EventMessage: not decoded yet
	delivery link.Delivery // EventMessage, and the acknowledgement of one that was dropped
	reason   error         // EventLinkDown

	// EventAdmission: by is the module that was asked, nil: none was.
	by                    *boundModule
	ticket                uint64
	admitted, unsupported bool
}

// verdict is what the mailbox says about an item.
type verdict uint8

const (
	taken   verdict = iota
	full            // the car's goroutine does not keep up
	tooMany         // above the configured rate
	gone            // the seat was left
)

// maxIdleItems is the largest buffer kept when a burst is over, in items.
const maxIdleItems = 64

// mailbox is the bounded queue in front of a car. Putting never blocks. Only
// messages of the gateway are counted. The rest is few: one admission for each device of
// a Connect, one change of the link for each connection, and what operators do.
type mailbox struct {
	mu       sync.Mutex
	items    []item
	messages int // of the items
	bytes    int // of the messages
	limit    int
	maxBytes int
	rate     bucket
	commands []int32 // modules with commands to fetch
	taken    []taking
	due      bool // the timer has fired
	poked    bool // there is something to do that is not in here
	closed   bool

	// busy says that there is a working goroutine. It alone may touch the session, and it
	// handles what is in the mailbox. A goroutine that puts something while there is none
	// becomes the working one. busy is also set before open, and for good after a defect.
	busy   bool
	halted bool          // no goroutine may begin to work
	idle   chan struct{} // of the last halt: closed when no goroutine works
	empty  chan struct{} // closed when nothing is left to do, see handled
}

func newMailbox(limit, maxBytes int) *mailbox {
	return &mailbox{limit: limit, maxBytes: maxBytes, busy: true}
}

// put queues an item if there is room, and tells whether the caller becomes the working
// goroutine. If so, a message is not queued: the caller handles it first.
func (m *mailbox) put(it item) (v verdict, work bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	isMessage := it.kind == session.EventMessage
	switch {
	case m.closed:
		return gone, false
	case !isMessage:
	case m.rate.perSecond > 0 && !m.rate.take(time.Now()):
		return tooMany, false
	case m.messages >= m.limit || m.messages > 0 && m.bytes+len(it.payload) > m.maxBytes:
		return full, false
	}
	work = m.engage()
	if work && isMessage {
		return taken, true
	}
	if isMessage {
		m.messages++
		m.bytes += len(it.payload)
	}
	m.items = append(m.items, it)
	return taken, work
}

// engage makes the caller the working goroutine, unless there is one. mu is held.
func (m *mailbox) engage() bool {
	if m.busy || m.halted {
		return false
	}
	m.busy = true
	return true
}

// putCommands notes that a module has commands; repeated notes are one. It tells
// whether the caller has to work.
func (m *mailbox) putCommands(module int32) (work bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.commands, module) {
		m.commands = append(m.commands, module)
	}
	return m.engage()
}

// taking says that a module has taken its statuses up to a number.
type taking struct {
	by     *boundModule
	number uint64
}

// putDelivered notes what an awaited module has taken, and tells whether the caller has to
// work.
func (m *mailbox) putDelivered(by *boundModule, number uint64) (work bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.IndexFunc(m.taken, func(t taking) bool { return t.by == by }); i >= 0 {
		m.taken[i].number = number
	} else {
		m.taken = append(m.taken, taking{by, number})
	}
	return m.engage()
}

// putDue notes that the timer has fired, and tells whether the caller has to work.
func (m *mailbox) putDue() (work bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.due = true
	return m.engage()
}

// poke asks for a look at what is not in here, and tells whether the caller has to
// work.
func (m *mailbox) poke() (work bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.poked = true
	return m.engage()
}

// open lets the work begin, also after halt or a defect. It tells whether the caller
// has to begin it.
func (m *mailbox) open() (work bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy, m.halted = false, false
	return m.waiting() && m.engage()
}

// waiting tells whether there is work; mu is held.
func (m *mailbox) waiting() bool {
	return len(m.items) > 0 || len(m.commands) > 0 || len(m.taken) > 0 || m.due || m.poked
}

// halt ends the work until open or resume: when idle is closed, no goroutine works.
func (m *mailbox) halt() (idle <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.halted, m.idle = true, make(chan struct{})
	if !m.busy {
		close(m.idle)
	}
	return m.idle
}

// resume takes a halt back. It tells whether the caller has to work.
func (m *mailbox) resume() (work bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.halted = false
	return m.waiting() && m.engage()
}

// handled returns what is closed when everything was handled that is in here now. Call it
// once.
func (m *mailbox) handled() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.empty = make(chan struct{})
	handled := m.empty
	if !m.busy && !m.waiting() {
		close(m.empty)
		m.empty = nil
	}
	return handled
}

// setRate replaces the limit of messages per second; 0: none.
func (m *mailbox) setRate(perSecond, burst int) {
	m.mu.Lock()
	m.rate.set(perSecond, burst)
	m.mu.Unlock()
}

// mail is what a worker takes out of a mailbox at a time.
type mail struct {
	items   []item
	modules []int32 // with commands
	taken   []taking
	due     bool // the timer has fired
}

// take swaps what is queued with the given empty slices. False: there is nothing,
// or no more work is wanted; the caller does not work any more.
func (m *mailbox) take(empty mail) (mail, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.empty != nil && !m.waiting() {
		close(m.empty)
		m.empty = nil
	}
	if m.halted || !m.waiting() {
		m.busy = false
		if m.halted {
			close(m.idle)
		}
		return empty, false
	}
	out := mail{items: m.items, modules: m.commands, taken: m.taken, due: m.due}
	m.items, m.commands, m.taken = empty.items[:0], empty.modules[:0], empty.taken[:0]
	m.messages, m.bytes = 0, 0
	m.due, m.poked = false, false
	return out, true
}

// giveBack queues items before all others. They were taken out before, so there is room.
func (m *mailbox) giveBack(items []item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.items = append(slices.Clone(items), m.items...)
	for i := range items {
		if items[i].kind == session.EventMessage {
			m.messages++
			m.bytes += len(items[i].payload)
		}
	}
}

// takeUntil takes out what is queued before the first item that is one of those told
// by end, and tells whether there is such an item. What is not queued, commands and the
// timer, is forgotten: it was for an occupant that ends.
func (m *mailbox) takeUntil(end func(*item) bool) (items []item, found bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commands, m.due, m.poked = m.commands[:0], false, false
	n := 0
	for n < len(m.items) && !end(&m.items[n]) {
		if m.items[n].kind == session.EventMessage {
			m.messages--
			m.bytes -= len(m.items[n].payload)
		}
		n++
	}
	items = slices.Clone(m.items[:n])
	m.items = slices.Delete(m.items, 0, n)
	return items, len(m.items) > 0
}

// close refuses everything from now on and returns what is queued.
func (m *mailbox) close() (left []item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refuse()
}

// closeUnheard closes the mailbox unless a message waits in it.
func (m *mailbox) closeUnheard() (left []item, closed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.messages > 0 {
		return nil, false
	}
	return m.refuse(), true
}

// refuse ends the mailbox and returns what is queued; mu is held.
func (m *mailbox) refuse() (left []item) {
	left = m.items
	m.closed, m.items = true, nil
	m.messages, m.bytes = 0, 0
	return left
}
