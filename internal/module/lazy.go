package module

import (
	"context"
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

	mu       sync.Mutex
	instance Instance
	closed   bool
}

// get returns the instance, opening it when there is none yet.
func (l *lazy) get(ctx context.Context) (Instance, error) {
	if i, err := l.opened(); i != nil || err != nil {
		return i, err
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
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
	defer l.mu.Unlock()
	l.instance = i // Close waits for the turn, so it sees this
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

// Close closes the instance if one was opened.
func (l *lazy) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	select {
	case l.turn <- struct{}{}: // kept: nothing opens any more
	case <-ctx.Done():
		return ErrStuck
	}
	if l.instance == nil {
		return nil
	}
	return l.instance.Close(ctx)
}
