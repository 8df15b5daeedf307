// Package barrier finds the end of what a broker held for a session.
//
// The broker does not say when it has sent all of it. So the connection sends a numbered
// message, the greeting, to itself, over a topic that it alone has: when it comes back, what the broker
// held has come before it. A broker whose queue is full acknowledges and drops it, so it is
// repeated (RES-15).
//
// It is retained and names its sender: a process that finds another one's when it comes
// back has a rival (RES-16).
//
// The connection's lock guards the values; time comes in with each call. It imports nothing of the project.
package barrier

import "time"

const (
	// Every is how often Look and Slow are to be called.
	Every = 500 * time.Millisecond
	// Limit is when the greeting is given up.
	Limit = 5 * time.Second
	// quietLooks is after how many looks without a message the broker is taken for one that
	// waits for acknowledgements.
	quietLooks = 4
)

// Barrier belongs to one connection and serves its sessions one after the other; numbers go on.
// It is open while what the broker held is read. Once the end is known it stays so, and the
// reader takes it with Pass, once.
type Barrier struct {
	first   uint64 // number of this session's first greeting
	sent    uint64 // and of the last one
	since   time.Time
	open    bool
	over    bool // the end is known
	refused bool
	probing bool   // waits for the broker's answer before the first greeting
	heard   uint64 // messages of the connection at the last look
	quiet   int    // looks since which none has come
}

// Begin begins a session, in which something may be held if open. heard counts messages, see Slow.
func (b *Barrier) Begin(now time.Time, open bool, heard uint64) {
	*b = Barrier{first: b.sent + 1, sent: b.sent, since: now, open: open, heard: heard}
}

// None begins a session that holds nothing.
func (b *Barrier) None() { b.open = false }

// Open tells whether what the broker held is still being read.
func (b *Barrier) Open() bool { return b.open }

// Refused tells whether the broker does not allow the topic.
func (b *Barrier) Refused() bool { return b.refused }

// Send returns the number of the greeting that is sent now.
func (b *Barrier) Send() uint64 { b.sent++; return b.sent }

// Greeted tells whether a greeting of this session was sent.
func (b *Barrier) Greeted() bool { return b.sent >= b.first }

// Granted says that the topic is subscribed. True: ask the broker for an answer; what a rival has left on
// the topic comes before it.
func (b *Barrier) Granted() (ask bool) {
	b.probing = b.probing || !b.Greeted()
	return !b.Greeted()
}

// Answered handles an answer of the broker. True: it is time for the first greeting.
func (b *Barrier) Answered() (send bool) {
	send, b.probing = b.probing, false
	return send
}

// Refuse says that the broker does not allow the topic: the end is taken for reached.
func (b *Barrier) Refuse() { b.refused, b.over = true, true }

// Look tells, at the given time, whether to send the greeting again, or that it was just given up.
func (b *Barrier) Look(now time.Time) (again, givenUp bool) {
	switch {
	case !b.open || b.over:
	case now.Sub(b.since) >= Limit:
		b.over = true
		return false, true
	default:
		return b.Greeted(), false
	}
	return false, false
}

// Slow tells once that nothing has come for a while, although what the broker held is not
// read: it may have a window that is full. heard counts the messages of the connection.
func (b *Barrier) Slow(heard uint64) bool {
	if b.quiet++; heard != b.heard {
		b.heard, b.quiet = heard, 0
	}
	return b.open && !b.over && b.quiet == quietLooks
}

// Back says that a greeting of this connection has come, as a retained message or not. One with a
// number that was not sent is a stranger's.
func (b *Barrier) Back(number uint64, retained bool) {
	b.over = b.over || b.open && number >= b.first && number <= b.sent && !retained
}

// Pass tells the reader, once, that the end is reached.
func (b *Barrier) Pass() bool {
	passed := b.open && b.over
	b.open = b.open && !passed
	return passed
}
