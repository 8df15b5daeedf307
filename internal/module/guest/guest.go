// Package guest serves a module.Module over the process boundary: it is the inside of
// the host of shared libraries (external-server module-host). Modules written in Go
// serve themselves with the SDK.
// It may import module, fleet and the SDK, and knows nothing of the server.
package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fleet-protocol/external-server/sdk/boundary"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"

	"external-server/internal/fleet"
	"external-server/internal/module"
)

// Loader makes the module once the server has told under which number it is
// configured (0: any). It may fail: the server gets the text.
type Loader func(number int32) (module.Module, error)

// Serve is boundary.Serve for what load returns.
func Serve(ctx context.Context, conn *boundary.Conn, name string, load Loader) error {
	return boundary.Serve(ctx, conn, name, func(number int32) (boundary.Module, error) {
		m, err := load(number)
		if err != nil {
			return nil, coded(err)
		}
		if counting, ok := m.(heapCounter); ok {
			return counted{served{m}, counting}, nil
		}
		return served{m}, nil
	})
}

// heapCounter is a Module that knows how much memory its library holds, in bytes.
type heapCounter interface{ HeapBytes() uint64 }

// served makes a boundary.Module of a module.Module.
type served struct{ m module.Module }

type counted struct {
	served
	heapCounter
}

func (s served) Number() int32                   { return s.m.Number() }
func (s served) Supports(deviceType uint32) bool { return s.m.Supports(deviceType) }

func (s served) Open(ctx context.Context, open *pb.Open) (boundary.Context, error) {
	spec := module.InstanceSpec{
		Car:         fleet.CarID{Company: open.GetCompany(), Car: open.GetCar()},
		PollTimeout: time.Duration(open.GetPollTimeoutMs()) * time.Millisecond,
	}
	for _, pair := range open.GetConfig() {
		spec.Config = append(spec.Config, module.Pair{Key: pair.GetKey(), Value: pair.GetValue()})
	}
	instance, err := s.m.Open(ctx, spec)
	if err != nil {
		return nil, coded(err)
	}
	if streaming, ok := instance.(streamer); ok {
		return streamingContext{servedContext{instance}, streaming}, nil
	}
	return servedContext{instance}, nil
}

type servedContext struct{ i module.Instance }

func (s servedContext) Call(ctx context.Context, call *pb.Call) error {
	return coded(s.call(ctx, call))
}

func (s servedContext) call(ctx context.Context, call *pb.Call) error {
	device := device(call.GetDevice())
	switch call.GetFunction() {
	case pb.Call_FORWARD_STATUS:
		return s.i.ForwardStatus(ctx, device, call.GetData())
	case pb.Call_FORWARD_ERROR:
		return s.i.ForwardError(ctx, device, call.GetData())
	case pb.Call_COMMAND_ACK:
		return s.i.CommandAck(ctx, fleet.Command{Device: device, Data: call.GetData()})
	case pb.Call_DEVICE_CONNECTED:
		return s.i.DeviceConnected(ctx, device)
	case pb.Call_DEVICE_DISCONNECTED:
		return s.i.DeviceDisconnected(ctx, fleet.DisconnectType(call.GetDisconnectType()), device)
	}
	return fmt.Errorf("unknown function %v; the server is newer than this module", call.GetFunction())
}

// streamer is what an Instance offers when it can tell of every command as it
// comes, and hold a poll. What was told before a crash is not lost.
type streamer interface {
	StreamCommands(ctx context.Context, patience module.Patience, fetching func(), each func(fleet.Command)) error
	Waiting() time.Duration
}

// streamingContext is a boundary.Holder.
type streamingContext struct {
	servedContext
	streamer
}

func (s streamingContext) Poll(ctx context.Context, poll *pb.Poll, commands *boundary.Commands) error {
	return polled(nil, s.StreamCommands(ctx, patience(poll), commands.Fetching,
		func(c fleet.Command) { commands.Now(command(c)) }), commands)
}

func patience(poll *pb.Poll) module.Patience {
	switch {
	case poll.GetHold():
		return module.Held
	case poll.GetTimeoutMs() <= uint32(module.BriefWait.Milliseconds()):
		return module.Brief
	}
	return module.Interval
}

func (s servedContext) Poll(ctx context.Context, poll *pb.Poll, commands *boundary.Commands) error {
	if patience(poll) == module.Brief {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, module.BriefWait)
		defer cancel()
	}
	got, err := s.i.WaitCommands(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil // the time is over, no more
	}
	return polled(got, err, commands)
}

// polled hands over what a poll has brought.
func polled(got []fleet.Command, err error, commands *boundary.Commands) error {
	if unusable, ok := errors.AsType[*module.UnusableError](err); ok {
		commands.Dropped(unusable.Commands, unusable.Reason)
		err = unusable.Err
	}
	for _, c := range got {
		commands.Add(command(c))
	}
	return coded(err)
}

func (s servedContext) Close(ctx context.Context) error { return coded(s.i.Close(ctx)) }

// coded turns an error into what travels. It leaves out what the server knows and
// says itself: which module and car it is, and which function was called.
func coded(err error) error {
	if at, ok := errors.AsType[*module.OpenError](err); ok {
		err = at.Err
	}
	code, ok := errors.AsType[*module.CallError](err)
	switch {
	case !ok:
		return err
	case err == error(code):
		return &boundary.Error{Code: int32(code.Code)}
	}
	return &boundary.Error{Code: int32(code.Code), Text: err.Error()}
}

func device(d *pb.Device) fleet.Device {
	return fleet.Device{Module: d.GetModule(), Type: d.GetType(), Role: d.GetRole(), Name: d.GetName(), Priority: d.GetPriority()}
}

func command(c fleet.Command) *pb.Command {
	d := c.Device
	return &pb.Command{
		Device: &pb.Device{Module: d.Module, Type: d.Type, Role: d.Role, Name: d.Name, Priority: d.Priority},
		Data:   c.Data,
	}
}
