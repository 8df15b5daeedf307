package session

import (
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// EventKind tells which fields of an Event are meaningful.
type EventKind uint8

// Kinds of events.
const (
	EventMessage       EventKind = iota + 1 // Message arrived from the gateway
	EventCommands                           // Commands were fetched from module Module
	EventDeadline                           // the time of Deadline has come
	EventAdmission                          // the answer to EffectDeviceConnected or EffectAskType with Ticket: Admitted, Unsupported
	EventLinkUp                             // the car's topic is subscribed; Kept: the broker held what came in the time Down
	EventLinkDown                           // the broker is gone, queued messages with it; Kept: it may hold what comes, Settled
	EventPublishFailed                      // a message of the last effects could not be queued (CONN-29)
	EventStop                               // the server stops
	EventReload                             // the same for a car that a reload changes or removes
	EventDisconnect                         // an operator ends the session; the gateway is told and connects anew
	EventReannounce                         // an operator asks the gateway to connect anew and announce its devices
	EventResume                             // the first of a Session: go on where a journal ends, see Resumption
	EventUnbind                             // other modules take the place of the present ones; the session goes on with EventRebind
	EventRebind                             // the modules are others, or their contexts are
	EventBacklogRead                        // all that the broker held for the car has come, see EventLinkUp
	EventDelivered                          // module Module was handed its statuses up to Number (RES-26)
	EventGatewayGone                        // the broker has had no connection of the gateway for some time
	EventBacklogSlow                        // the broker may wait for acknowledgements, see Withhold
)

// Event is one input of the state machine.
type Event struct {
	Kind     EventKind
	Message  fleet.ClientMessage
	Module   int32
	Commands []fleet.Command
	Ticket   uint64
	Admitted bool
	// Unsupported: not admitted because the module does not serve the type of the device.
	Unsupported bool
	Number      uint64
	// Position is how far the module has fetched, Commands included (EventCommands).
	Position []byte
	// Kept: the broker holds messages for the car while the link is down. An
	// EventLinkUp with Kept is followed by EventBacklogRead.
	Kept bool
	// Withhold: the owner acknowledges statuses that Session.Withheld names with their
	// answers only (EventLinkUp). It gives EventBacklogSlow when nothing more comes before
	// they are.
	Withhold bool
	// Settled: the broker has acknowledged all that was published (EventLinkDown).
	Settled bool
	// Greeted: a Connect of the gateway comes next (EventRebind).
	Greeted bool
	// Down is for how long the car was out of reach, at least (EventLinkUp).
	Down time.Duration
	// Resume is what is known of the car (EventResume). It is the Session's from then on.
	Resume *record.Resumption
}

// EffectKind tells which fields of an Effect are meaningful.
type EffectKind uint8

// Kinds of effects.
const (
	// EffectPublish: send Message to the gateway, after everything sent before.
	EffectPublish EffectKind = iota + 1
	// EffectNotifyDisconnect: send the disconnect notification (CONN-3).
	EffectNotifyDisconnect
	// EffectDiscardOutgoing: forget messages not yet handed to the broker (DEF-20).
	EffectDiscardOutgoing
	// EffectDeviceConnected: ask the module of Device whether it serves the type,
	// unless that is remembered, call device_connected if it does, and report the
	// result as EventAdmission with Ticket. The caller must not wait
	// for either. First: no device of the module was connected, so commands fetched
	// earlier are stale (DEV-3).
	EffectDeviceConnected
	// EffectAskType: ask the module of Device whether it serves the type, without
	// waiting for it, and report the answer as EventAdmission with Ticket. A later
	// one of the same module replaces it.
	EffectAskType
	// EffectForward: call forward_status with Data and, if Error is not empty,
	// forward_error_message (STAT-30, STAT-32). Number is that of the status among
	// those of its module. Again: an earlier process has accepted it; there need not be
	// room for it.
	EffectForward
	// EffectAnswerLater: the answer to the status in hand, that of Counter, comes later. The broker is told with
	// it, or by EffectHandled, that the status was handled.
	EffectAnswerLater
	// EffectHandled: tell the broker that the status of Counter was handled; its answer comes
	// later, or never.
	EffectHandled
	// EffectDeviceDisconnected: call device_disconnected with Disconnect.
	EffectDeviceDisconnected
	// EffectAck: call command_ack of module Module with Command.
	EffectAck
	// EffectSessionStarted: a Connect was accepted; SessionID is current now.
	EffectSessionStarted
	// EffectSessionRunning: the connect sequence is complete.
	EffectSessionRunning
	// EffectSessionResumed: the session goes on after the time Down in which its
	// gateway was out of reach.
	EffectSessionResumed
	// EffectSessionEnded: the session or connect sequence ended for Reason.
	EffectSessionEnded
	// EffectNote: something worth a log line and a count happened. Command is
	// meaningful for NoteCommandSent and NoteCommandAcked.
	EffectNote
)

// Effect is one output of the state machine. Slices belong to the Effect's
// receiver once Step returned; the Session does not change them.
type Effect struct {
	Kind       EffectKind
	Message    fleet.ServerMessage
	SessionID  string
	Device     fleet.Device
	Ticket     uint64
	First      bool
	Data       []byte
	Error      []byte
	Number     uint64
	Again      bool
	Down       time.Duration
	Disconnect fleet.DisconnectType
	Module     int32
	Command    fleet.Command
	Reason     Reason
	// Established: the session that ended had completed its connect sequence.
	Established bool
	Level       Level
	Note        Note
	Counter     uint32
	// Since is when what the effect is about began: the status was received
	// (EffectForward and the publication of its answer, zero when unknown), the
	// command was sent (NoteCommandAcked, whose Response is the gateway's).
	Since    time.Time
	Response fleet.ResponseType
	// Count is how many things the note is about, or how many un-acknowledged
	// commands an ended session leaves behind (DEF-41).
	Count int
}

// Level is the severity of a note, by owner of the fault: a peer's fault is
// Info, an operator should look at Warning, Error is ours.
type Level uint8

// Levels of notes.
const (
	Debug Level = iota
	Info
	Warning
	Error
)

// Reason tells why a session or a connect sequence ended. The texts are names
// in logs and metrics.
type Reason string

// Reasons.
const (
	ReasonNone                 Reason = ""
	ReasonStopped              Reason = "server stopped"
	ReasonReloaded             Reason = "car changed or removed by a reload"
	ReasonLinkDown             Reason = "broker connection lost"
	ReasonSuperseded           Reason = "session could not be resumed: its gateway has another one"
	ReasonOutdated             Reason = "session could not be resumed: what the other server has left is outdated"
	ReasonNotContinued         Reason = "session could not be resumed: the broker has kept nothing"
	ReasonPublishFailed        Reason = "message could not be sent"
	ReasonOperator             Reason = "disconnected by an operator"
	ReasonGatewayGone          Reason = "gateway's connection closed"
	ReasonReplaced             Reason = "gateway started a new session"                             // REC-3
	ReasonSessionTimeout       Reason = "session timeout"                                           // SESS-7
	ReasonMissingStatus        Reason = "missing status timeout"                                    // STAT-5
	ReasonCommandTimeout       Reason = "command response timeout"                                  // CMD-10
	ReasonSilent               Reason = "gateway silent since a command"                            // CMD-10, nothing at all has come
	ReasonNoDevice             Reason = "no connected device left"                                  // STAT-34
	ReasonTooManyAhead         Reason = "too many statuses ahead of a missing one"                  // DEF-9
	ReasonSequenceNoDevices    Reason = "connect sequence: connect lists no devices"                // SEQ-3
	ReasonSequenceNoSessionID  Reason = "connect sequence: connect has no session id"               // SEQ-4
	ReasonSequenceTimeout      Reason = "connect sequence: message missing"                         // SEQ-11, SEQ-45
	ReasonSequenceNoRoom       Reason = "connect sequence: module queue stayed full"                // REC-22
	ReasonSequenceRepeated     Reason = "connect sequence: connect repeated"                        // REC-4
	ReasonSequenceState        Reason = "connect sequence: first status is not CONNECTING"          // SEQ-12
	ReasonSequenceTooManyHeld  Reason = "connect sequence: too many messages before its completion" // REC-22
	ReasonSequenceTooManyNamed Reason = "connect sequence: connect lists too many devices"          // REC-22
)

// Drops tells whether the note says that a message, status or command of a peer
// or of a module was not used.
func (n Note) Drops() bool {
	switch n {
	case NoteEmptyMessage, NoteForeignSession, NoteNotConnected, NoteRedelivered, NoteFirstStatusRepeated, NoteNotListed,
		NoteUnexpected, NoteStatusLow, NoteStatusDuplicate, NoteStatusNotConnected, NoteStatusState, NoteCommandMismatch,
		NoteCommandsStale, NoteCommandsOverflow, NoteResponseUnknown:
		return true
	}
	return false
}

// ContentionNotes are the notes which say that a car may have two gateways or two servers, in the order of
// the contention.Findings.
func ContentionNotes() []Note {
	return []Note{NoteAnotherServer, NoteSessionsShort, NoteTwoGateways, NoteTwoServers}
}

// Contended tells whether the note is one of ContentionNotes.
func (n Note) Contended() bool {
	switch n {
	case NoteAnotherServer, NoteSessionsShort, NoteTwoGateways, NoteTwoServers:
		return true
	}
	return false
}

// Note names an observation; the texts are names in logs and metrics.
type Note string

// Notes.
const (
	NoteEmptyMessage        Note = "empty message ignored"                                              // SESS-5, CONN-33
	NoteForeignSession      Note = "message of another session ignored"                                 // SESS-1, REC-25
	NoteNotConnected        Note = "message before connect discarded"                                   // SEQ-1
	NoteUnknownSession      Note = "gateway believes in an unknown session, calling it to connect anew" // docs/architecture.md: unknown sessions
	NoteAnotherServer       Note = "gateway has kept an unknown session for a minute: another server answers it, and it does not hear this one"
	NoteSessionsShort       Note = "gateway begins session after session: two gateways with the name of this car, another server for it, or a gateway that fails"
	NoteTwoGateways         Note = "two gateways use the name of this car: their sessions speak in turn"
	NoteTwoServers          Note = "another server serves this car: its gateway answers what this one has not sent"
	NoteAlreadyLogged       Note = "connect repeated in a running session"                // SESS-3
	NoteRedelivered         Note = "redelivered connect ignored"                          // REC-4
	NoteDuplicateDevice     Note = "device listed twice in connect, ignored"              // SEQ-6
	NoteModuleUnsupported   Note = "device of an unconfigured module"                     // SEQ-6
	NoteTypeUnsupported     Note = "device type not supported by its module"              // SEQ-6
	NoteEmptyRole           Note = "device without role treated as unsupported"           // DEF-6
	NoteRefused             Note = "device refused by its module, treated as unsupported" // REC-6, DEF-48
	NoteAdmissionSlow       Note = "module is slow to accept the device, going on"        // REC-8
	NoteDeviceConnected     Note = "device connected"
	NoteDeviceDisconnected  Note = "device disconnected"
	NoteFirstStatusRepeated Note = "first status repeated, ignored"                     // DEF-3
	NoteNotListed           Note = "status of a device not listed in connect ignored"   // DEF-4
	NoteUnexpected          Note = "unexpected message ignored in the connect sequence" // REC-27
	NoteStatusReceived      Note = "status received"
	NoteStatusLow           Note = "status counter too low, ignored" // STAT-3
	NoteStatusRedelivered   Note = "status redelivered, its answer is sent again"
	NoteBacklogGap          Note = "statuses are missing among those that the broker held: was its queue full?"
	NoteStatusDuplicate     Note = "status received twice, ignored"                               // STAT-8, DEF-8
	NoteStatusMissing       Note = "status missing, waiting for it"                               // STAT-5
	NoteStatusWithheld      Note = "module queue full, answer withheld"                           // an answer is a promise
	NoteStatusAtRisk        Note = "status answered although its module has not taken it in time" // RES-26
	NoteStatusNotConnected  Note = "status of a device that is not connected ignored"             // STAT-24, STAT-26
	NoteStatusState         Note = "status with unknown state ignored"                            // STAT-28
	NoteStatusUnsupported   Note = "status of an unsupported device answered, not forwarded"      // REC-6
	NoteStatusErrorState    Note = "status with state ERROR"                                      // STAT-27, DEF-46
	NoteCommandSent         Note = "command sent"
	NoteCommandRepeated     Note = "command sent again, it has not reached the broker"
	NoteCommandAcked        Note = "command acknowledged"
	NoteCommandRefused      Note = "gateway did not deliver the command"                       // CMD-24, DEF-42
	NoteCommandMismatch     Note = "module names a device of another module, command dropped"  // CMD-6
	NoteCommandMismatchSent Note = "module names a device of another module, command sent"     // CMD-6
	NoteCommandNotConnected Note = "command for a device that is not connected"                // CMD-7
	NoteCommandEmpty        Note = "command without data"                                      // CMD-8
	NoteCommandsStale       Note = "commands fetched while the module had no device discarded" // DEF-38
	NoteCommandsOverflow    Note = "too many commands held back, oldest dropped"               // REC-22
	NoteResponseUnknown     Note = "response to a command that is not waiting ignored"         // CMD-22
)
