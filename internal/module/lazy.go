package module

import (
	"context"
	"errors"
	"sync/atomic"

	"external-server/internal/fleet"
)

// Lazy returns an Instance that is opened with the first call that needs it. A
// car found by its first message is served at once that way, although creating
// a context may take long. A failed attempt is the error of the call; the next
// call tries again.
func Lazy(m Module, spec InstanceSpec) Instance {
	return &lazy{module: m, spec: spec, gate: NewGate()}
}

type lazy struct {
	module   Module
	spec     InstanceSpec
	gate     *Gate // its only lane is Opening
	instance atomic.Pointer[Instance]
	hurried  atomic.Bool // EndPolls was called
}

// with makes a call, opening the instance when there is none yet.
func (l *lazy) with(ctx context.Context, call func(Instance) error) error {
	if l.gate.IsShut() {
		return ErrClosed
	}
	i := l.instance.Load()
	if i == nil {
		if err := l.open(ctx); err != nil {
			return err
		}
		i = l.instance.Load()
	}
	return call(*i)
}

// open opens the instance, unless that was done while it waited for its turn.
func (l *lazy) open(ctx context.Context) (err error) {
	if err := l.gate.Enter(ctx, Opening, "init"); err != nil {
		return err
	}
	defer func() {
		abandoned := l.gate.Leave(Opening)
		switch i := l.instance.Load(); {
		case i != nil && abandoned: // no one else will
			err = errors.Join(ErrClosed, (*i).Close(ctx))
		case err == nil && l.gate.IsShut(): // Close has the instance
			err = ErrClosed
		}
	}()
	if l.instance.Load() != nil {
		return nil
	}
	i, err := l.module.Open(ctx, l.spec)
	if err == nil {
		l.instance.Store(&i)
	}
	return err
}

// Opened returns the instance behind a lazy one, or nil as long as there is none;
// any other instance is returned as it is.
func Opened(i Instance) Instance {
	l, ok := i.(*lazy)
	if !ok {
		return i
	}
	if opened := l.instance.Load(); opened != nil && !l.gate.IsShut() {
		return *opened
	}
	return nil
}

func (l *lazy) DeviceConnected(ctx context.Context, device fleet.Device) error {
	return l.with(ctx, func(i Instance) error { return i.DeviceConnected(ctx, device) })
}

func (l *lazy) ForwardStatus(ctx context.Context, device fleet.Device, status []byte) error {
	return l.with(ctx, func(i Instance) error { return i.ForwardStatus(ctx, device, status) })
}

// Forward fills Forwarder.
func (l *lazy) Forward(ctx context.Context, device fleet.Device, status []byte, done func(error)) bool {
	f, ok := Opened(l).(Forwarder)
	return ok && f.Forward(ctx, device, status, done)
}

func (l *lazy) ForwardError(ctx context.Context, device fleet.Device, message []byte) error {
	return l.with(ctx, func(i Instance) error { return i.ForwardError(ctx, device, message) })
}

func (l *lazy) DeviceDisconnected(ctx context.Context, kind fleet.DisconnectType, device fleet.Device) error {
	return l.with(ctx, func(i Instance) error { return i.DeviceDisconnected(ctx, kind, device) })
}

func (l *lazy) CommandAck(ctx context.Context, command fleet.Command) error {
	return l.with(ctx, func(i Instance) error { return i.CommandAck(ctx, command) })
}

func (l *lazy) WaitCommands(ctx context.Context) (commands []fleet.Command, err error) {
	err = l.with(ctx, func(i Instance) (err error) {
		commands, err = i.WaitCommands(ctx)
		return err
	})
	return commands, err
}

// Holds fills Holder with what the module says.
func (l *lazy) Holds() bool {
	m, ok := l.module.(HoldingModule)
	return ok && m.HoldsPolls()
}

// FetchCommands fills Holder. Without Holds every patience is Interval.
func (l *lazy) FetchCommands(ctx context.Context, patience Patience) (commands []fleet.Command, err error) {
	err = l.with(ctx, func(i Instance) (err error) {
		if h, ok := i.(Holder); ok {
			if l.hurried.Load() { // maybe before there was an instance
				h.EndPolls()
			}
			commands, err = h.FetchCommands(ctx, patience)
		} else {
			commands, err = i.WaitCommands(ctx)
		}
		return err
	})
	return commands, err
}

// EndPolls fills Holder.
func (l *lazy) EndPolls() {
	l.hurried.Store(true)
	if h, ok := Opened(l).(Holder); ok {
		h.EndPolls()
	}
}

// Close closes the instance if one was opened. When ctx ends while it is being
// opened, Close returns ErrStuck; the call that opens it closes it then.
func (l *lazy) Close(ctx context.Context) error {
	if !l.gate.Shut() {
		return ErrClosed
	}
	if l.gate.Drain(ctx.Done(), Opening) != "" {
		return ErrStuck
	}
	if i := l.instance.Load(); i != nil {
		return (*i).Close(ctx)
	}
	return nil
}
