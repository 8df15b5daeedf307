package car

import (
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/session"
)

// Observer is told what happens to one car, for metrics, traces, the last values
// and the event stream. A car without one pays a comparison per event.
//
// Observe is called on the goroutine of the car, of its modules' workers and of
// the link, so also concurrently. It must return at once and must not call the
// car. The event and everything it points to are valid during the call only.
type Observer interface {
	Observe(ev *Event)
}

// EventKind tells which fields of an Event are meaningful besides Kind and At.
type EventKind uint8

// Kinds of events.
const (
	// Received: a readable message of the gateway reached the session. Since is
	// when the link delivered it; In.
	Received EventKind = iota + 1
	// Sent: a message was handed to the link, OK if it took it; Out. Since, of
	// the answer to a status, is when that was received.
	Sent
	// SessionStarted: a Connect was accepted; SessionID.
	SessionStarted
	// SessionRunning: the connect sequence is complete; SessionID, Since is its
	// start.
	SessionRunning
	// SessionResumed: the session of an earlier process, or from before a loss of the
	// broker, goes on; SessionID, Devices, Took is for how long it was out of reach.
	SessionResumed
	// SessionEnded: SessionID, Reason, Established, Count (commands without
	// response), Since is the start of the session.
	SessionEnded
	// DeviceConnected and DeviceDisconnected: Device; OK of the latter if the device said
	// so. Of a session that ends every other device is disconnected before SessionEnded.
	DeviceConnected
	DeviceDisconnected
	// Forwarded: a status was queued for its module, OK if it was taken; Device,
	// Counter, Data, Since is when it was received, Sequence numbers the
	// successful ones of the module.
	Forwarded
	// Called: a module was called; Call, Module, Device, Wait, Took, Err. For
	// module.CallStatus, Sequence is that of Forwarded.
	Called
	// CommandFetched: a module handed over a command, which waits to be sent;
	// Module, Command.
	CommandFetched
	// CommandSent: Device, Module, Counter, Command; its Fetched is zero for an empty first
	// command. The Sent event of the same message follows.
	CommandSent
	// CommandAnswered: the gateway has answered the command; Device, Module,
	// Counter, Command, Response, Since is when it was sent. The module of both is
	// the device's, 0 when the car does not have it.
	CommandAnswered
	// Dropped: something was dropped; Reason is one of the Drop constants or a
	// session.Note, Count how many, Device and Counter where known.
	Dropped
	// Noted: any other observation of the session; Reason is the session.Note.
	Noted
	// Link: the broker connection of the car was made (OK) or lost.
	Link
)

// Reasons of Dropped besides the notes of package session.
const (
	DropUnreadable = "message cannot be read"              // CONN-32
	DropTooLarge   = "message too large"                   // limits.payload
	DropLimited    = "too many messages per second"        // limits.messages_per_second
	DropOverflow   = "messages arrive faster than handled" // the mailbox is full
	DropUnqueued   = "answered status could not be queued"
	DropStale      = "commands fetched while the module had no device" // DEV-3
)

// Event is one thing that happened to a car.
type Event struct {
	Kind        EventKind
	At          time.Time
	Since       time.Time
	SessionID   string
	In          fleet.ClientMessage
	Out         fleet.ServerMessage
	Device      fleet.Device
	Devices     []fleet.Device
	Counter     uint32
	Data        []byte
	Command     fleet.Command
	Response    fleet.ResponseType
	Module      int32
	Call        module.CallKind
	Sequence    uint64
	Wait, Took  time.Duration
	Err         error
	Reason      string
	Level       session.Level
	Established bool
	OK          bool
	Count       int
}

// tell hands the event the actor has filled in to the observer and empties it,
// so that it keeps nothing alive. The actor uses one event for all of them:
// observing allocates nothing. at zero means the time of the step.
func (o *occupant) tell(kind EventKind, at time.Time) {
	ev := o.event
	ev.Kind, ev.At = kind, at
	if at.IsZero() {
		ev.At = o.now
	}
	o.opts.Observer.Observe(ev)
	*ev = Event{}
}

func (s *Seat) observing() bool { return s.opts.Observer != nil }

// tellDropped reports what was dropped outside the actor.
func (s *Seat) tellDropped(reason string) {
	if s.observing() {
		s.opts.Observer.Observe(&Event{Kind: Dropped, At: time.Now(), Reason: reason, Count: 1})
	}
}

func (o *occupant) tellMessage(m *fleet.ClientMessage) {
	if o.observing() {
		o.event.In, o.event.Since = *m, m.Received
		o.tell(Received, time.Time{})
	}
}

func (o *occupant) tellCommands(number int32, commands []fleet.Command) {
	if !o.observing() {
		return
	}
	for i := range commands {
		o.event.Module, o.event.Command = number, commands[i]
		o.tell(CommandFetched, time.Time{})
	}
}

func (o *occupant) tellSent(e *session.Effect, ok bool) {
	if o.observing() {
		o.event.Out, o.event.Since, o.event.OK = e.Message, e.Since, ok
		o.tell(Sent, time.Now())
	}
}

func (o *occupant) tellForwarded(e *session.Effect, m *boundModule, ok bool) {
	if !o.observing() {
		return
	}
	if ok {
		m.forwarded++
	}
	ev := o.event
	ev.Device, ev.Counter, ev.Data, ev.Since, ev.OK, ev.Sequence = e.Device, e.Counter, e.Data, e.Since, ok, m.forwarded
	o.tell(Forwarded, time.Time{})
}

// tellSession reports the life of a session; started is that of its connect
// sequence.
func (o *occupant) tellSession(e *session.Effect, now, started time.Time) {
	if !o.observing() {
		return
	}
	ev := o.event
	ev.SessionID, ev.Since, ev.Reason, ev.Established, ev.Count = e.SessionID, started, string(e.Reason), e.Established, e.Count
	switch e.Kind {
	case session.EffectSessionStarted:
		o.tell(SessionStarted, now)
	case session.EffectSessionRunning:
		o.tell(SessionRunning, now)
	case session.EffectSessionResumed:
		ev.Took, ev.Devices = e.Down, o.session.Devices()
		o.tell(SessionResumed, now)
	default:
		o.tell(SessionEnded, now)
	}
}

func (o *occupant) tellDisconnected(e *session.Effect) {
	if o.observing() {
		o.event.Device, o.event.OK = e.Device, e.Disconnect == fleet.DisconnectAnnounced
		o.tell(DeviceDisconnected, time.Time{})
	}
}

// tellNote reports an observation of the session as what it is about.
func (o *occupant) tellNote(e *session.Effect) {
	if !o.observing() {
		return
	}
	ev := o.event
	ev.Device, ev.Counter, ev.SessionID, ev.Level, ev.Module = e.Device, e.Counter, e.SessionID, e.Level, e.Module
	switch e.Note {
	case session.NoteDeviceConnected:
		o.tell(DeviceConnected, time.Time{})
	case session.NoteStatusReceived, session.NoteDeviceDisconnected:
		*ev = Event{} // reported as Received and DeviceDisconnected
	case session.NoteCommandSent:
		ev.Command, ev.Module = e.Command, o.configured(e.Device.Module)
		o.tell(CommandSent, time.Time{})
	case session.NoteCommandAcked:
		ev.Command, ev.Since, ev.Response, ev.Module = e.Command, e.Since, e.Response, o.configured(e.Device.Module)
		o.tell(CommandAnswered, time.Time{})
	default:
		ev.Reason, ev.Count = string(e.Note), max(1, e.Count)
		if e.Note.Drops() {
			o.tell(Dropped, time.Time{})
		} else {
			o.tell(Noted, time.Time{})
		}
	}
}

// configured returns the number of a module of the car, or 0.
func (o *occupant) configured(number int32) int32 {
	if o.find(number) == nil {
		return 0
	}
	return number
}

// wereStale tells of commands that the module held from the time without device, on
// the same goroutine as called.
func (m *boundModule) wereStale(o Observer, commands int) {
	ev := m.event
	ev.Kind, ev.At, ev.Reason, ev.Module, ev.Count = Dropped, time.Now(), DropStale, m.number, commands
	o.Observe(ev)
	*ev = Event{}
}

// called turns what a worker says into an event. It runs on the worker's
// goroutine, which is the only user of the module's event.
func (m *boundModule) called(o Observer, call *module.Call) {
	ev := m.event
	ev.Kind, ev.At, ev.Call, ev.Module, ev.Device = Called, call.At, call.Kind, m.number, call.Device
	ev.Wait, ev.Took, ev.Err = call.Wait, call.Took, call.Err
	if call.Kind == module.CallStatus {
		m.delivered++
		ev.Sequence = m.delivered
	}
	o.Observe(ev)
	*ev = Event{}
}
