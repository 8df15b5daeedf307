package sim

import (
	"math/rand/v2"
	"time"

	"external-server/internal/fleet"
)

// broker is a model of a broker that keeps the session of the server: it queues what
// comes while the server is away, has a window of messages that are not acknowledged,
// sends these again, and has read a part of what the server wrote, from the beginning,
// when the connection breaks.
type broker struct {
	w   *durableWorld
	rnd *rand.Rand

	session   bool // of the server is kept
	connected bool
	conn      int // counts the server's connections
	queue     []queued
	lastIn    time.Duration // arrival of the last message of the gateway
	lastUp    time.Duration // arrival of the last message to the server
	lastDown  time.Duration // arrival of the last message to the gateway
	wire      []wireItem    // written by the server, not read yet
	lastWire  time.Duration
	paired    bool // the last packet read was a PUBACK whose answer follows
	overflows int
	handled   []queued // the last ones that the server has acknowledged
}

// queued is a message for the server.
type queued struct {
	id      int
	m       fleet.ClientMessage
	barrier bool
	sent    bool // on this connection
	again   bool // it was sent on an earlier one
}

// wireItem is one packet that the server wrote.
type wireItem struct {
	ack     int // PUBACK of that message, 0: none
	message *outgoing
	paired  bool // the answer follows directly
	barrier bool
}

func (b *broker) delay() time.Duration {
	return 100*time.Microsecond + time.Duration(b.rnd.Int64N(int64(b.w.sc.Delay)))
}

// up takes a message of the gateway.
func (b *broker) up(m fleet.ClientMessage) {
	b.lastIn = max(b.w.now+b.delay(), b.lastIn)
	b.w.after(b.lastIn-b.w.now, func() { b.enqueue(queued{m: m}) })
}

func (b *broker) enqueue(q queued) {
	if !b.session {
		return
	}
	if !b.connected && len(b.queue) >= b.w.limit {
		b.overflows++
		b.w.excuse()
		return
	}
	b.w.lastID++
	q.id = b.w.lastID
	b.queue = append(b.queue, q)
	b.pump()
}

// pump sends what the window takes.
func (b *broker) pump() {
	for i := range b.queue {
		if !b.connected || i >= b.w.window {
			return
		}
		q := &b.queue[i]
		if q.sent {
			continue
		}
		q.sent = true
		b.lastUp = max(b.w.now+b.delay(), b.lastUp)
		conn, id, again := b.conn, q.id, q.again
		m, barrier := q.m, q.barrier
		b.w.after(b.lastUp-b.w.now, func() {
			if b.conn != conn || !b.connected {
				return
			}
			m.Redelivered = again
			b.w.srv.receive(m, id, barrier)
		})
	}
}

// write takes what the server wrote at once.
func (b *broker) write(items []wireItem) {
	for _, it := range items {
		b.wire = append(b.wire, it)
		b.lastWire = max(b.w.now+b.delay()/4, b.lastWire)
		conn := b.conn
		b.w.after(b.lastWire-b.w.now, func() {
			if b.conn == conn && len(b.wire) > 0 {
				first := b.wire[0]
				b.wire = b.wire[1:]
				b.read(first)
			}
		})
	}
}

// read handles one packet of the server.
func (b *broker) read(it wireItem) {
	b.paired = it.paired
	switch {
	case it.ack > 0:
		for i := range b.queue {
			if b.queue[i].id == it.ack {
				if b.handled = append(b.handled, b.queue[i]); len(b.handled) > 3 {
					b.handled = b.handled[1:]
				}
				b.queue = append(b.queue[:i:i], b.queue[i+1:]...)
				break
			}
		}
		b.pump()
	case it.barrier:
		b.enqueue(queued{barrier: true})
	case it.message != nil:
		m := *it.message
		b.lastDown = max(b.w.now+b.delay(), b.lastDown)
		b.w.after(b.lastDown-b.w.now, func() { b.w.gw.receive(m, b.w.now) })
	}
}

// cut ends the server's connection: a part of what it wrote is read, from the
// beginning; all, if the end was orderly.
func (b *broker) cut(orderly bool) {
	b.w.healthy = 0
	n := len(b.wire)
	if !orderly {
		n = b.rnd.IntN(n + 1)
	}
	paired := b.paired
	if n > 0 {
		paired = b.wire[n-1].paired
	}
	if n < len(b.wire) && paired {
		b.w.uncertain++ // the one place at which bytes cannot tell
		b.w.excuse()
	}
	rest := b.wire[:n]
	b.wire = nil
	for _, it := range rest {
		b.read(it)
	}
	if orderly && b.rnd.IntN(3) == 0 { // a broker that was restored from an older state
		b.queue = append(append([]queued(nil), b.handled...), b.queue...)
	}
	b.handled = nil
	b.connected = false
	b.conn++
	for i := range b.queue {
		b.queue[i].again = b.queue[i].again || b.queue[i].sent
		b.queue[i].sent = false
	}
}

// connect is CONNECT of the server; it tells whether its session was kept.
func (b *broker) connect(clean bool) (kept bool) {
	kept = b.session && !clean
	if !kept {
		b.queue = nil
	}
	b.session, b.connected = true, true
	b.conn++
	b.lastUp, b.lastWire, b.paired = 0, 0, false
	b.pump()
	return kept
}

// forget is a restart of a broker that stores nothing.
func (b *broker) forget() { b.session, b.queue = false, nil }
