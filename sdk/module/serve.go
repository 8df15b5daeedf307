package module

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fleet-protocol/external-server/sdk/boundary"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

type redeliveredKey struct{}

// Redelivered tells whether the module may have seen this call before: a process
// of this module ended without answering it.
func Redelivered(ctx context.Context) bool { return ctx.Value(redeliveredKey{}) != nil }

// Started tells whether the External Server started this process as a module. Serve
// has a connection to serve then.
func Started() bool { return os.Getenv(boundary.EnvFD) != "" && os.Getenv(boundary.EnvProtocol) != "" }

// Serve serves the module until the server ends the connection, and returns nil
// then; main should return at once. The error says why nothing can be served.
func Serve(m Module) error {
	socket, err := boundary.Socket()
	if err != nil {
		return err
	}
	// When to end is told by the connection. A service manager signals all
	// processes of a service at once, and the server still needs its modules to
	// stop in order.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	conn, err := boundary.FromFile(socket)
	if err != nil {
		return err
	}
	return serve(conn, m)
}

func serve(conn *boundary.Conn, m Module) error {
	return boundary.Serve(context.Background(), conn, filepath.Base(os.Args[0]), func(number int32) (boundary.Module, error) {
		if number != 0 && number != m.Number() {
			return nil, fmt.Errorf("this is module %d but it is configured as module %d", m.Number(), number)
		}
		return served{m}, nil
	})
}

// served makes a boundary.Module of a Module.
type served struct{ m Module }

func (s served) Number() int32                   { return s.m.Number() }
func (s served) Supports(deviceType uint32) bool { return s.m.Supports(deviceType) }

func (s served) Open(ctx context.Context, open *pb.Open) (boundary.Context, error) {
	car := Car{Company: open.GetCompany(), Name: open.GetCar()}
	for _, p := range open.GetConfig() {
		car.Config = append(car.Config, Pair{Key: p.GetKey(), Value: p.GetValue()})
	}
	c, err := s.m.Open(ctx, car)
	if err != nil {
		return nil, coded(err)
	}
	return servedContext{c: c, pollTimeout: time.Duration(open.GetPollTimeoutMs()) * time.Millisecond}, nil
}

type servedContext struct {
	c           Context
	pollTimeout time.Duration
}

func (s servedContext) Call(ctx context.Context, call *pb.Call) error {
	if call.GetRedelivered() {
		ctx = context.WithValue(ctx, redeliveredKey{}, true)
	}
	return coded(s.call(ctx, call))
}

func (s servedContext) call(ctx context.Context, call *pb.Call) error {
	d := call.GetDevice()
	device := Device{Module: d.GetModule(), Type: d.GetType(), Role: d.GetRole(), Name: d.GetName(), Priority: d.GetPriority()}
	switch call.GetFunction() {
	case pb.Call_FORWARD_STATUS:
		return s.c.Status(ctx, device, call.GetData())
	case pb.Call_FORWARD_ERROR:
		return s.c.StatusError(ctx, device, call.GetData())
	case pb.Call_COMMAND_ACK:
		return s.c.CommandDelivered(ctx, Command{Device: device, Data: call.GetData()})
	case pb.Call_DEVICE_CONNECTED:
		return s.c.DeviceConnected(ctx, device)
	case pb.Call_DEVICE_DISCONNECTED:
		return s.c.DeviceDisconnected(ctx, device, Reason(call.GetDisconnectType()))
	}
	return fmt.Errorf("unknown function %v; the server is newer than this module", call.GetFunction())
}

func (s servedContext) Poll(ctx context.Context, poll *pb.Poll, commands *boundary.Commands) error {
	timeout := s.pollTimeout
	if short := time.Duration(poll.GetTimeoutMs()) * time.Millisecond; short > 0 { // the server asks for what is there
		timeout = min(timeout, short)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	got, err := s.c.Commands(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil // the time is over, no more
	}
	for _, c := range got {
		d := c.Device
		commands.Add(&pb.Command{
			Device: &pb.Device{Module: d.Module, Type: d.Type, Role: d.Role, Name: d.Name, Priority: d.Priority},
			Data:   c.Data,
		})
	}
	return coded(err)
}

func (s servedContext) Close(ctx context.Context) error { return coded(s.c.Close(ctx)) }

// coded turns a Code into what travels.
func coded(err error) error {
	code, ok := errors.AsType[Code](err)
	switch {
	case !ok || code == 0:
		return err
	case err == error(code):
		return &boundary.Error{Code: int32(code)}
	}
	return &boundary.Error{Code: int32(code), Text: err.Error()}
}
