package module

import (
	"context"
	"errors"
	"sync"

	"external-server/internal/fleet"
)

// Lazy returns an Instance that is opened with the first call that needs it. A
// car found by its first message is served at once that way, although creating
// a context may take long. A failed attempt is the error of the call; the next
// call tries again.
func Lazy(m Module, spec InstanceSpec) Instance {
	return &lazy{module: m, spec: spec, turn: make(chan struct{}, 1)}
}

type lazy struct {
	module Module
	spec   InstanceSpec
	turn   chan struct{} // held while opening

	mu        sync.Mutex
	instance  Instance
	closed    bool
	abandoned bool // Close has not waited for the opening under way
}

// get returns the instance, opening it when there is none yet.
func (l *lazy) get(ctx context.Context) (Instance, error) {
	if i, err := l.opened(); i != nil || err != nil {
		return i, err
	}
	if !l.take(ctx) {
		return nil, ctx.Err()
	}
	defer func() { <-l.turn }()
	if i, err := l.opened(); i != nil || err != nil {
		return i, err
	}
	i, err := l.module.Open(ctx, l.spec)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	closed, abandoned := l.closed, l.abandoned
	if !abandoned {
		l.instance = i // also for a Close that waits for the turn
	}
	l.mu.Unlock()
	switch {
	case abandoned: // nobody else will
		return nil, errors.Join(errClosed, i.Close(ctx))
	case closed:
		return nil, errClosed
	}
	return i, nil
}

func (l *lazy) opened() (Instance, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	return l.instance, nil
}

// Opened returns the instance behind a lazy one, or nil as long as there is none;
// any other instance is returned as it is.
func Opened(i Instance) Instance {
	if l, ok := i.(*lazy); ok {
		i, _ = l.opened()
	}
	return i
}

func (l *lazy) DeviceConnected(ctx context.Context, device fleet.Device) error {
	i, err := l.get(ctx)
	if err != nil {
		return err
	}
	return i.DeviceConnected(ctx, device)
}

func (l *lazy) ForwardStatus(ctx context.Context, device fleet.Device, status []byte) error {
	i, err := l.get(ctx)
	if err != nil {
		return err
	}
	return i.ForwardStatus(ctx, device, status)
}

func (l *lazy) ForwardError(ctx context.Context, device fleet.Device, message []byte) error {
	i, err := l.get(ctx)
	if err != nil {
		return err
	}
	return i.ForwardError(ctx, device, message)
}

func (l *lazy) DeviceDisconnected(ctx context.Context, kind fleet.DisconnectType, device fleet.Device) error {
	i, err := l.get(ctx)
	if err != nil {
		return err
	}
	return i.DeviceDisconnected(ctx, kind, device)
}

func (l *lazy) CommandAck(ctx context.Context, command fleet.Command) error {
	i, err := l.get(ctx)
	if err != nil {
		return err
	}
	return i.CommandAck(ctx, command)
}

func (l *lazy) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	i, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return i.WaitCommands(ctx)
}

// Close closes the instance if one was opened. When ctx ends while it is being
// opened, Close returns ErrStuck; the call that opens it closes it then.
func (l *lazy) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	turn := l.take(ctx) // kept: nothing opens any more
	l.mu.Lock()
	i := l.instance
	l.abandoned = !turn && i == nil
	abandoned := l.abandoned
	l.mu.Unlock()
	switch {
	case abandoned:
		return ErrStuck
	case i == nil:
		return nil
	}
	return i.Close(ctx)
}

// take waits for the turn; it prefers a free one to a context that has ended.
func (l *lazy) take(ctx context.Context) bool {
	select {
	case l.turn <- struct{}{}:
		return true
	default:
	}
	select {
	case l.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}
