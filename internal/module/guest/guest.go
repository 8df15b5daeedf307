// Package guest is the module's side of the process boundary: it speaks the
// module protocol on one connection and makes the calls into a module.Module
// that lives in this process. It serves the host of shared libraries
// (external-server module-host) and, through sdk/module, modules written in Go.
// It may import module, fleet and wire, and knows nothing of the server.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/module/wire"
	pb "external-server/sdk/module/moduleproto"
)

// prefetched is how many device types are asked in advance, from 0 on, so that
// the server knows the answers without a round trip.
const prefetched = 256

// Loader makes the module once the server has told under which number it is
// configured (0: any). It may fail: the server gets the text.
type Loader func(number int32) (module.Module, error)

// streamer is what an Instance offers when it can tell of every command as it
// comes. What was told before a crash is not lost. Waiting is how long a wait inside
// the module has taken so far, of a poll that is held.
type streamer interface {
	StreamCommands(ctx context.Context, patience module.Patience, fetching func(), each func(fleet.Command)) error
	Waiting() time.Duration
}

// guest is the state of one connection.
type guest struct {
	conn *wire.Conn
	name string
	load Loader

	mod      module.Module
	mu       sync.Mutex
	contexts map[uint32]module.Instance
	calls    sync.WaitGroup
	polls    heldPolls
}

// Serve speaks the protocol until the server ends the connection, which is no
// error. name is for the server's log. Calls that are still inside the module
// then are left alone: the caller is expected to end the process.
func Serve(ctx context.Context, conn *wire.Conn, name string, load Loader) error {
	g := &guest{conn: conn, name: name, load: load, contexts: map[uint32]module.Instance{}, polls: heldPolls{held: map[uint32]*heldPoll{}}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := conn.Send(&pb.ModuleFrame{Kind: &pb.ModuleFrame_Hello{Hello: &pb.Hello{Protocol: wire.Protocol, Name: name}}}); err != nil {
		return fmt.Errorf("cannot greet the server: %w", err)
	}
	for {
		frame := &pb.ServerFrame{}
		err := conn.Receive(frame)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
			errors.Is(err, syscall.ECONNRESET): // it ended with answers unread
			return nil
		case err != nil:
			return fmt.Errorf("connection to the server: %w", err)
		}
		if !g.handle(ctx, frame) {
			return fmt.Errorf("the server began with %T instead of Start", frame.GetKind())
		}
	}
}

// handle starts what the frame asks for. The server has at most one call and one
// poll of a context under way, so there is no order to keep here.
func (g *guest) handle(ctx context.Context, frame *pb.ServerFrame) bool {
	switch kind := frame.GetKind().(type) {
	case *pb.ServerFrame_Start:
		g.answer(frame, g.start(kind.Start))
		return true
	case *pb.ServerFrame_Ping:
		result := &pb.Result{Overdue: g.polls.overdue(time.Duration(kind.Ping.GetOverdueMs()) * time.Millisecond)}
		if counting, ok := g.mod.(interface{ HeapBytes() uint64 }); ok {
			result.HeapBytes = counting.HeapBytes()
		}
		g.answer(frame, result)
		return true
	}
	if g.mod == nil {
		return false
	}
	switch kind := frame.GetKind().(type) {
	case *pb.ServerFrame_EndPoll:
		g.polls.end(kind.EndPoll.GetContext())
		g.answer(frame, &pb.Result{})
		return true
	case *pb.ServerFrame_Poll: // begun before the next frame, which may end it
		poll := g.polls.begin(ctx, frame.GetId(), kind.Poll)
		g.calls.Go(func() {
			result := g.perform(poll.ctx, frame)
			g.polls.done(kind.Poll, poll)
			g.answer(frame, result)
		})
		return true
	}
	g.calls.Go(func() { g.answer(frame, g.perform(ctx, frame)) })
	return true
}

func (g *guest) answer(frame *pb.ServerFrame, result *pb.Result) {
	err := g.conn.Send(&pb.ModuleFrame{Id: frame.GetId(), Kind: &pb.ModuleFrame_Result{Result: result}})
	if errors.Is(err, wire.ErrFrame) { // too large: the server must not wait for ever
		err = g.conn.Send(&pb.ModuleFrame{Id: frame.GetId(), Kind: &pb.ModuleFrame_Result{
			Result: &pb.Result{Code: module.CodeNotOK, Error: "answer not sent: " + err.Error()}}})
	}
	_ = err // a broken connection ends Serve
}

func (g *guest) start(start *pb.Start) *pb.Result {
	if g.mod != nil {
		return failed(errors.New("started twice"))
	}
	mod, err := g.load(start.GetModuleNumber())
	if err != nil {
		return failed(unplaced(err))
	}
	result := &pb.Result{ModuleNumber: mod.Number(), HoldsPolls: true}
	for deviceType := range uint32(prefetched) {
		if mod.Supports(deviceType) {
			result.SupportedTypes = append(result.SupportedTypes, deviceType)
		}
	}
	g.mod = mod
	return result
}

// perform makes one call. A panic of a module written in Go is an error of that
// call, as it is for modules inside the server.
func (g *guest) perform(ctx context.Context, frame *pb.ServerFrame) (result *pb.Result) {
	defer func() {
		if p := recover(); p != nil {
			result = failed(fmt.Errorf("the module panicked: %v", p))
		}
	}()
	switch kind := frame.GetKind().(type) {
	case *pb.ServerFrame_Call:
		return failed(g.call(ctx, kind.Call))
	case *pb.ServerFrame_Poll:
		return g.poll(ctx, frame.GetId(), kind.Poll)
	case *pb.ServerFrame_Open:
		return failed(g.open(ctx, kind.Open))
	case *pb.ServerFrame_Close:
		return failed(g.close(ctx, kind.Close))
	case *pb.ServerFrame_Supports:
		if g.mod.Supports(kind.Supports.GetType()) {
			return &pb.Result{}
		}
		return &pb.Result{Code: module.CodeNotOK}
	default:
		return failed(errors.New("unknown frame; the server is newer than this module"))
	}
}

// unplaced leaves out of the error what the server knows and says itself: which
// module it is and which car.
func unplaced(err error) error {
	var at *module.OpenError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// failed turns an error into a Result; nil becomes OK.
func failed(err error) *pb.Result {
	var code *module.CallError
	switch {
	case err == nil:
		return &pb.Result{}
	case errors.As(err, &code) && err == error(code):
		return &pb.Result{Code: int32(code.Code)}
	case code != nil:
		return &pb.Result{Code: int32(code.Code), Error: err.Error()}
	}
	return &pb.Result{Code: module.CodeNotOK, Error: err.Error()}
}

func (g *guest) open(ctx context.Context, open *pb.Open) error {
	g.mu.Lock()
	_, exists := g.contexts[open.GetContext()]
	g.mu.Unlock()
	if exists {
		return fmt.Errorf("context %d is open already", open.GetContext())
	}
	spec := module.InstanceSpec{
		Car:         fleet.CarID{Company: open.GetCompany(), Car: open.GetCar()},
		PollTimeout: time.Duration(open.GetPollTimeoutMs()) * time.Millisecond,
	}
	for _, pair := range open.GetConfig() {
		spec.Config = append(spec.Config, module.Pair{Key: pair.GetKey(), Value: pair.GetValue()})
	}
	instance, err := g.mod.Open(ctx, spec)
	if err != nil {
		return unplaced(err)
	}
	g.mu.Lock()
	g.contexts[open.GetContext()] = instance
	g.mu.Unlock()
	return nil
}

func (g *guest) instance(id uint32) (module.Instance, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if instance, ok := g.contexts[id]; ok {
		return instance, nil
	}
	return nil, fmt.Errorf("there is no context %d: %w", id, &module.CallError{Op: "call", Code: module.CodeContextIncorrect})
}

func (g *guest) call(ctx context.Context, call *pb.Call) error {
	instance, err := g.instance(call.GetContext())
	if err != nil {
		return err
	}
	if call.GetRedelivered() {
		ctx = context.WithValue(ctx, redeliveredKey{}, true)
	}
	device := device(call.GetDevice())
	switch call.GetFunction() {
	case pb.Call_FORWARD_STATUS:
		return instance.ForwardStatus(ctx, device, call.GetData())
	case pb.Call_FORWARD_ERROR:
		return instance.ForwardError(ctx, device, call.GetData())
	case pb.Call_COMMAND_ACK:
		return instance.CommandAck(ctx, fleet.Command{Device: device, Data: call.GetData()})
	case pb.Call_DEVICE_CONNECTED:
		// The server may not know yet which types are served: it never waits for
		// the answer on a car's path.
		if !g.mod.Supports(device.Type) {
			return &module.CallError{Op: "is_device_type_supported", Code: module.CodeNotOK}
		}
		return instance.DeviceConnected(ctx, device)
	case pb.Call_DEVICE_DISCONNECTED:
		return instance.DeviceDisconnected(ctx, fleet.DisconnectType(call.GetDisconnectType()), device)
	}
	return fmt.Errorf("unknown function %v; the server is newer than this module", call.GetFunction())
}

// polled is failed for a poll, whose commands may have been dropped here: the
// server counts and reports them.
func polled(err error) *pb.Result {
	unusable, ok := errors.AsType[*module.UnusableError](err)
	if !ok {
		return failed(err)
	}
	result := failed(unusable.Err)
	result.UnusableCommands, result.UnusableReason = uint32(unusable.Commands), unusable.Reason
	return result
}

func (g *guest) close(ctx context.Context, cl *pb.Close) error {
	instance, err := g.instance(cl.GetContext())
	if err != nil {
		return err
	}
	g.mu.Lock()
	delete(g.contexts, cl.GetContext())
	g.mu.Unlock()
	return instance.Close(ctx)
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
