package mqtt

import (
	"errors"
	"fmt"
	"log/slog"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt/barrier"
	"external-server/internal/link/mqtt/reason"
	"external-server/internal/link/mqtt/terms"
	"external-server/internal/link/mqtt/topics"
	"external-server/internal/link/mqtt/wire"
)

// acksAtOnce is the number of acknowledgements that are written without waiting
// for the end of what was received: mosquitto keeps 20 messages in flight.
const acksAtOnce = 10

var errRefused = errors.New("the broker refuses the subscription to the car's topic")

// maxControl bounds what may wait to be written besides messages. Only a broker
// that sends without ever reading gets there.
const maxControl = 8 << 20

// read delivers what the broker sends until the connection fails.
func (c *conn) read(reader *wire.Reader) error {
	var p wire.Packet
	defer c.sent()
	defer c.pace.Stop()
	for {
		if !reader.Ready() {
			c.endBatch()
			c.sent()
			c.pace.Rest()
		}
		if err := reader.Next(&p); err != nil {
			return err
		}
		if err := c.handle(&p); err != nil {
			return err
		}
		c.announce()
		if c.Persistent {
			c.pastBarrier()
		}
	}
}

// endBatch sends what the packets received together have caused, here and at once
// if that needs no waiting: handing it to the writer would cost more than the
// write. Otherwise the writer does it.
func (c *conn) endBatch() {
	c.mu.Lock()
	c.batch = false
	if !c.sendable() {
		c.mu.Unlock()
		return
	}
	if !c.stopping && !c.woken {
		c.mu.Unlock()
		sent := c.trySend()
		c.mu.Lock()
		if sent && !c.sendable() {
			c.mu.Unlock()
			return
		}
	}
	c.unlockAndWake()
}

// maxHeard bounds the receivers that wait for the end of a batch.
const maxHeard = 256

// hear gives a receiver its message. False: it has ended.
func (c *conn) hear(r link.Receiver, m *wire.Packet, ack link.Ack) bool {
	if !r.Message(m.Payload, link.Delivery{Duplicate: m.Duplicate, Ack: ack}) {
		return false
	}
	if n := len(c.heard); n > 0 && c.heard[n-1] == r {
		return true
	}
	if c.heard = append(c.heard, r); len(c.heard) >= maxHeard {
		c.sent()
	}
	return true
}

// sent tells those who heard something that the batch is over.
func (c *conn) sent() {
	for i, r := range c.heard {
		c.heard[i] = nil
		r.Sent()
	}
	c.heard = c.heard[:0]
}

// sendable tells whether the writer has something to do; c.mu is held.
func (c *conn) sendable() bool {
	return len(c.control) > 0 || c.stopping || !c.out.Idle() && c.messages.Len() < c.Window
}

// wakeWriter wakes the writer in the middle of a batch.
func (c *conn) wakeWriter() {
	c.mu.Lock()
	c.batch = false
	c.unlockAndWake()
	c.mu.Lock()
	c.batch = true
	c.mu.Unlock()
}

// unlockAndWake wakes the writer unless another goroutine will; c.mu is held and
// released.
func (c *conn) unlockAndWake() {
	wake := c.alive && !c.batch && !c.woken
	if wake {
		c.woken = true
	}
	c.mu.Unlock()
	if wake {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

func (c *conn) handle(p *wire.Packet) error {
	switch p.Type {
	case wire.Publish:
		return c.deliver(p)
	case wire.Puback:
		c.answer()
		c.mu.Lock()
		c.batch = true
		c.messages.Release(p.ID)
		if p.Code < 0x80 {
			c.mu.Unlock()
			return nil
		}
		if c.Persistent && p.ID == c.greetingID {
			c.privateRefused()
			c.unlockAndNote()
			return nil
		}
		c.mu.Unlock()
		c.refusedMessage(p)
		return nil
	case wire.Suback, wire.Unsuback:
		c.answer()
		return c.answered(p)
	case wire.Pingresp:
		c.answer()
		c.mu.Lock()
		c.batch = true
		c.pings.Answer()
		if c.Persistent && c.barrier.Answered() {
			c.greet()
		}
		c.mu.Unlock()
		return nil
	case wire.Disconnect:
		return reason.Disconnected{Code: p.Code, Reason: p.Reason}
	}
	return fmt.Errorf("%w: second %v", wire.ErrMalformed, p.Type)
}

// deliver acknowledges a message and hands it to its car.
func (c *conn) deliver(m *wire.Packet) error {
	c.stats.MessagesIn.Add(1)
	enough := false
	c.mu.Lock()
	c.batch = true
	if c.suspending { // the next process gets it
		c.mu.Unlock()
		return nil
	}
	full := len(c.control) > maxControl
	p := c.ports[string(m.Topic)]
	first, repeated, up := false, false, link.Fresh
	var receiver link.Receiver
	var ack link.Ack
	if c.Persistent && !c.isPrivate(m) {
		c.count(m)
	}
	if p != nil && !m.Oversized && !m.Retain {
		c.pace.Heard(&p.window)
		receiver = p.receiver
		first = !p.up
		p.up = true
		up = p.upKind()
		ack = c.owe(m, p)
		switch o := c.overlaps[p.id.Company]; {
		case o != nil:
			repeated = o.Repeated(m.Topic, m.Payload)
		case p.overlap != nil && p.overlap.Over():
			p.overlap = nil
		case p.overlap != nil:
			repeated = p.overlap.Repeated(m.Topic, m.Payload)
		}
	}
	if m.QoS > 0 && (ack == link.Ack{} || repeated && c.owed.Settle(ack, p)) {
		c.puback(m.ID)
		enough = c.acks >= acksAtOnce
	}
	full = full || c.owed.Len() > terms.ReceiveMaximum && c.Version == wire.V5
	c.mu.Unlock()
	if enough && !c.trySend() {
		c.wakeWriter()
	}
	switch {
	case full && c.owed.Len() > terms.ReceiveMaximum:
		return errTooManyOwed
	case full:
		return fmt.Errorf("the broker sends but does not read: %d bytes wait to be written", maxControl)
	case m.Oversized:
		c.stats.Oversized.Add(1)
		c.link.reports.Limit.Log(c.log, slog.LevelInfo, "message is too large, ignored",
			slog.String("topic", string(m.Topic)), slog.Int("bytes", m.Size), slog.Int("limit", c.link.tuning.Load().MaxPayload))
		return nil
	case c.isPrivate(m):
		c.private(m)
		return nil
	case m.Retain:
		c.ignoreRetained(m)
		return nil
	case p == nil:
		return c.deliverUnknown(m)
	case repeated:
		c.stats.Repeated.Add(1)
		return nil
	}
	if first { // the subscription works although its answer is still on the way
		receiver.LinkUp(up)
	}
	if !c.hear(receiver, m, ack) {
		c.mu.Lock()
		if c.owed.Settle(ack, p) {
			c.puback(ack.Packet)
		}
		c.mu.Unlock()
		return c.deliverUnknown(m)
	}
	return nil
}

// isPrivate tells whether the message is on a topic that connections of this link have for themselves.
func (c *conn) isPrivate(m *wire.Packet) bool {
	return c.isShard() && barrier.Private(m.Topic, privatePrefix, c.link.opts.Sessions.ClientID)
}

// count keeps the numbers of a session that is kept, of the messages of cars; c.mu is held.
func (c *conn) count(m *wire.Packet) {
	if m.Duplicate {
		c.stats.Redelivered.Add(1)
	}
	if c.barrier.Open() {
		c.stats.Backlog.Add(1)
	}
}

// upKind is what LinkUp says; conn.mu is held.
func (p *port) upKind() link.Up {
	if p.continues {
		return link.Continued
	}
	return link.Fresh
}

// refusedMessage tells of a message that the broker has not taken.
func (c *conn) refusedMessage(p *wire.Packet) {
	c.stats.RefusedMessages.Add(1)
	c.link.reports.Limit.Log(c.log, slog.LevelWarn, "the broker refuses a message to a car: check the rights of the user of this server and the limits of the broker",
		slog.String("reason", reason.Text(p.Code, p.Reason)), slog.String("user", c.link.tuning.Load().Username))
}

// ignoreRetained drops what the broker has kept from before the subscription. A
// gateway never retains (CONN-5); an old Connect would begin a session
// without a gateway at every start and fail the gateway that is just connecting.
func (c *conn) ignoreRetained(m *wire.Packet) {
	c.stats.Retained.Add(1)
	c.link.reports.Limit.Log(c.log, slog.LevelInfo, "retained message ignored, no gateway retains; remove it by publishing an empty retained one",
		slog.String("topic", string(m.Topic)))
}

// deliverUnknown offers a car that is not attached here, or that was released at
// this very moment, to the watch of its company.
func (c *conn) deliverUnknown(m *wire.Packet) error {
	company, car, ok := topics.Split(m.Topic)
	if !ok {
		c.stats.Foreign.Add(1) // CONN-2: other topics are ignored
		c.leftover(m)
		return nil
	}
	c.mu.Lock()
	w := c.watches[string(company)]
	c.mu.Unlock()
	if w == nil && c.isShard() {
		w = c.link.watchOf(company) // it finds cars that the session knows too
	}
	if w == nil {
		c.stats.Foreign.Add(1)
		c.leftover(m)
		return nil
	}
	if !topics.Valid(string(car)) {
		c.stats.BadName.Add(1)
		c.link.reports.Limit.Log(c.log, slog.LevelInfo, "message of a car whose name is not allowed, ignored",
			slog.String("topic", string(m.Topic)), slog.String("expected", "a-z, 0-9 and _"))
		return nil
	}
	id := fleet.CarID{Company: w.company, Car: string(car)}
	if c.scout {
		c.viaScout(id, w, m)
		return nil
	}
	if c.link.attachedElsewhere(id, c) {
		return nil // that connection delivers it
	}
	w.unknown(id, m.Payload)
	c.mu.Lock()
	p := c.ports[string(m.Topic)]
	var receiver link.Receiver
	first := p != nil && !p.up
	if p != nil {
		p.up = true
		receiver = p.receiver
	}
	c.mu.Unlock()
	if p == nil {
		c.stats.Foreign.Add(1)
		c.leftover(m)
		return nil
	}
	if first {
		receiver.LinkUp(link.Fresh)
	}
	if !c.hear(receiver, m, link.Ack{}) {
		c.stats.Foreign.Add(1)
	}
	return nil
}

// announce says LinkUp to the ports whose topics became subscribed, and LinkDown
// to those that lost their subscription.
func (c *conn) announce() {
	c.mu.Lock()
	if len(c.up) == 0 {
		c.mu.Unlock()
		return
	}
	ports := c.up
	c.up = nil
	n := 0
	for _, p := range ports {
		if !p.closed && p.up == p.refused {
			p.up = !p.refused
			ports[n] = p
			n++
		}
	}
	type change struct {
		receiver link.Receiver
		up       bool
		kind     link.Up
		read     bool // the backlog is over
	}
	changes := make([]change, n)
	for i, p := range ports[:n] {
		changes[i] = change{p.receiver, p.up, p.upKind(), p.up && p.continues && !c.barrier.Open()}
		if changes[i].read {
			p.continues = false
		}
	}
	c.mu.Unlock()
	for _, ch := range changes {
		if ch.up {
			ch.receiver.LinkUp(ch.kind)
			if ch.read {
				ch.receiver.BacklogRead()
			}
		} else {
			ch.receiver.LinkDown(errRefused, false)
		}
	}
}
