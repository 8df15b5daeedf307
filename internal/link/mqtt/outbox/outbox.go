// Package outbox holds what waits to be written to the cars of one connection: a queue for
// each car, and the line of those that have something queued, which are served in turn.
//
// Invariants: a box is in the line once, or not at all. A box with messages always is in it.
// A box that Discard has emptied may still be in it, and is passed over. The connection's
// lock guards a Line and its boxes. It imports nothing of the project.
package outbox

// extraNotifications may be queued beyond the bounds of a box, so that a full one does not
// keep a notification from its car (DEF-19).
const extraNotifications = 8

// Message is what waits for one car. With a fifth field the compiler would copy it through
// memory instead of registers.
type Message struct {
	Payload []byte
	Ack     uint16 // packet to be acknowledged immediately before; 0: none
	Kind    Kind
	Retain  bool
}

// Kind is what a message is for.
type Kind uint8

// Text is a message of the protocol, Notification says that the session is over, and Ack is
// nothing but an acknowledgement.
const (
	Text Kind = iota
	Notification
	Ack
)

// Box is the queue of one car.
type Box struct {
	Topic string // of messages
	Bye   string // of notifications

	queue fifo
	bytes int  // of the queued payloads
	next  *Box // in the line
	lined bool
}

// TopicOf returns where a message of the box goes.
func (b *Box) TopicOf(m Message) string {
	if m.Kind == Notification {
		return b.Bye
	}
	return b.Topic
}

// Empty tells whether nothing is queued.
func (b *Box) Empty() bool { return b.queue.len() == 0 }

// Line is the line of the boxes of one connection. Its fields are the bounds of each box.
type Line struct {
	MaxMessages, MaxBytes int

	first, last *Box
	queued      int
}

// Idle tells whether no box waits.
func (l *Line) Idle() bool { return l.first == nil }

// Queued returns the number of messages in all boxes.
func (l *Line) Queued() int { return l.queued }

// HasRoom tells whether a payload of so many bytes may be pushed.
func (l *Line) HasRoom(b *Box, size int) bool {
	return b.queue.len() < l.MaxMessages && b.bytes+size <= l.MaxBytes
}

// HasRoomToNotify tells whether a notification may be pushed.
func (l *Line) HasRoomToNotify(b *Box) bool { return b.queue.len() < l.MaxMessages+extraNotifications }

// Push queues a message, whatever the bounds, and lines its box up. The payload is kept
// until it is written.
func (l *Line) Push(b *Box, m Message) {
	b.queue.push(m)
	b.bytes += len(m.Payload)
	l.queued++
	l.append(b)
}

// Acknowledge queues an acknowledgement behind what waits. False: nothing does, so it may
// leave at once.
func (l *Line) Acknowledge(b *Box, packet uint16) bool {
	if b.Empty() {
		return false
	}
	l.Push(b, Message{Ack: packet, Kind: Ack})
	return true
}

// Next takes the first message of the first box, which goes to the end of the line if it has
// more. A nil box: nothing waits.
func (l *Line) Next() (*Box, Message) {
	for l.first != nil {
		b := l.first
		l.first, b.next, b.lined = b.next, nil, false
		if l.first == nil {
			l.last = nil
		}
		if b.Empty() { // discarded meanwhile
			continue
		}
		m := b.queue.pop()
		b.bytes -= len(m.Payload)
		l.queued--
		if !b.Empty() {
			l.append(b)
		}
		return b, m
	}
	return nil, Message{}
}

func (l *Line) append(b *Box) {
	if b.lined {
		return
	}
	b.lined = true
	if l.last == nil {
		l.first = b
	} else {
		l.last.next = b
	}
	l.last = b
}

// Discard forgets the messages of a box except notifications; their acknowledgements stay. It
// returns how many it has forgotten (DEF-20).
func (l *Line) Discard(b *Box) (discarded int) {
	for range b.queue.len() {
		m := b.queue.pop()
		if m.Kind != Text {
			b.queue.push(m)
			continue
		}
		discarded++
		if m.Ack != 0 {
			b.queue.push(Message{Ack: m.Ack, Kind: Ack})
		} else {
			l.queued--
		}
	}
	b.bytes = 0
	return discarded
}

// Clear empties all boxes and returns how many messages they had.
func (l *Line) Clear() int {
	for b := l.first; b != nil; {
		next := b.next
		*b = Box{Topic: b.Topic, Bye: b.Bye}
		b = next
	}
	queued := l.queued
	l.first, l.last, l.queued = nil, nil, 0
	return queued
}

// fifo is a queue that reuses its memory.
type fifo struct {
	items []Message
	head  int
}

func (q *fifo) len() int { return len(q.items) - q.head }

func (q *fifo) push(m Message) { q.items = append(q.items, m) }

func (q *fifo) pop() Message {
	m := q.items[q.head]
	q.items[q.head] = Message{}
	q.head++
	switch {
	case q.head == len(q.items):
		if cap(q.items) > 64 { // a burst is over
			q.items = nil
		}
		q.items, q.head = q.items[:0], 0
	case q.head >= 64 && q.head*2 >= len(q.items):
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return m
}
