package mqtt

import (
	"sync/atomic"

	"external-server/internal/fleet"
	"external-server/internal/link"
)

// port is one car on its connection. It implements link.Port.
type port struct {
	conn atomic.Pointer[conn]
	id   fleet.CarID
	in   string // CONN-2
	out  string // CONN-1
	bye  string // CONN-3

	receiver link.Receiver

	// Guarded by conn.mu.
	queue      fifo
	bytes      int      // of the queued payloads
	next       *port    // in the ring of ports that have something to send
	waiting    bool     // is in the ring
	subscribed bool     // the exact topic was asked for on this connection
	refused    bool     // and the broker refused it
	denied     bool     // the last answer was a refusal; stays while it is asked again
	up         bool     // LinkUp was said
	lost       bool     // it was up and the connection has ended
	continues  bool     // LinkUp says, or has said, that the session continues, and BacklogRead has not
	overlap    *overlap // of a car that the scout found
	closed     bool
	window     uint32 // of conn.pace, in which it was heard last
}

func newPort(c *conn, id fleet.CarID, r link.Receiver) *port {
	prefix := id.String()
	p := &port{
		id: id, receiver: r,
		in:  prefix + fleet.TopicFromGateway,
		out: prefix + fleet.TopicFromServer,
		bye: prefix + fleet.TopicDisconnect,
	}
	p.conn.Store(c)
	return p
}

// lock locks the port's connection and returns it. A port moves at most once, see gather.
func (p *port) lock() *conn {
	for {
		c := p.conn.Load()
		c.mu.Lock()
		if p.conn.Load() == c {
			return c
		}
		c.mu.Unlock()
	}
}

type message struct {
	payload []byte
	ack     uint16 // packet to be acknowledged immediately before; 0: none
	notify  bool   // disconnect notification
	retain  bool
	alone   bool // nothing but the acknowledgement
}

// extraNotifications may be queued beyond the bound of a queue, so that a full
// queue does not keep a notification from its car (DEF-19).
const extraNotifications = 8

// Publish implements link.Port.
func (p *port) Publish(payload []byte, ack link.Ack) bool {
	c := p.lock()
	opts := &c.link.opts
	switch {
	case len(payload) > c.link.tuning.Load().MaxPayload || c.maxPacket > 0 && c.version.PublishSize(p.out, len(payload), c.qos) > c.maxPacket:
		c.mu.Unlock()
		c.stats.tooLarge.Add(1)
		return false
	case !p.up || p.closed:
		c.mu.Unlock()
		c.stats.linkDown.Add(1)
		return false
	case p.queue.len() >= opts.QueueMessages || p.bytes+len(payload) > opts.QueueBytes:
		c.mu.Unlock()
		c.stats.queueFull.Add(1)
		return false
	}
	m := message{payload: payload}
	if c.settle(ack, p) {
		m.ack = ack.Packet
	}
	p.push(m)
	c.unlockAndWake()
	return true
}

// Lost implements link.Port.
func (p *port) Lost() bool {
	c := p.lock()
	defer c.mu.Unlock()
	return p.lost
}

// NotifyDisconnect implements link.Port.
func (p *port) NotifyDisconnect() bool {
	c := p.lock()
	if !p.up || p.closed || p.queue.len() >= c.link.opts.QueueMessages+extraNotifications {
		c.mu.Unlock()
		return false
	}
	p.push(message{notify: true})
	c.unlockAndWake()
	return true
}

// push queues a message and lines the port up; conn.mu is held.
func (p *port) push(m message) {
	c := p.conn.Load()
	p.queue.push(m)
	p.bytes += len(m.payload)
	c.queued++
	c.line(p)
}

// DiscardPending implements link.Port.
func (p *port) DiscardPending() {
	c := p.lock()
	p.discard()
	c.mu.Unlock()
}

// discard forgets what is queued except notifications and acknowledgements; conn.mu is
// held.
func (p *port) discard() {
	c := p.conn.Load()
	for range p.queue.len() {
		m := p.queue.pop()
		if m.notify || m.alone {
			p.queue.push(m)
			continue
		}
		c.stats.discarded.Add(1)
		if m.ack != 0 {
			p.queue.push(message{ack: m.ack, alone: true})
		} else {
			c.queued--
		}
	}
	p.bytes = 0
}

// Close implements link.Port. A delivery that is under way may still finish; a
// queued notification still goes out. What the car has not acknowledged is acknowledged:
// it will not be handled.
//
// Link and connection forget the port in one step: the reader, which finds the topic
// unknown, may attach the car anew at once.
func (p *port) Close() {
	l := p.conn.Load().link
	l.mu.Lock() // p does not move meanwhile
	defer l.mu.Unlock()
	c := p.lock()
	if p.closed {
		c.mu.Unlock()
		return
	}
	p.closed, p.up = true, false
	p.discard()
	c.settleAll(p)
	delete(c.ports, p.in)
	if p.subscribed && c.alive {
		c.leaving = append(c.leaving, p.in)
	}
	delete(l.ports, p.id)
	c.cars--
	c.unlockAndWake()
}

// fifo is a queue that reuses its memory.
type fifo struct {
	items []message
	head  int
}

func (q *fifo) len() int { return len(q.items) - q.head }

func (q *fifo) push(m message) { q.items = append(q.items, m) }

func (q *fifo) pop() message {
	m := q.items[q.head]
	q.items[q.head] = message{}
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
