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
	owner     *durableServer // who is connected
	conn      int            // counts the server's connections
	queue     []queued
	lastIn    time.Duration // arrival of the last message of the gateway
	lastUp    time.Duration // arrival of the last message to the server
	lastDown  time.Duration // arrival of the last message to the gateway
	wire      []wireItem    // written by the server, not read yet
	lastWire  time.Duration
	paired    bool // the last packet read was a PUBACK whose answer follows
	overflows int
	handled   []queued // the last ones that the server has acknowledged

	// Retained.
	epoch  int64  // of the server that serves the car
	record []byte // of the session, nil: none
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

	// Of a cluster.
	from   int64 // epoch of the server
	epoch  bool  // says it
	record []byte
	carry  bool // record is retained
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
		m, barrier, to := q.m, q.barrier, b.owner
		b.w.after(b.lastUp-b.w.now, func() {
			if b.conn != conn || !b.connected {
				return
			}
			m.Redelivered = again
			to.receive(m, id, barrier)
		})
	}
}

// write takes what a server wrote at once, over its connection.
func (b *broker) write(conn int, items []wireItem) {
	if conn != b.conn {
		return // of which it does not know yet that it is lost
	}
	for _, it := range items {
		b.wire = append(b.wire, it)
		b.lastWire = max(b.w.now+b.delay()/4, b.lastWire)
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
	if it.from < b.epoch && !it.epoch {
		b.w.fail("a server with epoch %d has written %+v, the epoch is %d", it.from, it, b.epoch)
	}
	switch {
	case it.epoch:
		if it.from < b.epoch {
			b.w.fail("epoch %d was published after %d", it.from, b.epoch)
		}
		b.epoch = it.from
	case it.carry:
		b.record = it.record
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
		if b.w.atBroker != nil && m.message.Kind == fleet.ServerStatusResponse {
			b.w.atBroker(m.message)
		}
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
	for i, it := range b.wire[n:] { // the answer to a status that was held, whose PUBACK has left long ago
		if it.message != nil && it.message.message.Kind == fleet.ServerStatusResponse && (n+i == 0 || !b.wire[n+i-1].paired) {
			b.w.uncertain++
			b.w.excuse()
		}
	}
	rest := b.wire[:n]
	b.wire = nil
	for _, it := range rest {
		b.read(it)
	}
	// A broker that was restored from an older state. The journal of the server knows what it has
	// answered; the record with which another replica takes over does not, and has to believe the broker.
	if orderly && b.owner.replica == nil && b.rnd.IntN(3) == 0 {
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
func (b *broker) connect(s *durableServer, clean bool) (kept bool) {
	b.takeOver()
	kept = b.session && !clean
	if !kept {
		b.queue = nil
	}
	b.session, b.connected, b.owner = true, true, s
	b.conn++
	s.conn = b.conn
	b.w.srv = s
	b.lastUp, b.lastWire, b.paired = 0, 0, false
	b.pump()
	return kept
}

// takeOver ends the connection of the server that is connected.
func (b *broker) takeOver() {
	if !b.connected {
		return
	}
	former, conn := b.owner, b.conn
	b.cut(false)
	b.w.after(b.delay(), func() { former.disconnected(conn) })
}

// forget is a restart of a broker that stores nothing.
func (b *broker) forget() {
	b.session, b.queue, b.epoch, b.record = false, nil, 0, nil
}
