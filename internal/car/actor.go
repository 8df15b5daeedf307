package car

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// work handles first, if there is one, and then what is in the mailbox until that
// is empty. The mailbox makes sure that one goroutine at a time does so: a message
// is handled on the goroutine of the link, if no other one is at it, because
// nothing on the way to its answer waits, and handing it over would cost more than
// handling it.
//
// onLink says that it is the link's goroutine, which calls Sent afterwards.
func (c *Car) work(first *item, onLink bool) {
	defer c.caught()
	c.onLink = onLink
	if first != nil {
		c.configure()
		c.handle(first)
	}
	for {
		c.arm()
		mail, ok := c.mail.take(c.spare)
		if !ok {
			return
		}
		c.handleMail(mail)
	}
}

// put queues something that is not a message.
func (c *Car) put(it item) {
	if _, work := c.mail.put(it); work {
		go c.work(nil, false)
	}
}

// Defect is the value of a panic of Run: what was recovered where the defect showed.
type Defect struct {
	Value any
	Stack []byte // of the goroutine that met it
}

// Error describes the defect.
func (d *Defect) Error() string { return fmt.Sprint(d.Value) }

// caught ends the work of a car with a defect for good: the mailbox stays busy, and
// Run panics instead of the link.
func (c *Car) caught() {
	if p := recover(); p != nil {
		c.defect <- &Defect{Value: p, Stack: debug.Stack()}
	}
}

// arm sets the one timer. A deadline that moved into the future is not set
// anew, because it moves with every status: the timer fires, finds nothing due
// and is set again.
func (c *Car) arm() {
	at := c.session.Deadline()
	if at.IsZero() || (!c.armed.IsZero() && !c.armed.After(at)) {
		return
	}
	c.armed = at
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(at), c.fire)
		return
	}
	c.timer.Reset(time.Until(at))
}

func (c *Car) fire() {
	if c.mail.putDue() {
		c.work(nil, false)
	}
}

// configure puts new settings in force.
func (c *Car) configure() {
	if c.options.Load() == nil {
		return
	}
	if opts := c.options.Swap(nil); opts != nil {
		c.session.Configure(*opts)
	}
}

func (c *Car) handleMail(m mail) {
	c.configure()
	if m.due {
		c.armed = time.Time{}
	}
	for i := range m.items {
		c.handle(&m.items[i])
	}
	clear(m.items)
	if len(m.modules) > 1 { // in the order of configuration (SEQ-31)
		slices.SortFunc(m.modules, func(a, b int32) int { return c.position(a) - c.position(b) })
	}
	for _, n := range m.modules {
		if commands := c.find(n).worker.TakeCommands(); len(commands) > 0 {
			c.now = time.Now()
			c.tellCommands(n, commands)
			c.step(c.now, session.Event{Kind: session.EventCommands, Module: n, Commands: commands})
		}
	}
	if m.due { // what came before the deadline may have moved it (DEF-27)
		c.step(time.Now(), session.Event{Kind: session.EventDeadline})
	}
	if cap(m.items) > maxIdleItems {
		m.items = nil
	}
	c.spare = m
}

func (c *Car) handle(it *item) {
	c.ack = it.delivery.Ack
	defer c.acknowledge()
	ev := session.Event{Kind: it.kind}
	switch it.kind {
	case kindDropped:
		return
	case session.EventMessage:
		m, err := c.decoder.Client(it.payload)
		if err != nil { // CONN-32
			c.counters.unreadable.Add(1)
			c.tellDropped(DropUnreadable)
			c.limit.Log(c.log, slog.LevelInfo, "message of the gateway cannot be read, ignored", slog.Any("error", err))
			return
		}
		m.Redelivered, m.Received = it.delivery.Duplicate, it.at
		ev.Message, c.answering = m, m.Counter
	case session.EventAdmission:
		ev.Ticket, ev.Admitted, ev.Unsupported = it.ticket, it.admitted, it.unsupported
	case session.EventLinkUp:
		c.setLink(true, nil)
	case session.EventLinkDown:
		c.setLink(false, it.reason)
	}
	now := time.Now()
	if ev.Kind == session.EventMessage && c.observing() {
		c.now = now
		c.tellMessage(&ev.Message)
	}
	c.step(now, ev)
}

// acknowledge acknowledges the message that was handled, unless its answer did.
func (c *Car) acknowledge() {
	if c.ack != (link.Ack{}) {
		c.port.Acknowledge(c.ack)
		c.ack = link.Ack{}
	}
}

// step lets the session handle one event and performs the effects.
func (c *Car) step(now time.Time, ev session.Event) {
	c.now = now
	c.session.Quiet(!c.observing() && !c.log.Enabled(context.Background(), slog.LevelDebug))
	failed := false
	effects := c.session.Step(now, ev)
	for i := range effects {
		if !c.perform(&effects[i]) {
			failed = true
		}
	}
	if failed && ev.Kind != session.EventPublishFailed {
		c.step(now, session.Event{Kind: session.EventPublishFailed})
	}
	c.showPhase()
}

// perform carries out one effect; false means that a message could not be sent.
func (c *Car) perform(e *session.Effect) bool {
	switch e.Kind {
	case session.EffectPublish:
		var ack link.Ack
		if e.Message.Kind == fleet.ServerStatusResponse && e.Message.Counter == c.answering {
			ack = c.ack
		}
		ok := c.port.Publish(protocol.EncodeServer(e.Message), ack)
		if ok && ack != (link.Ack{}) {
			c.ack = link.Ack{}
		}
		c.tellSent(e, ok)
		return ok
	case session.EffectNotifyDisconnect:
		if c.stopping {
			// The gateway connects anew at once, and a Connect that nobody hears costs it
			// 15 s. So it is told last, when the modules have taken what was accepted:
			// whoever takes over has the shortest time to be there in.
			c.notifyLast = true
			break
		}
		c.port.NotifyDisconnect() // the session is over either way
	case session.EffectDiscardOutgoing:
		c.port.DiscardPending()
	case session.EffectDeviceConnected:
		c.deviceConnected(e)
	case session.EffectAskType:
		c.askType(e)
	case session.EffectForward:
		c.forward(e)
	case session.EffectDeviceDisconnected:
		c.tellDisconnected(e)
		if m := c.find(e.Device.Module); m != nil {
			m.worker.DeviceDisconnected(e.Disconnect, e.Device.ForModule())
		}
	case session.EffectAck:
		if m := c.find(e.Module); m != nil {
			m.worker.CommandAck(fleet.Command{Device: e.Command.Device.ForModule(), Data: e.Command.Data})
		}
	case session.EffectSessionStarted, session.EffectSessionRunning, session.EffectSessionEnded:
		c.sessionChanged(e)
	case session.EffectNote:
		c.tellNote(e)
		c.note(e)
	}
	return true
}
