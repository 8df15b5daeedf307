package host

import (
	"context"
	"log/slog"
	"os"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/module/guest"
	"github.com/fleet-protocol/external-server/sdk/boundary"
)

// serveIdle is a module process with a module that does nothing.
func serveIdle() {
	socket, err := boundary.Socket()
	if err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
	conn, err := boundary.FromFile(socket)
	if err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
	_ = guest.Serve(context.Background(), conn, "idle", func(int32) (module.Module, error) { return idle{}, nil })
	os.Exit(0)
}

type idle struct{}

func (idle) Number() int32        { return 66 }
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
