// Command example-go is a complete module in Go: number 1001, one device type
// (0, a button with a lamp). It lights the lamp of a button while the button is
// pressed. Copy this folder to start a module of your own.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fleet-protocol/external-server/sdk/module"
)

const (
	number = 1001
	button = 0 // the only device type
)

func main() {
	if err := module.Serve(buttons{}); err != nil {
		fmt.Fprintln(os.Stderr, "example-go:", err) // becomes a line of the server's log
		os.Exit(1)
	}
}

// buttons is the module.
type buttons struct{}

func (buttons) Number() int32                   { return number }
func (buttons) Supports(deviceType uint32) bool { return deviceType == button }

// Open makes the context of one car. The only configuration is "lamp": "inverted"
// lights the lamp while the button is released.
func (buttons) Open(_ context.Context, car module.Car) (module.Context, error) {
	c := &carContext{}
	switch value, ok := car.Value("lamp"); {
	case !ok || value == "normal":
	case value == "inverted":
		c.inverted = true
	default:
		return nil, fmt.Errorf(`config key "lamp" must be "normal" or "inverted"`)
	}
	return c, nil
}

// carContext is one car. Its calls come one at a time, so the only thing that needs
// a lock is the queue, which has one.
type carContext struct {
	module.Queue // Commands
	inverted     bool
	lit          map[string]bool // by role
}

func (c *carContext) DeviceConnected(_ context.Context, d module.Device) error {
	if c.lit == nil {
		c.lit = make(map[string]bool)
	}
	c.lit[d.Role] = false
	return nil
}

func (c *carContext) DeviceDisconnected(_ context.Context, d module.Device, _ module.Reason) error {
	if _, known := c.lit[d.Role]; !known {
		return module.Code(-1) // NOT_OK: not among the connected devices (MOD-13)
	}
	delete(c.lit, d.Role)
	return nil
}

// Status expects {"pressed": true} or {"pressed": false}.
func (c *carContext) Status(_ context.Context, d module.Device, data []byte) error {
	var status struct {
		Pressed *bool `json:"pressed"`
	}
	if err := json.Unmarshal(data, &status); err != nil || status.Pressed == nil {
		return fmt.Errorf(`status of %d bytes is not {"pressed": true|false}`, len(data))
	}
	lit, known := c.lit[d.Role]
	if want := *status.Pressed != c.inverted; known && lit != want {
		c.lit[d.Role] = want
		c.Push(module.Command{Device: d, Data: fmt.Appendf(nil, `{"lit_up": %t}`, want)})
	}
	return nil
}

func (c *carContext) StatusError(context.Context, module.Device, []byte) error { return nil }
func (c *carContext) CommandDelivered(context.Context, module.Command) error   { return nil }
func (c *carContext) Close(context.Context) error                              { return nil }
