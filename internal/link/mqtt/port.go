package mqtt

import (
	"external-server/internal/fleet"
	"external-server/internal/link"
)

// port is one car on its connection. It implements link.Port.
type port struct {
	conn *conn
	id   fleet.CarID
	in   string // CONN-2
	out  string // CONN-1
	bye  string // CONN-3

	receiver link.Receiver

	// Guarded by conn.mu.
	queue      fifo
	bytes      int   // of the queued payloads
	next       *port // in the ring of ports that have something to send
	waiting    bool  // is in the ring
	subscribed bool  // the exact topic was asked for on this connection
	refused    bool  // and the broker refused it
	denied     bool  // the last answer was a refusal; stays while it is asked again
	up         bool  // LinkUp was said
	closed     bool
}

func newPort(c *conn, id fleet.CarID, r link.Receiver) *port {
	prefix := id.String()
	return &port{
		conn: c, id: id, receiver: r,
		in:  prefix + "/module_gateway",
		out: prefix + "/external_server",
		bye: prefix + "/external_server_disconnect",
	}
}

type message struct {
	payload []byte
	notify  bool // disconnect notification
}

// extraNotifications may be queued beyond the bound of a queue, so that a full
// queue does not keep a notification from its car (DEF-19).
const extraNotifications = 8

// Publish implements link.Port.
func (p *port) Publish(payload []byte, _ link.Ack) bool {
	c := p.conn
	opts := &c.link.opts
	if len(payload) > c.link.tuning.Load().MaxPayload {
		c.stats.tooLarge.Add(1)
		return false
	}
	c.mu.Lock()
	switch {
	case !p.up || p.closed:
		c.mu.Unlock()
		c.stats.linkDown.Add(1)
		return false
	case p.queue.len() >= opts.QueueMessages || p.bytes+len(payload) > opts.QueueBytes:
		c.mu.Unlock()
		c.stats.queueFull.Add(1)
		return false
	}
	p.push(message{payload: payload})
	c.unlockAndWake()
	return true
}

// Acknowledge implements link.Port.
func (p *port) Acknowledge(link.Ack) {}

// NotifyDisconnect implements link.Port.
func (p *port) NotifyDisconnect() bool {
	c := p.conn
	c.mu.Lock()
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
	p.queue.push(m)
	p.bytes += len(m.payload)
	p.conn.queued++
	p.conn.line(p)
}

// DiscardPending implements link.Port.
func (p *port) DiscardPending() {
	c := p.conn
	c.mu.Lock()
	p.discard()
	c.mu.Unlock()
}

// discard forgets what is queued except notifications; conn.mu is held.
func (p *port) discard() {
	for range p.queue.len() {
		m := p.queue.pop()
		if m.notify {
			p.queue.push(m)
		} else {
			p.conn.queued--
			p.conn.stats.discarded.Add(1)
		}
	}
	p.bytes = 0
}

// Close implements link.Port. A delivery that is under way may still finish; a
// queued notification still goes out.
//
// Link and connection forget the port in one step: the reader, which finds the topic
// unknown, may attach the car anew at once.
func (p *port) Close() {
	c := p.conn
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.mu.Lock()
	if p.closed {
		c.mu.Unlock()
		return
	}
	p.closed, p.up = true, false
	p.discard()
	delete(c.ports, p.in)
	if p.subscribed && c.alive {
		c.leaving = append(c.leaving, p.in)
	}
	delete(c.link.ports, p.id)
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
