// Package idlemodule is a module process whose module takes everything and does
// nothing, for tests and measurements of the boundary.
package idlemodule

import (
	"context"
	"fmt"
	"os"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/module/guest"
	"github.com/fleet-protocol/external-server/sdk/boundary"
)

// Number is the number of the module.
const Number = 66

// Serve makes this process the module process and ends it with the connection.
func Serve() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve() error {
	socket, err := boundary.Socket()
	if err != nil {
		return err
	}
	conn, err := boundary.FromFile(socket)
	if err != nil {
		return err
	}
	_ = guest.Serve(context.Background(), conn, "idle", func(int32) (module.Module, error) { return idle{}, nil })
	return nil
}

type idle struct{}

func (idle) Number() int32        { return Number }
func (idle) Supports(uint32) bool { return true }
func (idle) Close() error         { return nil }
func (idle) Open(context.Context, module.InstanceSpec) (module.Instance, error) {
	return idleContext{}, nil
}

type idleContext struct{}

func (idleContext) DeviceConnected(context.Context, fleet.Device) error       { return nil }
func (idleContext) ForwardStatus(context.Context, fleet.Device, []byte) error { return nil }
func (idleContext) ForwardError(context.Context, fleet.Device, []byte) error  { return nil }
func (idleContext) DeviceDisconnected(context.Context, fleet.DisconnectType, fleet.Device) error {
	return nil
}
func (idleContext) CommandAck(context.Context, fleet.Command) error       { return nil }
func (idleContext) WaitCommands(context.Context) ([]fleet.Command, error) { return nil, nil }
func (idleContext) Close(context.Context) error                           { return nil }
