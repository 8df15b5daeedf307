package bench

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
)

// NullNumber is the number of the module that does nothing.
const NullNumber = 1000

// Null is a module that takes everything and does nothing, so that a measurement
// is the server's alone. Its cars get a command every CommandEvery, with the time
// in it at which the module handed it over; 0: never.
type Null struct {
	CommandEvery time.Duration
}

// Number implements module.Module.
func (Null) Number() int32 { return NullNumber }

// Supports implements module.Module: every type.
func (Null) Supports(uint32) bool { return true }

// Recall implements module.Recaller.
func (Null) Recall(uint32) (supported, known bool) { return true, true }

// Close implements module.Module.
func (Null) Close() error { return nil }

// Open implements module.Module.
func (n Null) Open(context.Context, module.InstanceSpec) (module.Instance, error) {
	if n.CommandEvery > 0 {
		return &commander{every: n.CommandEvery}, nil
	}
	return &nothing{}, nil
}

// nothing is an Instance without commands.
type nothing struct{}

func (*nothing) DeviceConnected(context.Context, fleet.Device) error       { return nil }
func (*nothing) ForwardStatus(context.Context, fleet.Device, []byte) error { return nil }
func (*nothing) ForwardError(context.Context, fleet.Device, []byte) error  { return nil }
func (*nothing) DeviceDisconnected(context.Context, fleet.DisconnectType, fleet.Device) error {
	return nil
}
func (*nothing) CommandAck(context.Context, fleet.Command) error { return nil }
func (*nothing) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (*nothing) Close(context.Context) error { return nil }

// StartCommands implements module.CommandSource: there are none.
func (*nothing) StartCommands(func([]fleet.Command) <-chan struct{}) (stop func()) { return func() {} }

// commander hands over a command in every interval, by WaitCommands as a library
// does.
type commander struct {
	every  time.Duration
	device atomic.Pointer[fleet.Device] // the first one
}

func (c *commander) DeviceConnected(_ context.Context, d fleet.Device) error {
	c.device.CompareAndSwap(nil, &d)
	return nil
}
func (*commander) ForwardStatus(context.Context, fleet.Device, []byte) error { return nil }
func (*commander) ForwardError(context.Context, fleet.Device, []byte) error  { return nil }
func (*commander) DeviceDisconnected(context.Context, fleet.DisconnectType, fleet.Device) error {
	return nil
}
func (*commander) CommandAck(context.Context, fleet.Command) error { return nil }
func (*commander) Close(context.Context) error                     { return nil }

func (c *commander) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	timer := time.NewTimer(c.every)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
	}
	d := c.device.Load()
	if d == nil {
		return nil, nil
	}
	return []fleet.Command{{Device: *d, Data: strconv.AppendInt(nil, time.Now().UnixNano(), 10)}}, nil
}
