package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

var _ module.Holder = (*instance)(nil)

// opPoll is the operation whose limit is only worth a warning.
const opPoll = "wait_for_command"

// defaultPollTimeout is T_poll when none is given (MOD-16).
const defaultPollTimeout = time.Second

// instance is the context of one car, whatever process it lives in.
//
// A request keeps its lane of the gate until its answer, also when the caller has
// given up meanwhile: the module must never see two calls, or two polls, of one
// context at a time (MOD-5).
type instance struct {
	m    *Module
	id   uint32
	spec module.InstanceSpec
	log  *slog.Logger

	gate *module.Gate

	mu       sync.Mutex
	devices  []fleet.Device  // connected ones, in the order in which they came
	opened   *child          // where the context exists
	at       *child          // where it exists and knows the devices
	changed  chan struct{}   // closed when at changes
	leftover []fleet.Command // of a poll that outlived its caller
	holding  bool            // a poll that is held is under way
	window   window
	hurried  bool // EndPolls was called
}

func newInstance(m *Module, id uint32, spec module.InstanceSpec) *instance {
	spec.Config = slices.Clone(spec.Config)
	if spec.PollTimeout <= 0 {
		spec.PollTimeout = defaultPollTimeout
	}
	return &instance{
		m:       m,
		id:      id,
		spec:    spec,
		log:     m.log.With("car", spec.Car.Car),
		gate:    module.NewGate(),
		changed: make(chan struct{}),
	}
}

// DeviceConnected calls device_connected. This and the four methods below wait
// while the process is being replaced, hand the call over again when the process
// ended before it answered, and return *module.CallError for an answer other
// than OK, module.ErrOutOfService or module.ErrNotDelivered when the call is
// given up, ErrClosed or the error of ctx.
func (i *instance) DeviceConnected(ctx context.Context, device fleet.Device) error {
	err := i.call(ctx, "device_connected", &pb.Call{Function: pb.Call_DEVICE_CONNECTED}, device)
	if err == nil {
		i.mu.Lock()
		i.devices = append(slices.DeleteFunc(i.devices, sameDevice(device)), device)
		i.mu.Unlock()
	}
	return err
}

// DeviceDisconnected calls device_disconnected. The device is forgotten whatever
// the module says (MOD-13).
func (i *instance) DeviceDisconnected(ctx context.Context, kind fleet.DisconnectType, device fleet.Device) error {
	err := i.call(ctx, "device_disconnected", &pb.Call{Function: pb.Call_DEVICE_DISCONNECTED, DisconnectType: uint32(kind)}, device)
	i.mu.Lock()
	i.devices = slices.DeleteFunc(i.devices, sameDevice(device))
	i.mu.Unlock()
	return err
}

func sameDevice(d fleet.Device) func(fleet.Device) bool {
	return func(other fleet.Device) bool { return other.ID() == d.ID() }
}

// ForwardStatus calls forward_status.
func (i *instance) ForwardStatus(ctx context.Context, device fleet.Device, status []byte) error {
	return i.call(ctx, "forward_status", &pb.Call{Function: pb.Call_FORWARD_STATUS, Data: status}, device)
}

// ForwardError calls forward_error_message.
func (i *instance) ForwardError(ctx context.Context, device fleet.Device, message []byte) error {
	return i.call(ctx, "forward_error_message", &pb.Call{Function: pb.Call_FORWARD_ERROR, Data: message}, device)
}

// CommandAck calls command_ack, also for an empty role (MOD-17).
func (i *instance) CommandAck(ctx context.Context, command fleet.Command) error {
	return i.call(ctx, "command_ack", &pb.Call{Function: pb.Call_COMMAND_ACK, Data: command.Data}, command.Device)
}

func (i *instance) call(ctx context.Context, op string, call *pb.Call, device fleet.Device) error {
	if device.Role == "" && call.Function != pb.Call_COMMAND_ACK {
		return fmt.Errorf("%s, device %s: %w", op, device, ErrEmptyRole)
	}
	call.Context, call.Device = i.id, toDevice(device)
	return i.deliver(ctx, op, call, device, 1)
}

// deliver hands the call over until it is answered. delivery counts from 1; 2 says that
// a process has ended during the call already.
func (i *instance) deliver(ctx context.Context, op string, call *pb.Call, device fleet.Device, delivery int) error {
	suspected := false
	for {
		if delivery > 1 && !suspected {
			// It may be what ended the process, or have been there by chance, as the calls of
			// other cars were: one suspect at a time finds out, and costs only itself.
			if err := i.suspect(ctx); err != nil {
				return fmt.Errorf("%s not called again: %w", op, err)
			}
			defer func() { <-i.m.suspects }()
			suspected = true
		}
		c, err := i.enter(ctx, module.Calling, op, i.m.outside)
		if err != nil {
			return err
		}
		call.Redelivered = delivery > 1
		p := &pending{op: op, car: i.spec.Car.Car, limit: i.m.opts.CallTimeout, release: func() { i.gate.Leave(module.Calling) }}
		err = c.post(&pb.ServerFrame{Kind: &pb.ServerFrame_Call{Call: call}}, p)
		if errors.Is(err, errNotAsked) {
			continue // that process has not seen the call, and does not count
		}
		if call.Redelivered {
			i.m.mu.Lock()
			i.m.status.Redelivered++
			i.m.mu.Unlock()
			i.log.Warn("handed over again, because the module process ended before it had answered", "function", op,
				"device", device.String(), "bytes", len(call.Data), "redelivered", true, "delivery", delivery)
		}
		var result *pb.Result
		if err == nil {
			result, err = c.await(ctx, p)
		}
		switch {
		case err == nil:
			return callError(op, result)
		case !errors.Is(err, errDied):
			return fmt.Errorf("%s: %w", op, err)
		case delivery == maxDeliveries:
			return fmt.Errorf("%s given up, %d module processes ended during this call (%s): %w",
				op, delivery, c.exit.Reason, module.ErrNotDelivered)
		}
		delivery++
	}
}

// suspect waits for the turn of a call during which the process ended.
func (i *instance) suspect(ctx context.Context) error {
	select {
	case i.m.suspects <- struct{}{}:
		return nil
	case <-i.m.outside:
		return module.ErrOutOfService
	case <-i.gate.Shutting():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// callError turns an answer into the error of module.Instance.
func callError(op string, result *pb.Result) error {
	if result.GetCode() == module.CodeOK {
		return nil
	}
	err := error(&module.CallError{Op: op, Code: int(result.GetCode())})
	if text := errorText(result); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// errorText returns what the module says about an error, fit for a log line.
func errorText(result *pb.Result) string {
	return printable(cut(result.GetError()))
}

func cut(text string) string {
	const most = 1000
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// enter waits for the turn of op and returns the process that has the context. It
// waits while there is none. outside is closed when the module is taken out of service;
// with nil it waits on all the same.
func (i *instance) enter(ctx context.Context, lane module.Lane, op string, outside <-chan struct{}) (*child, error) {
	if err := i.gate.Enter(ctx, lane, op); err != nil {
		return nil, err
	}
	c, err := i.ready(ctx, outside)
	if err != nil {
		i.gate.Leave(lane)
		return nil, fmt.Errorf("%s not called: %w", op, err)
	}
	return c, nil
}

func (i *instance) ready(ctx context.Context, outside <-chan struct{}) (*child, error) {
	for {
		i.mu.Lock()
		c, changed := i.at, i.changed
		i.mu.Unlock()
		switch {
		case i.gate.IsShut():
			return nil, ErrClosed
		case c != nil && !c.isDead():
			return c, nil
		}
		select {
		case <-changed:
		case <-outside:
			return nil, module.ErrOutOfService
		case <-i.gate.Shutting():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("the module process is being replaced: %w", ctx.Err())
		}
	}
}

// WaitCommands asks the process for commands. What has reached the server is
// returned, also when the process ended in the middle; what was lost with it is
// counted and logged. It waits while the process is being replaced or the module
// is out of service.
func (i *instance) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	return i.FetchCommands(ctx, module.Interval)
}

// Holds implements module.Holder.
func (i *instance) Holds() bool { return i.m.HoldsPolls() }

// FetchCommands implements module.Holder: it is WaitCommands with the given patience.
// With module.Held the process is asked once, and asked to end the poll when ctx ends.
func (i *instance) FetchCommands(ctx context.Context, patience module.Patience) ([]fleet.Command, error) {
	for {
		c, err := i.enter(ctx, module.Waiting, opPoll, nil)
		if err != nil {
			return i.takeLeftover(), err
		}
		if left := i.takeLeftover(); len(left) > 0 {
			i.gate.Leave(module.Waiting)
			return left, nil
		}
		p := &pending{op: opPoll, car: i.spec.Car.Car, limit: i.spec.PollTimeout, held: patience == module.Held && c.holds && !i.isHurried()}
		var finished, abandoned bool // guarded by i.mu
		p.release = func() {
			i.mu.Lock()
			i.holding = false
			if finished = true; abandoned {
				i.leftover = append(i.leftover, p.commands...)
			}
			i.mu.Unlock()
			i.gate.Leave(module.Waiting)
		}
		poll := &pb.Poll{Context: i.id, TimeoutMs: milliseconds(i.spec.PollTimeout), Hold: p.held}
		if patience == module.Brief {
			poll.TimeoutMs = min(poll.TimeoutMs, milliseconds(module.BriefWait))
		}
		result, err := (*pb.Result)(nil), c.post(&pb.ServerFrame{Kind: &pb.ServerFrame_Poll{Poll: poll}}, p)
		if err == nil {
			i.mu.Lock()
			i.holding = p.held && !finished
			hurried := i.hurried
			i.mu.Unlock()
			if p.held && (hurried || i.gate.IsShut()) { // and EndPolls or Close may have come too early to end it
				i.endPoll(c)
			}
			result, err = c.await(ctx, p)
		}
		switch {
		case err == nil:
			return p.commands, p.unusable.With(callError(p.polling(), result))
		case errors.Is(err, errDied):
			i.countLost(p)
			if p.unusable != nil {
				return p.commands, p.unusable
			}
			if len(p.commands) > 0 {
				return p.commands, nil
			}
		default:
			if p.held {
				i.endPoll(c)
			}
			i.mu.Lock()
			defer i.mu.Unlock()
			if abandoned = true; finished {
				return p.commands, nil
			}
			return nil, fmt.Errorf("%s: %w", opPoll, err)
		}
	}
}

// EndPolls implements module.Holder.
func (i *instance) EndPolls() {
	i.mu.Lock()
	i.hurried = true
	c, holding := i.opened, i.holding
	i.mu.Unlock()
	if holding && !c.isDead() {
		i.endPoll(c)
	}
}

func (i *instance) isHurried() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.hurried
}

// endPoll asks for the answer of the poll that is held. Its own answer says nothing.
func (i *instance) endPoll(c *child) {
	_ = c.post(&pb.ServerFrame{Kind: &pb.ServerFrame_EndPoll{EndPoll: &pb.EndPoll{Context: i.id}}},
		&pending{op: "the end of a poll", car: i.spec.Car.Car})
}

// countLost reports the command that was being taken out of the module when its
// process ended. Those before it had reached the server; those behind it never
// left the module and cannot be counted.
func (i *instance) countLost(p *pending) {
	if !p.fetching {
		return
	}
	i.m.mu.Lock()
	i.m.status.CommandsLost++
	i.m.mu.Unlock()
	i.log.Warn("commands were lost: the module process ended while they were taken out of it",
		"lost_at_least", 1, "delivered", len(p.commands))
}

func (i *instance) takeLeftover() []fleet.Command {
	i.mu.Lock()
	defer i.mu.Unlock()
	left := i.leftover
	i.leftover = nil
	return left
}

// milliseconds rounds up: 0 would make the poller spin.
func milliseconds(d time.Duration) uint32 {
	return uint32(min((d+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

func toDevice(d fleet.Device) *pb.Device {
	return &pb.Device{Module: d.Module, Type: d.Type, Role: d.Role, Name: d.Name}
}
