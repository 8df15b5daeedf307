// Package module defines what a server module is to the rest of the server: the
// Module and Instance interfaces, which shared libraries, child processes and
// built-in modules fill alike, and the worker that feeds one Instance in order
// and within bounds.
//
// It may import fleet and logging; how a module is run is the business of the
// packages below it (cabi, host, fleetapi).
package module

import (
	"context"
	"errors"
	"fmt"
	"time"

	"external-server/internal/fleet"
)

// Pair is one configuration pair handed to a module (MOD-8).
type Pair struct {
	Key   string
	Value string
}

// InstanceSpec is what one context of a module is made from.
type InstanceSpec struct {
	Car fleet.CarID
	// Config holds the pairs in the order of MOD-8. Values may be secret: they
	// appear in no log and no error.
	Config []Pair
	// PollTimeout is T_poll of MOD-16, the longest time one WaitCommands call
	// may take. Zero or less means the default of 1 s.
	PollTimeout time.Duration
	// Position is the last one of the context that an earlier process had, if the session
	// of the car goes on: commands since then are wanted. See Positioned.
	Position []byte
}

// Positioned is an Instance that can go on fetching commands where the one of an earlier
// process has stopped. Its commands carry positions too.
type Positioned interface {
	// Position is how far commands were fetched, nil: not at all yet. It may be called
	// from any goroutine.
	Position() []byte
}

// Module is one loaded module: a shared library, a child process or Go code.
// Its methods may be called concurrently.
type Module interface {
	// Number is the module number the module itself reports (VOC-7).
	Number() int32
	// Supports tells whether the module serves the device type. It may take as
	// long as any call of a module, so only those ask who may wait: a Worker, the
	// check of a module. See Recaller.
	Supports(deviceType uint32) bool
	// Open creates the context of one car (init in the ABI).
	Open(ctx context.Context, spec InstanceSpec) (Instance, error)
	// Close releases the module after all its instances were closed.
	Close() error
}

// Recaller is a Module that remembers what Supports has answered.
type Recaller interface {
	// Recall tells whether the module serves the device type, without asking it;
	// known is false if it has not been asked yet. It returns at once and takes no lock
	// that is held during a call of the module: the goroutine that calls it serves
	// many cars. How many types are remembered is bounded, because device types come
	// from the network.
	Recall(deviceType uint32) (supported, known bool)
}

// Recall asks what m remembers. Without a memory every type is unknown, and every
// device is asked about.
func Recall(m Module, deviceType uint32) (supported, known bool) {
	if r, ok := m.(Recaller); ok {
		return r.Recall(deviceType)
	}
	return false, false
}

// Instance is the context of one (car, module). All methods except WaitCommands
// are called one at a time by one worker; WaitCommands runs concurrently with
// them (MOD-5). Devices passed in always have priority 0 (MOD-11). Data is
// valid during the call only.
//
// A call may block, for instance until a module process that died has been
// started anew: statuses wait in the worker's queue, and when that is full the
// car's answers are withheld. An implementation that can return early does so
// when ctx ends, with an error that wraps ctx.Err() when the call was not made.
// What a call has answered is done: an implementation that restarts a process under an
// Instance announces the connected devices to it again and repeats the unconfirmed call
// itself.
type Instance interface {
	DeviceConnected(ctx context.Context, device fleet.Device) error
	ForwardStatus(ctx context.Context, device fleet.Device, status []byte) error
	ForwardError(ctx context.Context, device fleet.Device, message []byte) error
	DeviceDisconnected(ctx context.Context, kind fleet.DisconnectType, device fleet.Device) error
	CommandAck(ctx context.Context, command fleet.Command) error
	// WaitCommands returns the next commands in FIFO order, or none when the
	// poll interval passed without any. The caller owns the result. With an
	// error it may still return commands fetched before the failure (MOD-14).
	// *UnusableError tells of commands that it dropped.
	WaitCommands(ctx context.Context) ([]fleet.Command, error)
	// Close destroys the context. No method is called afterwards. When a call
	// is stuck inside the module beyond the context's deadline, the
	// implementation gives the context up instead of destroying it (CLI-24).
	Close(ctx context.Context) error
}

// Forwarder is an Instance that takes statuses without keeping a goroutine waiting for
// the module.
type Forwarder interface {
	Instance
	// Forward is ForwardStatus that returns at once, also when earlier statuses are under
	// way. It reports false when it does not take this one: then it is asked again when
	// those are done, or ForwardStatus is called when there are none. done gets the
	// results, in the order of the statuses, one at a time, on a goroutine of the
	// Instance, possibly before Forward returns. The bytes are valid until then.
	Forward(ctx context.Context, device fleet.Device, status []byte, done func(error)) bool
}

// Holder is an Instance that need not be asked for commands at every interval: a
// Worker asks it only while a device is connected, and then once for the next
// commands.
type Holder interface {
	Instance
	// Holds tells whether FetchCommands knows another patience than Interval. It
	// returns at once.
	Holds() bool
	// FetchCommands is WaitCommands with a given patience. It returns no commands and
	// an error, or none, when ctx ends.
	FetchCommands(ctx context.Context, patience Patience) ([]fleet.Command, error)
	// EndPolls makes the module answer the request that is held, which FetchCommands
	// returns as ever, and lets none be held any more: Held is Interval from then on. It
	// returns at once.
	EndPolls()
}

// HoldingModule is a Module whose instances are Holders.
type HoldingModule interface {
	// HoldsPolls is Holder.Holds of an instance that may not be open yet.
	HoldsPolls() bool
}

// Patience is how long a request for commands waits for some.
type Patience int

// Kinds of patience.
const (
	Interval Patience = iota // T_poll, as WaitCommands
	Brief                    // BriefWait: for what the module has already
	Held                     // until there are some
)

// BriefWait is the timeout of a wait for what a module has already.
const BriefWait = 2 * time.Millisecond

// CommandSource is an Instance that needs no goroutine to wait for commands, as
// a call of WaitCommands does: with thousands of cars their stacks are most of
// the memory. A Worker prefers it to WaitCommands.
type CommandSource interface {
	// StartCommands begins to hand commands to deliver, in FIFO order, one call
	// at a time. deliver does not block and owns what it gets. No more
	// commands are fetched before wanted, unless it is nil, is closed. StartCommands is called once; stop ends
	// it and returns when deliver is not running and will not be called again.
	StartCommands(deliver func([]fleet.Command) (wanted <-chan struct{})) (stop func())
}

// Result codes of the module ABI (docs/protocol.md).
const (
	CodeOK               = 0
	CodeNotOK            = -1
	CodeContextIncorrect = -11
	CodeTimeoutOccurred  = -12
)

// CallError is a call that a module answered with an error code.
type CallError struct {
	Op   string // ABI function, such as "forward_status"
	Code int    // what it returned
}

// Error names the function and the code with its ABI name.
func (e *CallError) Error() string {
	name := ""
	switch e.Code {
	case CodeNotOK:
		name = " (NOT_OK)"
	case CodeContextIncorrect:
		name = " (CONTEXT_INCORRECT)"
	case CodeTimeoutOccurred:
		name = " (TIMEOUT_OCCURRED)"
	}
	return fmt.Sprintf("%s returned %d%s", e.Op, e.Code, name)
}

// ErrNotDelivered reports that what the call carried is lost: no later call will
// bring it. The worker counts a status that fails with it as lost.
var ErrNotDelivered = errors.New("not delivered")

// ErrOutOfService reports a module whose process failed too often; it is part of
// ErrNotDelivered.
var ErrOutOfService = fmt.Errorf("the module is out of service: %w", ErrNotDelivered)

// ErrUnsupportedType reports a device whose type the module does not serve; the
// module was not called with it.
var ErrUnsupportedType = errors.New("the module does not serve the device type")

// ErrStuck reports that a call did not come back in time; the context was given
// up without destroying it (MOD-15, CLI-24).
var ErrStuck = errors.New("the module did not return in time")

// OpenError says which module, and which car's context, could not be opened. It
// is the outermost error, so that the cause can cross a process boundary without
// the words that the other side adds itself.
type OpenError struct {
	Where string
	Err   error
}

func (e *OpenError) Error() string { return e.Where + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OpenError) Unwrap() error { return e.Err }
