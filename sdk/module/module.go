// Package module is for programs that are modules: they run in a process of
// their own, started by the External Server because its configuration says
//
//	"modules": { "1001": { "command": ["./my-module"] } }
//
// A program fills Module and Context and calls Serve; modules/example-go is a
// complete one. The server may start the program again at any time, so what must
// survive belongs elsewhere.
package module

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/module/guest"
	"external-server/internal/module/wire"
)

// Device is a device of a car. Its identity are module, type and role; the name
// is for people (VOC-8).
type Device struct {
	Module   int32
	Type     uint32
	Role     string
	Name     string
	Priority uint32 // 0 in everything that comes from the server (MOD-11)
}

// Command goes to one device of the car.
type Command struct {
	Device Device
	Data   []byte
}

// Reason tells why a device left (VOC-14).
type Reason int

// Reasons.
const (
	Announced Reason = 0 // the device or its gateway said so
	Timeout   Reason = 1 // the session with the car ended
)

// Pair is one configuration value; it may be secret and belongs in no output.
type Pair struct{ Key, Value string }

// Car is what a context is made for.
type Car struct {
	Company string
	Name    string
	// Config holds company_name, car_name and then the pairs of the module's
	// "config" object in file order (MOD-8).
	Config []Pair
}

// Value returns the value of a key of the configuration.
func (c Car) Value(key string) (string, bool) {
	for _, p := range c.Config {
		if p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}

// Module is what a program serves. Its methods may be called concurrently.
type Module interface {
	// Number is the module number; it must be the one of the configuration.
	Number() int32
	// Supports tells whether the module serves the device type, always the same
	// for one type and without waiting.
	Supports(deviceType uint32) bool
	// Open makes the context of one car, or says what is wrong with its
	// configuration, without the values.
	Open(ctx context.Context, car Car) (Context, error)
}

// Context is a module's side of one car. All methods but Commands are called one
// at a time; Commands runs beside them. Slices are the module's own. An error is
// logged by the server and changes nothing else, except that DeviceConnected
// refuses the device; use Code for a particular code.
type Context interface {
	DeviceConnected(ctx context.Context, device Device) error
	DeviceDisconnected(ctx context.Context, device Device, reason Reason) error
	// Status brings a device status; the car got its answer already. A slow
	// module delays the later calls of this car, never the car.
	Status(ctx context.Context, device Device, data []byte) error
	// StatusError brings the error message that came with the last status.
	StatusError(ctx context.Context, device Device, message []byte) error
	// CommandDelivered says that the car received the command.
	CommandDelivered(ctx context.Context, command Command) error
	// Commands returns the next commands, oldest first. It waits until there are
	// some or ctx ends, which is after the poll timeout of the configuration, and
	// then returns none. Queue does all of it.
	Commands(ctx context.Context) ([]Command, error)
	// Close ends the context.
	Close(ctx context.Context) error
}

// Code is an error with a code of the module's own, such as Code(-5). The codes
// 0 and -10 to -12 have a meaning of their own.
type Code int

// Error names the code.
func (c Code) Error() string { return fmt.Sprintf("code %d", int(c)) }

// Redelivered tells whether the module may have seen this call before: a process
// of this module ended without answering it.
func Redelivered(ctx context.Context) bool { return guest.Redelivered(ctx) }

// Serve serves the module until the server ends the connection, and returns nil
// then; main should return at once. The error says why nothing can be served.
func Serve(m Module) error {
	socket, err := guest.Socket()
	if err != nil {
		return err
	}
	// When to end is told by the connection. A service manager signals all
	// processes of a service at once, and the server still needs its modules to
	// stop in order.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	conn, err := wire.FromFile(socket)
	if err != nil {
		return err
	}
	return guest.Serve(context.Background(), conn, filepath.Base(os.Args[0]), func(number int32) (module.Module, error) {
		if number != 0 && number != m.Number() {
			return nil, fmt.Errorf("this is module %d but it is configured as module %d", m.Number(), number)
		}
		return served{m}, nil
	})
}

// served makes a module.Module of a Module.
type served struct{ m Module }

func (s served) Number() int32                   { return s.m.Number() }
func (s served) Supports(deviceType uint32) bool { return s.m.Supports(deviceType) }
func (s served) Close() error                    { return nil }

func (s served) Open(ctx context.Context, spec module.InstanceSpec) (module.Instance, error) {
	car := Car{Company: spec.Car.Company, Name: spec.Car.Car}
	for _, p := range spec.Config {
		car.Config = append(car.Config, Pair(p))
	}
	c, err := s.m.Open(ctx, car)
	if err != nil {
		return nil, err
	}
	return servedContext{c: c, spec: spec}, nil
}

type servedContext struct {
	c    Context
	spec module.InstanceSpec
}

// result turns a Code into what travels.
func result(op string, err error) error {
	var code Code
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &code) || code == 0:
		return err
	case err == error(code):
		return &module.CallError{Op: op, Code: int(code)}
	}
	return fmt.Errorf("%w: %w", &module.CallError{Op: op, Code: int(code)}, err)
}

func (s servedContext) DeviceConnected(ctx context.Context, d fleet.Device) error {
	return result("device_connected", s.c.DeviceConnected(ctx, Device(d)))
}

func (s servedContext) DeviceDisconnected(ctx context.Context, kind fleet.DisconnectType, d fleet.Device) error {
	return result("device_disconnected", s.c.DeviceDisconnected(ctx, Device(d), Reason(kind)))
}

func (s servedContext) ForwardStatus(ctx context.Context, d fleet.Device, status []byte) error {
	return result("forward_status", s.c.Status(ctx, Device(d), status))
}

func (s servedContext) ForwardError(ctx context.Context, d fleet.Device, message []byte) error {
	return result("forward_error_message", s.c.StatusError(ctx, Device(d), message))
}

func (s servedContext) CommandAck(ctx context.Context, c fleet.Command) error {
	return result("command_ack", s.c.CommandDelivered(ctx, Command{Device: Device(c.Device), Data: c.Data}))
}

func (s servedContext) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	ctx, cancel := context.WithTimeout(ctx, s.spec.PollTimeout)
	defer cancel()
	commands, err := s.c.Commands(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil // the time is over, no more
	}
	var out []fleet.Command
	for _, c := range commands {
		out = append(out, fleet.Command{Device: fleet.Device(c.Device), Data: c.Data})
	}
	return out, result("wait_for_command", err)
}

func (s servedContext) Close(ctx context.Context) error {
	return result("destroy", s.c.Close(ctx))
}
