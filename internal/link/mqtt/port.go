package mqtt

import (
	"sync/atomic"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt/outbox"
	"external-server/internal/link/mqtt/topics"
)

// port is one car on its connection. It implements link.Port.
type port struct {
	conn atomic.Pointer[conn]
	id   fleet.CarID
	in   string // CONN-2

	receiver link.Receiver

	// Guarded by conn.mu.
	box        outbox.Box      // to CONN-1 and CONN-3
	subscribed bool            // the exact topic was asked for on this connection
	refused    bool            // and the broker refused it
	denied     bool            // the last answer was a refusal; stays while it is asked again
	up         bool            // LinkUp was said
	lost       bool            // it was up and the connection has ended
	continues  bool            // LinkUp says, or has said, that the session continues, and BacklogRead has not
	overlap    *topics.Overlap // of a car that the scout found
	closed     bool
	window     uint32 // of conn.pace, in which it was heard last
}

func newPort(c *conn, id fleet.CarID, r link.Receiver) *port {
	prefix := id.String()
	p := &port{
		id: id, receiver: r,
		in:  prefix + fleet.TopicFromGateway,
		box: outbox.Box{Topic: prefix + fleet.TopicFromServer, Bye: prefix + fleet.TopicDisconnect},
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

// Publish implements link.Port.
func (p *port) Publish(payload []byte, ack link.Ack) bool {
	c := p.lock()
	switch {
	case len(payload) > c.link.tuning.Load().MaxPayload || c.MaxPacket > 0 && c.Version.PublishSize(p.box.Topic, len(payload), c.QoS) > c.MaxPacket:
		c.mu.Unlock()
		c.stats.TooLarge.Add(1)
		return false
	case !p.up || p.closed:
		c.mu.Unlock()
		c.stats.LinkDown.Add(1)
		return false
	case !c.out.HasRoom(&p.box, len(payload)):
		c.mu.Unlock()
		c.stats.QueueFull.Add(1)
		return false
	}
	m := outbox.Message{Payload: payload}
	if c.owed.Settle(ack, p) {
		m.Ack = ack.Packet
	}
	c.out.Push(&p.box, m)
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
	if !p.up || p.closed || !c.out.HasRoomToNotify(&p.box) {
		c.mu.Unlock()
		return false
	}
	c.out.Push(&p.box, outbox.Message{Kind: outbox.Notification})
	c.unlockAndWake()
	return true
}

// DiscardPending implements link.Port.
func (p *port) DiscardPending() {
	c := p.lock()
	c.discard(p)
	c.mu.Unlock()
}

// discard forgets what is queued except notifications and acknowledgements; c.mu is held.
func (c *conn) discard(p *port) { c.stats.Discarded.Add(uint64(c.out.Discard(&p.box))) }

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
	c.discard(p)
	c.owed.SettleAll(p, c.puback)
	delete(c.ports, p.in)
	if p.subscribed && c.alive {
		c.leaving = append(c.leaving, p.in)
	}
	delete(l.ports, p.id)
	c.cars--
	c.unlockAndWake()
}
