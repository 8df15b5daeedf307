package mqtt

import (
	"errors"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt/outbox"
	"external-server/internal/link/mqtt/topics"
	"external-server/internal/link/mqtt/wire"
)

// What a receiver has taken over a connection whose session is kept is acknowledged by
// the receiver, see inflight.Owed.

var errTooManyOwed = errors.New("the broker sends more than it may before an acknowledgement")

// owe notes a message that port p has to acknowledge; c.mu is held.
func (c *conn) owe(m *wire.Packet, p *port) link.Ack {
	if !c.Persistent || m.QoS == 0 {
		return link.Ack{}
	}
	return c.owed.Add(m.ID, p)
}

// puback acknowledges at once; c.mu is held.
func (c *conn) puback(id uint16) {
	c.control = wire.AppendPuback(c.control, id)
	c.acks++
}

// Acknowledge implements link.Port.
func (p *port) Acknowledge(a link.Ack) {
	if a == (link.Ack{}) {
		return
	}
	c := p.lock()
	if c.owed.Settle(a, p) && !c.out.Acknowledge(&p.box, a.Packet) {
		c.puback(a.Packet)
	}
	c.unlockAndWake()
}

// leftover gives up a car that the session knows and this process does not: its
// gateway is told once, and the topic is not listened to any more.
func (c *conn) leftover(m *wire.Packet) {
	topic := string(m.Topic)
	c.mu.Lock()
	defer c.unlockAndWake()
	if !c.Persistent || !c.alive || c.leftovers[topic] || len(c.leftovers) >= maxLeftovers {
		return
	}
	c.leftovers[topic] = true
	c.leaving = append(c.leaving, topic)
	if company, car, ok := topics.Split(m.Topic); ok && topics.Valid(string(company)) && topics.Valid(string(car)) {
		bye := string(company) + "/" + string(car) + fleet.TopicDisconnect
		c.out.Push(&outbox.Box{Bye: bye}, outbox.Message{Kind: outbox.Notification})
		c.stats.Leftovers.Add(1)
	}
}

// maxLeftovers bounds the topics that are remembered as given up.
const maxLeftovers = 1 << 16
