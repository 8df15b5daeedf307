package sim

import (
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// Limits the sessions of the simulation have; the server leaves them at their
// defaults.
const (
	messageTimeout   = 5 * time.Second  // T_msg
	sessionTimeout   = 30 * time.Second // T_sess
	admissionTimeout = 2 * time.Second  // REC-8
	roomRetry        = 20 * time.Millisecond
	notifyPause      = 10 * time.Second
	notifyQuiet      = 5 * time.Second
)

// auditor compares every step of the core with the promises of the protocol. It
// knows the events that went in and the effects that came out, and of the core
// itself only phase, id, deadline and load.
type auditor struct {
	w       *World
	now     time.Time
	settled bool

	// Of the process.
	nextCommand uint32
	quietUntil  time.Time // no call out of an unknown session before

	// Of the step.
	overdue bool // the process was paused beyond the deadline
	event   session.Event
	phase   session.Phase // before it
	id      string
	inStep  stepLedger

	// Of the session.
	current ledger
}

// stepLedger is what happened in one step so far.
type stepLedger struct {
	promised    uint32 // counter of a status just forwarded and not answered yet
	hasPromised bool
	left        fleet.DeviceID // device whose DISCONNECT was just handled
	mustLeave   fleet.DeviceID // CMD-23
	mayLeave    fleet.DeviceID // the same, where it is not known whether statuses of the device wait
	forwards    [len(moduleNumbers)]int
	published   int
	notified    bool
	called      bool // to connect anew
	ended       bool
	reason      session.Reason
	established bool
	discarded   bool
	started     bool
	startedID   string
	acks        []ack // expected ones not seen yet
}

// ledger is what happened in one session.
type ledger struct {
	open      bool
	greeted   bool
	running   bool
	hadModule bool // a device was connected
	// calledUntil is how long commands are held back, because the gateway was called to connect anew.
	calledUntil time.Time
	repeated    []fleet.ClientMessage // Connects that came during the admission
	early       bool                  // messages came before the ConnectResponse and were held
	loose       bool                  // a response to a command came even before that, a replay of a whole session: what is held is not checked one by one
	listed      []listedDevice
	answers     int // in the sequence
	commands    int // in the sequence
	got         int // responses in the sequence
	progress    time.Time
	asked       map[uint64]fleet.DeviceID // undecided device_connected by ticket
	live        map[fleet.DeviceID]bool   // device_connected without device_disconnected
	tickets     map[fleet.DeviceID]uint64 // of device_connected of the live ones
	statuses    statusLedger
	sent        commandLedger
}

type listedDevice struct {
	device               fleet.Device
	forwarded, commanded bool
	came, answered       bool   // its first status
	counter              uint32 // of it
}

// process begins the audit of a new server process.
func (a *auditor) process() {
	*a = auditor{w: a.w, settled: a.settled, nextCommand: a.w.sc.FirstCommand}
	a.current.asked = make(map[uint64]fleet.DeviceID)
	a.current.live = make(map[fleet.DeviceID]bool)
	a.current.tickets = make(map[fleet.DeviceID]uint64)
	a.current.statuses.reset()
	a.current.sent.reset(false)
}

func (a *auditor) fail(format string, args ...any) { a.w.fail(format, args...) }

// before records an event.
func (a *auditor) before(now time.Time, ev session.Event, core *session.Session) {
	a.now, a.event, a.phase, a.id = now, ev, core.Phase(), core.ID()
	at := core.Deadline()
	a.overdue = ev.Kind != session.EventDeadline && !at.IsZero() && at.Before(now)
	a.inStep = stepLedger{acks: a.inStep.acks[:0]}
	c := &a.current
	switch ev.Kind {
	case session.EventMessage:
		a.traceMessage(ev.Message)
		m := ev.Message
		if a.phase == session.PhaseStatuses {
			c.progress = now
		}
		if m.Kind == fleet.ClientConnect && a.phase == session.PhaseAdmitting && m.SessionID == a.id && !m.Redelivered {
			c.repeated = append(c.repeated, m)
		}
		if a.phase == session.PhaseWaiting || m.Kind == fleet.ClientConnect || m.Kind == fleet.ClientEmpty || m.SessionID != a.id {
			return
		}
		switch a.phase {
		case session.PhaseAdmitting:
			c.early = true
			c.loose = c.loose || m.Kind == fleet.ClientCommandResponse
			c.firstCame(m)
		case session.PhaseStatuses:
			c.firstCame(m)
		case session.PhaseCommands:
			if m.Kind == fleet.ClientStatus {
				c.statuses.hold(m)
				return
			}
			c.progress = now
			c.got++
			a.responded(m)
		case session.PhaseRunning:
			c.statuses.heard = now
			if m.Kind == fleet.ClientStatus {
				c.statuses.receive(m, now)
			} else {
				a.responded(m)
			}
		}
	case session.EventCommands:
		a.w.trace("commands of module %d: %v", ev.Module, ev.Commands)
		a.fetched(ev.Module, ev.Commands)
	case session.EventAdmission:
		a.w.trace("admission %d %v", ev.Ticket, ev.Admitted)
		if ev.Admitted && c.live[c.asked[ev.Ticket]] {
			c.hadModule = true
		}
		for id, ticket := range c.tickets {
			if ticket == ev.Ticket && !ev.Admitted {
				a.inStep.mustLeave = id // early or late (REC-8)
			}
		}
		delete(c.asked, ev.Ticket)
	case session.EventDeadline:
		a.w.trace("deadline")
	default:
		a.w.trace("event %d", ev.Kind)
	}
}

// after checks the effects of the event.
func (a *auditor) after(now time.Time, ev session.Event, effects []session.Effect, core *session.Session) {
	for i := range effects {
		e := &effects[i]
		if a.inStep.hasPromised && e.Kind != session.EffectNote && (e.Kind != session.EffectPublish || e.Message.Kind != fleet.ServerStatusResponse) {
			a.fail("STAT-30: status %d was forwarded and not answered next", a.inStep.promised)
		}
		if a.w.log != nil {
			a.w.trace("    -> %s", describe(e))
		}
		a.effect(e)
	}
	if a.inStep.hasPromised {
		a.fail("STAT-30: status %d was forwarded and not answered", a.inStep.promised)
	}
	a.checkNotification()
	a.checkConnect(core)
	a.checkHandled()
	a.checkPhase(core)
	a.checkTimes(core)
	a.checkLoad(core)
	if ev.Kind == session.EventDeadline && !now.Before(a.current.calledUntil) { // whatever the clock does from now on
		a.current.calledUntil = time.Time{}
	}
	if len(a.inStep.acks) > 0 && !a.current.loose && a.w.err == nil {
		a.fail("CMD-20: command %q was answered and not acknowledged to module %d", a.inStep.acks[0].data, a.inStep.acks[0].module)
	}
}

func (a *auditor) effect(e *session.Effect) {
	c := &a.current
	switch e.Kind {
	case session.EffectSessionStarted:
		a.started(e)
	case session.EffectSessionEnded:
		a.ended(e)
	case session.EffectSessionRunning:
		a.running()
	case session.EffectDeviceConnected:
		id := e.Device.ID()
		a.skip()
		delete(c.statuses.refused, id)
		first := true
		for other := range c.live {
			first = first && other.Module != id.Module
		}
		if first != e.First {
			a.fail("DEV-3: device_connected of %v says first %v", e.Device, e.First)
		}
		if c.live[id] {
			a.fail("SEQ-6: device_connected twice for %v", e.Device)
		}
		c.live[id] = true
		c.asked[e.Ticket] = id
		c.tickets[id] = e.Ticket
	case session.EffectAskType:
		if !c.running || c.live[e.Device.ID()] || len(c.asked) > 0 || a.w.srv.worker(e.Device.Module).knows(e.Device.Type) {
			a.fail("REC-6: the type of %v is asked for out of place", e.Device)
		}
		c.asked[e.Ticket] = e.Device.ID()
	case session.EffectDeviceDisconnected:
		if !c.live[e.Device.ID()] {
			a.fail("device_disconnected for %v, which is not connected", e.Device)
		}
		if (e.Disconnect == fleet.DisconnectAnnounced) != a.announced(e.Device.ID()) {
			a.fail("VOC-14: device_disconnected for %v says %v", e.Device, e.Disconnect)
		}
		delete(c.live, e.Device.ID())
		delete(c.tickets, e.Device.ID())
	case session.EffectNote:
		switch e.Note {
		case session.NoteRefused, session.NoteTypeUnsupported:
			if !c.live[e.Device.ID()] {
				break // known at once
			}
			delete(c.live, e.Device.ID())
			c.statuses.refused[e.Device.ID()] = true
			c.hadModule = c.hadModule && len(c.live) > 0 // REC-6: as if that had been known at once
			if !a.hasModule(e.Device.Module) {
				delete(c.sent.owed, e.Device.Module) // DEF-38
			}
		case session.NoteAdmissionSlow:
			clear(c.asked)
			if c.live[e.Device.ID()] {
				c.hadModule = true
			} else if !served(e.Device) { // it is ignored like that of a type with a module
				a.skip()
				c.statuses.doubtful[c.statuses.cursor] = true
			}
		case session.NoteTwoGateways, session.NoteTwoServers:
			if !a.w.rogues {
				a.fail("one gateway and one server, and the core says %q", e.Note)
			}
		case session.NoteCommandsOverflow:
			c.sent.overflow(e.Module, e.Count)
		}
	case session.EffectForward:
		a.forwarded(e)
	case session.EffectAck:
		a.acked(e)
	case session.EffectPublish:
		a.published(&e.Message)
	case session.EffectNotifyDisconnect:
		a.inStep.notified = true
	case session.EffectDiscardOutgoing:
		a.inStep.discarded = true
		if a.inStep.published > 0 && !a.inStep.ended {
			a.fail("STAT-34: what was just sent is discarded")
		}
	}
}

// announced tells whether the device leaves by itself: it just said so, or the
// gateway refused a command for it (CMD-23).
func (a *auditor) announced(id fleet.DeviceID) bool {
	return id != (fleet.DeviceID{}) && (a.inStep.left == id || a.inStep.mustLeave == id || a.inStep.mayLeave == id)
}

func (a *auditor) started(e *session.Effect) {
	c := &a.current
	m := a.event.Message
	if a.event.Kind != session.EventMessage && len(c.repeated) > 0 {
		m, c.repeated = c.repeated[0], c.repeated[1:] // it was held during the admission
	} else {
		c.repeated = c.repeated[:0]
	}
	if c.open || m.Kind != fleet.ClientConnect || m.SessionID != e.SessionID {
		a.fail("session %q starts out of place", e.SessionID)
	}
	a.inStep.started = true
	a.inStep.startedID = e.SessionID
	c.open, c.greeted, c.running, c.early, c.loose, c.hadModule = true, false, false, false, false, false
	c.answers, c.commands, c.got = 0, 0, 0
	c.listed = c.listed[:0]
	clear(c.asked)
	clear(c.tickets)
	c.statuses.reset()
	c.sent.reset(!c.calledUntil.IsZero() && a.inStep.ended && a.inStep.reason == session.ReasonReplaced)
	c.calledUntil = time.Time{}
	c.progress = a.now
	for _, d := range m.Devices {
		if c.listedDevice(d.ID()) == nil {
			c.listed = append(c.listed, listedDevice{device: d})
		}
	}
}

func (c *ledger) listedDevice(id fleet.DeviceID) *listedDevice {
	for i := range c.listed {
		if c.listed[i].device.ID() == id {
			return &c.listed[i]
		}
	}
	return nil
}

func (a *auditor) ended(e *session.Effect) {
	c := &a.current
	if !c.open {
		a.fail("a session ends twice")
	}
	if len(c.live) > 0 {
		a.fail("SM-4: the session ends and leaves devices connected: %v", c.live)
	}
	if e.Established != c.running {
		a.fail("DEF-26: the end of the session says established %v", e.Established)
	}
	a.inStep.ended, a.inStep.reason, a.inStep.established = true, e.Reason, e.Established
	c.open, c.running = false, false
	a.quiet(notifyQuiet)
	if e.Reason == session.ReasonSequenceRepeated && len(c.repeated) > 0 {
		c.repeated = c.repeated[1:]
	}
	a.checkReason(e.Reason)
	if e.Reason == session.ReasonTooManyAhead && c.statuses.cursor != c.statuses.expected {
		a.w.excuse() // they wait for a slow module, not for a missing status
	}
	if a.settled || !a.w.excused() {
		switch e.Reason {
		case session.ReasonNoDevice, session.ReasonStopped:
		default:
			a.fail("session %q ends without a fault: %s", e.SessionID, e.Reason)
		}
	}
}

func (a *auditor) running() {
	c := &a.current
	if c.running || !c.greeted || c.answers != len(c.listed) || c.commands != len(c.listed) {
		a.fail("REC-2: running after %d answers and %d commands for %d devices", c.answers, c.commands, len(c.listed))
	}
	if c.got != len(c.listed) && !c.early {
		a.fail("SEQ-40: running after %d command responses for %d devices", c.got, len(c.listed))
	}
	c.running = true
	c.sent.running(a.now)
	c.statuses.begin(a.now)
}

// published checks the order of REC-2 and the ids of a message (MSG-2).
func (a *auditor) published(m *fleet.ServerMessage) {
	c := &a.current
	if m.AlreadyLogged && (!c.open || a.event.Kind == session.EventReannounce) {
		want := a.event.Message.SessionID
		if a.event.Kind == session.EventReannounce {
			want = a.id
		}
		if m.Kind != fleet.ServerConnectResponse || a.inStep.called || m.SessionID != want && a.phase != session.PhaseWaiting {
			a.fail("GW-34: call to connect anew %+v, want the id %q", *m, want)
		}
		a.inStep.called = true
		if c.running {
			c.calledUntil = a.now.Add(notifyQuiet)
		}
		return
	}
	a.inStep.published++
	if !c.open {
		a.fail("message %+v outside of a session", *m)
	}
	if want := a.sessionNow(); m.SessionID != want {
		a.fail("MSG-2: message of session %q in session %q", m.SessionID, want)
	}
	switch m.Kind {
	case fleet.ServerConnectResponse:
		if m.AlreadyLogged != c.running || (c.greeted && !c.running) {
			a.fail("SEQ-8: ConnectResponse out of place: %+v", *m)
		}
		if !c.greeted && len(c.asked) > 0 {
			a.fail("SEQ-8: ConnectResponse before the modules were asked: %v", c.asked)
		}
		if !c.greeted {
			c.progress = a.now
		}
		c.greeted = true
	case fleet.ServerStatusResponse:
		a.statusAnswered(m)
	case fleet.ServerCommand:
		a.commandSent(m)
	}
}

func (a *auditor) sessionNow() string {
	if a.inStep.started {
		return a.inStep.startedID
	}
	return a.id
}
