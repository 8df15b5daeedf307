package gateway

import (
	"time"

	"external-server/internal/fleet"
)

// EventKind tells which fields of an Event are meaningful.
type EventKind uint8

// Kinds of events.
const (
	// EventStatus: Device reported Data, to be sent. A device unknown so far is
	// registered by its first status.
	EventStatus EventKind = iota + 1
	// EventAlive: Device was heard, but its status did not change (GW-5, GW-6).
	EventAlive
	// EventLeave: Device left the gateway.
	EventLeave
	// EventMessage: Message arrived from the server.
	EventMessage
	// EventUnparseable: a payload arrived that is not an ExternalServer message.
	EventUnparseable
	// EventNotification: the disconnect notification arrived (CONN-3).
	EventNotification
	// EventLinkUp answers EffectOpen: connected and subscribed.
	EventLinkUp
	// EventLinkFailed answers EffectOpen: the broker was not reached.
	EventLinkFailed
	// EventPublishFailed: a message of an EffectSend could not be published (GW-43).
	EventPublishFailed
	// EventDeadline: the time of Core.Deadline has come.
	EventDeadline
	// EventReconnect: the owner wants a new connection now (GW-10).
	EventReconnect
	// EventRestart: the gateway process dies and starts again with the same devices.
	EventRestart
	// EventStop: the gateway ends for good.
	EventStop
)

// Event is one input of a Core. The Core keeps Data, which must not be changed afterwards.
type Event struct {
	Kind    EventKind
	Device  fleet.Device        // status, alive, leave
	Data    []byte              // status
	Planned time.Time           // status: when its owner meant to send it; zero: now
	Message fleet.ServerMessage // message
}

// EffectKind tells which fields of an Effect are meaningful.
type EffectKind uint8

// Kinds of effects.
const (
	// EffectOpen: connect to the broker, subscribe both topics, then report
	// EventLinkUp or EventLinkFailed.
	EffectOpen EffectKind = iota + 1
	// EffectClose: drop the connection and what is on its way in it.
	EffectClose
	// EffectSend: publish Message.
	EffectSend
	// EffectConnected: the connect sequence of Session is complete.
	EffectConnected
	// EffectSequenceFailed: the connect sequence of Session failed for Reason.
	EffectSequenceFailed
	// EffectDisconnected: the running connection of Session ended for Reason.
	EffectDisconnected
	// EffectAnswered: the status Counter of Device, sent at Sent, was answered.
	EffectAnswered
	// EffectCommand: the command Counter with Data for Device came and was answered
	// with Response.
	EffectCommand
	// EffectDeliver: give Data to Device (GW-54).
	EffectDeliver
	// EffectCommandDropped: Data does not reach Device, although its command was
	// answered with OK: no data (GW-39), too many waiting (GW-41), wrong priority
	// (GW-54) or the device has gone.
	EffectCommandDropped
	// EffectViolation: the server broke the protocol, see Reason; its consequence
	// follows as another effect, perhaps in a later Step (GW-4).
	EffectViolation
)

// Effect is one output of a Core. The owner may keep the slices inside.
type Effect struct {
	Kind     EffectKind
	Message  fleet.ClientMessage // send
	Session  string              // connected, sequence failed, disconnected, violation
	Reason   Reason              // sequence failed, disconnected, violation
	Device   fleet.Device        // answered, command, deliver, command dropped
	Data     []byte              // command, deliver, command dropped
	Counter  uint32              // answered, command; violation: the counter that came
	Response fleet.ResponseType  // command
	Sent     time.Time           // answered
	Planned  time.Time           // answered: as given with EventStatus
}
