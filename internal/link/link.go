// Package link defines what carries messages between the server and the module
// gateways. link/mqtt is the one implementation; the interface exists so that a
// car does not know which transport serves it.
//
// It may import fleet only.
package link

import (
	"context"
	"errors"
	"fmt"

	"external-server/internal/fleet"
)

// Ack stands for one received message that the broker still has to be told is
// handled. It is a small value of the link's, valid on the connection that brought the
// message; later it means nothing and is ignored. The zero Ack needs nothing.
type Ack struct {
	// Connection numbers the connections of the link; zero: there is nothing to
	// acknowledge.
	Connection uint32
	// Packet identifies the message on its connection.
	Packet uint16
}

// Delivery is what the transport says about a message.
type Delivery struct {
	// Duplicate is the transport's own mark of a redelivery (the DUP flag of MQTT).
	Duplicate bool
	// Ack is to be given to Port.Publish or Port.Acknowledge, once, when the message
	// is handled. It is zero if the link acknowledges by itself.
	Ack Ack
}

// Up tells what continues when the broker is reached.
type Up uint8

const (
	// Fresh: nothing of an earlier connection continues.
	Fresh Up = iota
	// Continued: the broker kept the session. What it holds comes first, and is
	// followed by BacklogRead.
	Continued
)

// ErrSuspend is the cause of the end of Run's context when another process takes over
// what this one leaves: the broker keeps the session.
var ErrSuspend = errors.New("suspended until the next start")

// ErrUnheard is an ErrSuspend for a link whose broker does not answer: Run ends at once and without
// a word. What has not reached the broker is left to the next owner, which has it on record.
var ErrUnheard = fmt.Errorf("the broker does not answer: %w", ErrSuspend)

// ErrFenced says that another server serves what this link served: its epoch at the broker
// is higher. The link has fallen silent for good.
var ErrFenced = errors.New("another server serves the cars of this shard now")

// Receiver takes what the link has for one car. All its methods are called from
// the link's own goroutine and must return at once; a full mailbox is the
// receiver's problem, never the link's.
type Receiver interface {
	// Message delivers one payload; the receiver owns it, and has to acknowledge it
	// if d.Ack is not zero: until then the broker may hold back further messages, also
	// of other cars. False: the receiver has ended and has not heard the message;
	// payload and acknowledgement are still the link's.
	Message(payload []byte, d Delivery) (heard bool)
	// Sent follows one or several Messages, when what they caused was written, or
	// was left to the link's writer. What the receiver begins then delays no
	// answer.
	Sent()
	// LinkUp says that the car's topic is subscribed and messages can flow.
	LinkUp(up Up)
	// BacklogRead follows LinkUp(Continued): all that the broker held for the
	// connection has been delivered, or was given up after a bound.
	BacklogRead()
	// LinkDown says that the broker is gone; nothing queued before will be sent. kept:
	// the broker keeps the session for a while, and LinkUp tells whether it continues.
	LinkDown(reason error, kept bool)
}

// Withholder is a Receiver that may leave messages unacknowledged until BacklogRead.
type Withholder interface {
	// BacklogSlow says that nothing more comes although BacklogRead has not been told: the
	// broker may wait for acknowledgements.
	BacklogSlow()
}

// Port is one car's way out. Its methods never block and may be called from any
// goroutine; order is kept per port.
type Port interface {
	// Publish queues one message to the gateway, QoS 1, not retained. It reports
	// false when the bounded queue of the car is full or the link is down: the
	// message will not be sent. The port owns payload afterwards. A received message
	// that payload answers is acknowledged with it: ack leaves immediately before it,
	// in the same write (RES-3). Without success ack is not used.
	Publish(payload []byte, ack Ack) bool
	// Lost tells that the connection over which the receiver heard LinkUp is gone.
	// LinkDown follows, or was told already. What Publish refuses until then is lost, as
	// is what was under way.
	Lost() bool
	// Acknowledge queues an acknowledgement alone, in the order of the port.
	Acknowledge(ack Ack)
	// NotifyDisconnect queues the disconnect notification (CONN-3).
	NotifyDisconnect() bool
	// DiscardPending forgets queued messages that were not handed to the broker
	// yet, except disconnect notifications (DEF-20). Their acknowledgements still
	// go out.
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
	// Run keeps the connection until ctx ends. Then it sends what is queued, for a
	// limited time that is an option of the link, disconnects and returns. It returns an error only for settings
	// that can never work.
	Run(ctx context.Context) error
}
