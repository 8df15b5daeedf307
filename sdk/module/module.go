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
	"fmt"
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
