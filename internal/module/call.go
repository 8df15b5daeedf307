package module

import (
	"time"

	"external-server/internal/fleet"
)

// CallKind names a function of the module; the texts are those of the ABI.
type CallKind string

// Kinds of calls a worker makes one at a time.
const (
	CallConnected    CallKind = "device_connected"
	CallStatus       CallKind = "forward_status"
	CallErrorText    CallKind = "forward_error_message"
	CallDisconnected CallKind = "device_disconnected"
	CallAck          CallKind = "command_ack"
)

// Call is one call of an Instance that has come back.
type Call struct {
	Kind   CallKind
	Device fleet.Device
	At     time.Time     // of the return
	Wait   time.Duration // in the queue
	Took   time.Duration
	Err    error
}

// timed makes a call and tells Called about it. Without Called it reads no
// clock.
func (w *Worker) timed(kind CallKind, j *job, f func() error) error {
	if w.opts.Called == nil {
		return guard(string(kind), f)
	}
	start := time.Now()
	err := guard(string(kind), f)
	w.made.Kind, w.made.Device, w.made.At, w.made.Err = kind, j.device, time.Now(), err
	w.made.Wait, w.made.Took = start.Sub(j.at), w.made.At.Sub(start)
	w.opts.Called(&w.made)
	w.made = Call{}
	return err
}
