package gateway

import (
	"time"

	"external-server/internal/fleet"
)

// Phase is the state of a gateway's connection.
type Phase uint8

// Phases.
const (
	PhaseIdle       Phase = iota // no connection; the next device status starts an attempt (GW-10)
	PhaseOpening                 // the broker is being reached
	PhaseConnecting              // Connect was sent, its response is awaited (GW-13)
	PhaseStatuses                // answers to the first statuses are awaited (GW-15)
	PhaseCommands                // the first commands are awaited (GW-16)
	PhaseRunning                 // normal communication (GW-30)
	PhaseDropping                // the connection is lost, which is noticed within GW-4
	PhasePause                   // pause after a failed connect sequence (GW-3)
	PhaseStopped                 // for good
)

// String returns the name used in logs and reports.
func (p Phase) String() string {
	return [...]string{"idle", "opening", "connecting", "first statuses", "first commands",
		"running", "dropping", "pause", "stopped"}[p]
}

// Core is the gateway's side of the protocol of one car. See the package comment
// for the contract with its owner.
type Core struct {
	opts    Options
	now     time.Time
	effects []Effect

	phase   Phase
	session string
	waitBy  time.Time // end of the current wait: opening, sequence, dropping, pause
	reason  Reason    // why the connection is being dropped

	devices []device // registered ones and what is remembered of others
	listed  []int    // devices of the current Connect, as indices of devices
	answers int      // messages still awaited in the connect sequence

	counter     uint32 // of the last status sent in this connection
	lastCommand uint32 // counter of the last command received, 0: none (GW-31)
	outstanding outstanding
	stalled     time.Time // GW-7: nothing is sent before; zero: sending
	waiting     []report  // statuses of the stall, in order
}

// New returns the core of a gateway without devices. It does nothing before the
// first EventStatus.
func New(opts Options) *Core {
	return &Core{opts: opts.withDefaults()}
}

// Phase returns the current phase.
func (c *Core) Phase() Phase { return c.phase }

// Session returns the id of the current attempt or connection, or "".
func (c *Core) Session() string { return c.session }

// Outstanding returns the number of statuses that were sent and not answered.
func (c *Core) Outstanding() int { return c.outstanding.len() }

// Devices returns the registered devices in the order of a Connect (GW-12).
func (c *Core) Devices() []fleet.Device {
	var out []fleet.Device
	for _, i := range c.list(nil) {
		out = append(out, c.devices[i].Device)
	}
	return out
}

// Deadline returns when Step wants an EventDeadline; zero means never.
func (c *Core) Deadline() time.Time {
	var at time.Time
	take := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if c.phase == PhaseStopped {
		return at
	}
	take(c.waitBy)
	if c.phase == PhaseRunning {
		take(after(c.outstanding.oldest(), c.opts.Timing.StatusTimeout))
		take(c.stalled)
	}
	for i := range c.devices {
		take(c.devices[i].forcedAt)
	}
	return at
}

// after returns the end of a wait that began at t; zero, never, for a wait that did
// not begin or is switched off.
func after(t time.Time, d time.Duration) time.Time {
	if t.IsZero() || d < 0 {
		return time.Time{}
	}
	return t.Add(d)
}

func due(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }

// Step handles one event at the given time and returns what is to be done, in
// order. The result is valid until the next call.
func (c *Core) Step(now time.Time, ev Event) []Effect {
	c.now = now
	clear(c.effects)
	c.effects = c.effects[:0]
	if c.phase == PhaseStopped {
		return nil
	}
	switch ev.Kind {
	case EventStatus:
		c.deviceStatus(ev.Device, ev.Data, ev.Planned)
	case EventAlive:
		c.deviceAlive(ev.Device.ID())
	case EventLeave:
		if i := c.find(ev.Device.ID()); i >= 0 && c.devices[i].registered {
			c.leave(i)
		}
	case EventMessage:
		c.message(&ev.Message)
	case EventUnparseable:
		if c.listening() {
			c.violation(ReasonUnparseable, 0)
		}
	case EventNotification:
		c.notified()
	case EventLinkUp:
		if c.phase == PhaseOpening {
			c.connect()
		}
	case EventLinkFailed:
		if c.phase == PhaseOpening {
			c.fail(ReasonLinkFailed, 0)
		}
	case EventPublishFailed:
		c.publishFailed()
	case EventDeadline:
		c.deadline()
	case EventReconnect:
		c.reconnect()
	case EventRestart:
		c.restart()
	case EventStop:
		c.tearDown(ReasonStopped)
		c.phase = PhaseStopped
	}
	return c.effects
}

func (c *Core) emit(e Effect) { c.effects = append(c.effects, e) }

// listening tells whether messages of the server are read.
func (c *Core) listening() bool { return c.phase >= PhaseConnecting && c.phase <= PhaseRunning }

// inSequence tells whether an attempt is under way.
func (c *Core) inSequence() bool { return c.phase >= PhaseOpening && c.phase <= PhaseCommands }

func (c *Core) violation(r Reason, counter uint32) {
	c.emit(Effect{Kind: EffectViolation, Session: c.session, Reason: r, Counter: counter})
}

// deadline handles everything whose time has come.
func (c *Core) deadline() {
	if due(c.waitBy, c.now) {
		switch c.phase {
		case PhaseOpening:
			c.fail(ReasonLinkFailed, 0)
		case PhaseConnecting:
			c.fail(ReasonNoConnectResponse, 0)
		case PhaseStatuses:
			c.fail(ReasonNoStatusResponse, 0)
		case PhaseCommands:
			c.fail(ReasonNoCommand, 0)
		case PhaseDropping:
			c.react()
		case PhasePause:
			c.startAttempt()
		}
	}
	if c.phase == PhaseRunning && due(after(c.outstanding.oldest(), c.opts.Timing.StatusTimeout), c.now) {
		c.drop(ReasonUnanswered, c.outstanding.first())
	}
	if c.phase == PhaseRunning && due(c.stalled, c.now) {
		c.flush()
	}
	c.forceStatuses()
}

// startAttempt draws a session and asks for a connection, if there is a device to name in it.
func (c *Core) startAttempt() {
	c.waitBy = time.Time{}
	if c.listed = c.list(c.listed[:0]); len(c.listed) == 0 {
		c.phase = PhaseIdle
		return
	}
	c.phase = PhaseOpening
	c.session = c.newSession()
	c.waitBy = after(c.now, c.opts.Timing.LinkTimeout)
	c.emit(Effect{Kind: EffectOpen})
}

const alphanumerics = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newSession draws a session id (VOC-11, GW-11).
func (c *Core) newSession() string {
	var id [8]byte
	for i := range id {
		id[i] = alphanumerics[c.opts.Rand.IntN(len(alphanumerics))]
	}
	return string(id[:])
}

// fail ends the connect sequence; the next attempt follows after GW-3 (GW-20).
func (c *Core) fail(r Reason, counter uint32) {
	if r.Violation() {
		c.violation(r, counter)
	}
	c.tearDown(r)
	c.phase = PhasePause
	c.waitBy = c.now.Add(max(0, c.opts.Timing.RetryPause))
}

// drop gives the running connection up. The gateway acts on it when it looks at its
// queue the next time (GW-4); until then it neither sends nor listens.
func (c *Core) drop(r Reason, counter uint32) {
	if r.Violation() {
		c.violation(r, counter)
	}
	c.phase = PhaseDropping
	c.reason = r
	c.waitBy = c.now
	if poll := c.opts.Timing.QueuePoll; poll > 0 {
		c.waitBy = c.now.Add(time.Duration(c.opts.Rand.Int64N(int64(poll))))
	}
	if !c.waitBy.After(c.now) {
		c.react()
	}
}

// react ends a dropped connection, and starts the next attempt where the reason
// asks for it.
func (c *Core) react() {
	c.tearDown(c.reason)
	if c.reason.Reconnects() {
		c.startAttempt()
	}
}

// tearDown ends the connection or the attempt: counters start again (GW-11) and
// what was not answered becomes error messages (GW-53).
func (c *Core) tearDown(r Reason) {
	switch {
	case c.inSequence():
		c.emit(Effect{Kind: EffectSequenceFailed, Session: c.session, Reason: r})
		c.emit(Effect{Kind: EffectClose})
	case c.phase == PhaseRunning || c.phase == PhaseDropping:
		c.emit(Effect{Kind: EffectDisconnected, Session: c.session, Reason: r})
		c.emit(Effect{Kind: EffectClose})
	}
	c.outstanding.drain(func(s *sent) { c.aggregate(s.device, s.data) })
	for _, w := range c.waiting {
		c.aggregate(w.device, w.data)
	}
	clear(c.waiting)
	c.waiting = c.waiting[:0]
	c.stalled = time.Time{}
	c.counter, c.lastCommand = 0, 0
	c.session = ""
	c.phase = PhaseIdle
	c.waitBy = time.Time{}
}

func (c *Core) notified() {
	switch {
	case c.phase == PhaseRunning:
		c.drop(ReasonNotified, 0) // GW-40
	case c.listening():
		c.fail(ReasonNotified, 0) // GW-20
	}
}

func (c *Core) publishFailed() {
	switch {
	case c.phase == PhaseRunning:
		c.tearDown(ReasonPublishFailed) // GW-43
	case c.inSequence():
		c.fail(ReasonPublishFailed, 0)
	}
}

func (c *Core) reconnect() {
	if c.inSequence() {
		return
	}
	c.tearDown(ReasonRequested)
	c.startAttempt()
}

func (c *Core) restart() {
	c.tearDown(ReasonRestarted)
	for i := range c.devices {
		c.devices[i].restart()
	}
	c.startAttempt()
}
