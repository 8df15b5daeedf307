package mqtt

import (
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt/topics"
	"external-server/internal/link/mqtt/wire"
)

// With Sessions the watches have a connection of their own, the scout, and a car that
// they find is attached to its shard. What the car sends until the broker has answered to
// that subscription comes over either of them or over both.

// viaScout offers a message of a watch to the cars that it finds.
func (c *conn) viaScout(id fleet.CarID, w *watch, m *wire.Packet) {
	p := c.link.portOf(id)
	if p != nil {
		heard, ours := c.give(p, m)
		if heard || !ours {
			return // or its own connection delivers it
		}
	}
	w.unknown(id, m.Payload)
	next := c.link.portOf(id)
	if next == nil || next == p {
		c.stats.Foreign.Add(1)
		return
	}
	shard := next.lock()
	next.overlap = topics.NewOverlap()
	shard.mu.Unlock()
	if heard, _ := c.give(next, m); !heard {
		c.stats.Foreign.Add(1)
	}
}

// give delivers a message of a watch to a car of another connection. ours tells whether
// the watch still is where the car's messages come from.
func (c *conn) give(p *port, m *wire.Packet) (heard, ours bool) {
	shard := p.lock()
	o := p.overlap
	if o == nil || !shard.alive || o.Over() {
		shard.mu.Unlock()
		return false, false
	}
	repeated := o.Repeated(m.Topic, m.Payload)
	first := !p.up && !p.closed
	if first {
		p.up = true
	}
	receiver := p.receiver
	shard.mu.Unlock()
	switch {
	case repeated:
		c.stats.Repeated.Add(1)
		return true, true
	case first:
		receiver.LinkUp(link.Fresh)
	}
	return c.hear(receiver, m, link.Ack{}), true
}

// granted says that the car's own subscription works; conn.mu is held.
func (p *port) granted() {
	if o := p.overlap; o != nil && !o.Ends() {
		o.End()
	}
}

func (l *Link) portOf(car fleet.CarID) *port {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ports[car]
}
