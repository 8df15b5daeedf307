// Package link defines what carries messages between the server and the module
// gateways. link/mqtt is the one implementation; the interface exists so that a
// car does not know which transport serves it.
//
// It may import fleet only.
package link

import (
	"context"

	"external-server/internal/fleet"
)

// Receiver takes what the link has for one car. All its methods are called from
// the link's own goroutine and must return at once; a full mailbox is the
// receiver's problem, never the link's.
type Receiver interface {
	// Message delivers one payload; the receiver owns it. duplicate is the
	// transport's own mark of a redelivery (the DUP flag of MQTT). False: the receiver
	// has ended, nobody has heard the message, and payload is still the link's.
	Message(payload []byte, duplicate bool) (heard bool)
	// Sent follows one or several Messages, when what they caused was written, or
	// left to the link's writer, and whatever else they cause is in nobody's way.
	Sent()
	// LinkUp says that the car's topic is subscribed and messages can flow.
	LinkUp()
	// LinkDown says that the broker is gone; nothing queued before will be sent.
	LinkDown(reason error)
}

// Port is one car's way out. Its methods never block and may be called from any
// goroutine; order is kept per port.
type Port interface {
	// Publish queues one message to the gateway, QoS 1, not retained. It reports
	// false when the bounded queue of the car is full or the link is down: the
	// message will not be sent. The port owns payload afterwards.
	Publish(payload []byte) bool
	// NotifyDisconnect queues the disconnect notification (CONN-3).
	NotifyDisconnect() bool
	// DiscardPending forgets queued messages that were not handed to the broker
	// yet, except disconnect notifications (DEF-20).
	DiscardPending()
	// Close unsubscribes the car and forgets what is queued, except disconnect
	// notifications.
	Close()
}

// Link is a transport that serves many cars over few connections.
type Link interface {
	// Attach subscribes a car now or as soon as the broker is reached and
	// re-subscribes after every reconnect. It may be called at any time, also
	// while Run runs.
	Attach(car fleet.CarID, receiver Receiver) (Port, error)
	// Watch subscribes to the gateways of all cars of the company. A message of
	// a car that is not attached, or whose receiver has ended, is shown to unknown, on the link's goroutine, which
	// may call Attach for that car before it returns: the message and what
	// follows then go to that receiver. unknown must not keep the message. Cars of the company attached meanwhile
	// get each message once. It may be called at any time; stop ends the watch.
	Watch(company string, unknown func(car fleet.CarID, message []byte)) (stop func(), err error)
	// Run keeps the connection until ctx ends, then flushes what is queued within
	// a bound, disconnects and returns. It returns an error only for settings
	// that can never work.
	Run(ctx context.Context) error
}
