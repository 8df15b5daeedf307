package session

import (
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/commands"
	"external-server/internal/session/contention"
	"external-server/internal/session/order"
	"external-server/internal/session/owed"
	"external-server/internal/session/record"
	"external-server/internal/session/settings"
)

// Modules and Options are what New is given.
type (
	Modules = settings.Modules
	Options = settings.Options
)

// Phase is the state of a car (SM-1, REC-5).
type Phase uint8

// Phases. A car leaves every phase for PhaseWaiting when anything fails.
const (
	PhaseWaiting   Phase = iota // waiting for Connect, without time limit (REC-5)
	PhaseAdmitting              // modules are asked about the listed devices (SEQ-6)
	PhaseStatuses               // first statuses are awaited (SEQ-10)
	PhaseCommands               // responses to the first commands are awaited (SEQ-40)
	PhaseRunning                // normal communication (SESS-1 and on)
)

// String returns the name used in logs, scripts and the API.
func (p Phase) String() string {
	switch p {
	case PhaseAdmitting:
		return "admitting"
	case PhaseStatuses:
		return "first statuses"
	case PhaseCommands:
		return "first commands"
	case PhaseRunning:
		return "running"
	}
	return "waiting"
}

// device is what the session knows of one device.
type device struct {
	fleet.Device        // as announced, priority included (DEF-32)
	supported    bool   // its module takes it; false: answered only (REC-6)
	listed       bool   // named by Connect: gets a first command
	first        bool   // its first status came (DEF-3)
	ticket       uint64 // of device_connected, 0 when none was made
	asked        bool   // device_connected was made and is undecided
	rebound      bool   // it was announced again after a change of the modules
	started      bool   // an EffectDeviceConnected went out and was not refused
}

// Session is the state machine of one car. The zero value is not usable; see
// New. The owner serialises all calls.
type Session struct {
	opts    Options
	modules Modules
	now     time.Time
	effects []Effect
	granted []grant // room used up by the effects of this Step

	phase Phase
	id    string
	// devices in connection order; few per car, so a slice is the fastest map.
	devices []*device
	tickets uint64
	admitBy time.Time // decide admissions as OK at this time; zero: none undecided
	asking  question

	waitBy     time.Time // limit of the connect sequence (SEQ-11, SEQ-45)
	responses  int       // command responses still awaited in PhaseCommands
	held       []fleet.ClientMessage
	firsts     []fleet.ClientMessage // first statuses that wait for room, in the order of their arrival
	firstsAt   time.Time             // when they are tried again; zero: there are none
	heldBytes  int                   // of held and firsts
	sessionBy  time.Time             // T_sess
	heard      time.Time             // when its last message came in normal communication
	withModule bool                  // a supported device was connected: STAT-34 applies

	order   order.Order
	sent    commands.Queue
	pending commands.Pending // commands held back until RUNNING (REC-13)
	owed    owed.Answers     // answers that are held, in the order in which they leave
	hand    uint32           // counter of the status in hand,
	inHand  bool             // if there is one that the broker was not told of
	unsaid  []uint32         // statuses of which it is told at the end of this Step

	// What is needed to go on in another process: see Durable and recovery.
	journal     record.Entries    // the record of this Step: the car's prefix, then entries
	prefix      int               // length of the prefix; 0: no journal is kept
	changed     bool              // the devices have changed in this Step
	early       []uint32          // counters of the statuses that were put aside in this Step
	numbers     []record.Number   // of the modules' next statuses
	positions   []record.Position // as the journal knows them
	recovery    *recovery         // nil: nothing is uncertain
	behind      uint32            // counter behind what the broker held last: if it is missing, its queue may have been full
	behindKnown bool
	anew        bool                 // the gateway is to connect anew when the recovery is over
	rejoin      bool                 // the session was resumed: see joins
	left        []fleet.DeviceID     // devices that have left it since
	backlog     bool                 // what the broker held is being read
	late        bool                 // and not answered before it was read
	connectIn   *fleet.ClientMessage // the newest Connect in it, when late

	// See Withheld.
	withholds   bool
	withheld    uint32
	withheldNow bool // in this Step

	// What another server needs to know if this one fails: see Version.
	version   uint64
	uncarried int         // statuses accepted since it changed
	carried   int         // statuses held at the end of the last Step
	anewBy    time.Time   // the gateway was made to connect anew, and commands are held back until then; zero: it was not
	hint      *order.Hint // the next status is not known exactly; nil: it is

	quiet    bool // see Quiet
	outgoing bool // messages of an ended session may still be queued (DEF-20)
	unknown  unknown

	began      time.Time            // the Connect of the current session
	called     bool                 // its gateway was called to connect anew
	replayed   bool                 // its Connect was handled before: messages come a second time
	contention *contention.Evidence // nil: nothing to remember
}

// New returns the state machine of one car that waits for Connect.
func New(opts Options, modules Modules) *Session {
	opts = opts.WithDefaults()
	return &Session{opts: opts, modules: modules, order: order.New(), sent: commands.Queue{Next: opts.FirstCommand}}
}

// Configure puts other settings in force. Time limits that are running stay as
// they are.
func (s *Session) Configure(opts Options) { s.opts = opts.WithDefaults() }

// UseModules replaces the modules that the session asks, from the next Step on. A
// new owner, with which the session goes on, brings its own. It may be called in
// every phase.
func (s *Session) UseModules(modules Modules) { s.modules = modules }

// Phase returns the current phase.
func (s *Session) Phase() Phase { return s.phase }

// ID returns the id of the current session, or "" while waiting.
func (s *Session) ID() string {
	if s.phase == PhaseWaiting {
		return ""
	}
	return s.id
}

// Devices returns the connected devices (VOC-10) in connection order.
func (s *Session) Devices() []fleet.Device {
	var out []fleet.Device
	for _, d := range s.devices {
		if d.supported && !d.asked {
			out = append(out, d.Device)
		}
	}
	return out
}

// Load counts what a session holds; all of it is bounded (REC-22).
type Load struct {
	Devices int // known devices, unsupported ones included
	Ahead   int // statuses that wait for an earlier one, for room or for an admission
	Held    int // messages that wait for the connect sequence to go on
	Pending int // commands that wait for normal communication
	Unacked int // commands whose response is awaited
	Owed    int // statuses that were accepted and whose answers are held
}

// Load returns what the session holds at the moment.
func (s *Session) Load() Load {
	return Load{Devices: len(s.devices), Ahead: s.order.Len(), Held: len(s.held) + len(s.firsts), Unacked: len(s.sent.Waiting()), Pending: s.pending.Len(), Owed: s.owed.Len()}
}

// keptEffects is the room for effects that a session keeps between two Steps: those
// of a status.
const keptEffects = 4

// Quiet leaves notes of the level Debug out of the effects, for an owner who would
// throw them away: there is one for every message.
func (s *Session) Quiet(quiet bool) { s.quiet = quiet }

// Step handles one event at the given time and returns what is to be done, in
// order. The result is valid until the next call.
func (s *Session) Step(now time.Time, ev Event) []Effect {
	s.now = now
	if cap(s.effects) > keptEffects { // of a connect sequence: thousands of cars would hold much
		s.effects = nil
	}
	clear(s.effects)
	s.effects = s.effects[:0]
	s.granted = s.granted[:0]
	s.withheldNow = false
	s.unsaid = s.unsaid[:0]
	if cap(s.journal) > keptJournal {
		s.journal = append([]byte(nil), s.journal[:s.prefix]...)
	}
	s.journal = s.journal[:s.prefix]
	s.inHand = ev.Kind == EventMessage && ev.Message.Kind == fleet.ClientStatus
	s.hand = ev.Message.Counter
	s.handle(ev)
	s.finishRecord()
	return s.effects
}

func (s *Session) handle(ev Event) {
	switch ev.Kind {
	case EventMessage:
		s.message(ev.Message)
	case EventCommands:
		s.commandsFetched(ev.Module, ev.Commands, ev.Position)
	case EventDeadline:
		s.deadline()
	case EventAdmission:
		s.admission(ev.Ticket, ev.Admitted, ev.Unsupported)
	case EventDelivered:
		s.owed.Delivered(ev.Module, ev.Number)
		s.answerOwed()
	case EventLinkDown:
		s.linkLost(ev.Kept, ev.Settled)
	case EventLinkUp:
		s.linkUp(ev.Kept, ev.Withhold, ev.Down)
	case EventBacklogRead:
		s.stopWithholding()
		s.backlogRead()
	case EventBacklogSlow:
		s.stopWithholding()
	case EventResume:
		s.resume(ev.Resume)
	case EventUnbind:
		s.unbind()
	case EventRebind:
		s.rebind(ev.Greeted)
	case EventPublishFailed:
		s.end(ReasonPublishFailed, true)
	case EventStop:
		s.end(ReasonStopped, true) // CLI-24
	case EventReload:
		s.end(ReasonReloaded, true)
	case EventDisconnect:
		if s.phase == PhaseWaiting { // the gateway may believe in a session
			s.notifyNow()
		}
		s.end(ReasonOperator, true)
	case EventGatewayGone:
		s.end(ReasonGatewayGone, false) // nothing would hear the notification
	case EventReannounce:
		// Inside the connect sequence it would only fail that; the session goes on
		// until the new Connect replaces it (REC-3).
		if s.phase == PhaseWaiting || s.phase == PhaseRunning {
			s.connectAnew()
		}
	}
}

func (s *Session) emit(e Effect) { s.effects = append(s.effects, e) }

func (s *Session) note(level Level, n Note, d fleet.Device, counter uint32) {
	if level == Debug && s.quiet {
		return
	}
	s.emit(Effect{Kind: EffectNote, Level: level, Note: n, Device: d, Counter: counter, SessionID: s.id})
}

func (s *Session) publish(m fleet.ServerMessage) {
	m.SessionID = s.id // MSG-2
	s.emit(Effect{Kind: EffectPublish, Message: m})
}

// message dispatches by phase. The session id is looked at before anything else
// (REC-25).
func (s *Session) message(m fleet.ClientMessage) {
	if s.phase == PhaseStatuses {
		s.waitBy = s.now.Add(s.opts.MessageTimeout) // SEQ-11, whatever came
	}
	if m.Kind == fleet.ClientConnect {
		if s.backlog && s.late {
			s.connectLater(m)
		} else {
			s.connect(m)
		}
		return
	}
	if s.phase == PhaseWaiting {
		s.beforeConnect(m)
		return
	}
	if m.Kind == fleet.ClientEmpty {
		s.note(Warning, NoteEmptyMessage, fleet.Device{}, 0) // SESS-5, SEQ-43, REC-27
		return
	}
	if m.SessionID != s.id && s.superseded(m) {
		s.end(ReasonSuperseded, false)
		s.beforeConnect(m)
		return
	}
	if m.SessionID != s.id {
		s.note(Info, NoteForeignSession, m.Device, m.Counter) // SESS-1, SEQ-41, DEF-16, STAT-33
		s.foreignMessage(m)
		return
	}
	switch s.phase {
	case PhaseAdmitting:
		s.notOurs(m)
		s.hold(m) // handled in order as soon as the ConnectResponse is out
	case PhaseStatuses:
		s.firstStatus(m)
	case PhaseCommands:
		if m.Kind == fleet.ClientStatus {
			s.hold(m) // REC-28
			return
		}
		s.firstResponse(m)
	case PhaseRunning:
		s.heard, s.sessionBy = s.now, s.now.Add(s.opts.SessionTimeout) // SESS-2
		if s.recovery != nil {
			s.recovered(m)
			return
		}
		if m.Kind == fleet.ClientStatus {
			s.status(m)
		} else {
			s.commandResponse(m)
		}
	}
}

// find returns the device of the given identity (VOC-8), or nil.
func (s *Session) find(id fleet.DeviceID) *device {
	for _, d := range s.devices {
		if d.Type == id.Type && d.Module == id.Module && d.Role == id.Role {
			return d
		}
	}
	return nil
}

// moduleConnected tells whether a device of the module is connected, other than
// the given one.
func (s *Session) moduleConnected(module int32, except *device) bool {
	for _, d := range s.devices {
		if d != except && d.supported && d.Module == module {
			return true
		}
	}
	return false
}
