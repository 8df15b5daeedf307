package guest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"external-server/internal/fleet"
	internal "external-server/internal/module"
	"external-server/internal/module/host"
	"external-server/internal/support/testleak"
	"github.com/fleet-protocol/external-server/sdk/module"
)

// TestMain is also the module process, as a program of a module author is.
func TestMain(m *testing.M) {
	host.RunIfHost()
	if os.Getenv("FLEET_MODULE_PROTOCOL") != "" {
		if err := module.Serve(testModule{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(testleak.Settled(m))
}

type testModule struct{}

func (testModule) Number() int32                   { return 9 }
func (testModule) Supports(deviceType uint32) bool { return deviceType == 4 || deviceType == 1000 }

func (testModule) Open(_ context.Context, car module.Car) (module.Context, error) {
	if value, _ := car.Value("bad"); value != "" {
		return nil, errors.New("the key bad is not wanted")
	}
	c := &testContext{car: car}
	c.die, _ = car.Value("die")
	return c, nil
}

type testContext struct {
	module.Queue
	car module.Car
	die string // a file: the process ends once, and the file with it
}

func (c *testContext) DeviceConnected(context.Context, module.Device) error { return nil }

func (c *testContext) DeviceDisconnected(_ context.Context, _ module.Device, reason module.Reason) error {
	if reason != module.Timeout {
		return fmt.Errorf("wrapped: %w", module.Code(-7))
	}
	return nil
}

func (c *testContext) Status(ctx context.Context, d module.Device, data []byte) error {
	if c.die != "" && os.Remove(c.die) == nil {
		os.Exit(5)
	}
	switch string(data) {
	case "fail":
		return errors.New("some reason")
	case "code":
		return module.Code(-4)
	case "panic":
		panic("as asked")
	}
	c.Push(module.Command{Device: d, Data: fmt.Appendf(nil, "%s/%s %s redelivered=%t", c.car.Company, c.car.Name, data, module.Redelivered(ctx))})
	return nil
}

func (c *testContext) StatusError(context.Context, module.Device, []byte) error { return nil }

func (c *testContext) CommandDelivered(_ context.Context, command module.Command) error {
	c.Push(command)
	return nil
}

func (c *testContext) Close(context.Context) error { return nil }

func open(t *testing.T, settings ...string) internal.Instance {
	t.Helper()
	m, err := host.Open(t.Context(), host.Options{Command: []string{"/proc/self/exe"}, Expect: 9, BackoffMin: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if !m.Supports(4) || m.Supports(5) {
		t.Error("wrong device types")
	}
	spec := internal.InstanceSpec{Car: fleet.CarID{Company: "c", Car: "n"}, PollTimeout: 30 * time.Millisecond}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		spec.Config = append(spec.Config, internal.Pair{Key: key, Value: value})
	}
	i, err := m.Open(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

var lamp = fleet.Device{Module: 9, Type: 4, Role: "lamp", Name: "Lamp"}

func next(t *testing.T, i internal.Instance) string {
	t.Helper()
	for {
		commands, err := i.WaitCommands(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(commands) > 0 {
			if len(commands) != 1 || commands[0].Device != lamp {
				t.Errorf("commands %+v", commands)
			}
			return string(commands[0].Data)
		}
	}
}

func TestServe(t *testing.T) {
	i := open(t, "key=value")
	ctx := t.Context()
	if commands, err := i.WaitCommands(ctx); err != nil || len(commands) != 0 {
		t.Errorf("without commands: %v, %v", commands, err)
	}
	if err := i.DeviceConnected(ctx, lamp); err != nil {
		t.Error(err)
	}
	if err := i.ForwardStatus(ctx, lamp, []byte("hello")); err != nil {
		t.Error(err)
	}
	if got := next(t, i); got != "c/n hello redelivered=false" {
		t.Errorf("command %q", got)
	}
	if err := i.CommandAck(ctx, fleet.Command{Device: lamp, Data: []byte("ack")}); err != nil {
		t.Error(err)
	}
	if got := next(t, i); got != "ack" {
		t.Errorf("command %q", got)
	}
	tests := map[string]struct {
		code int
		text string
	}{"fail": {-1, "some reason"}, "code": {-4, "-4"}, "panic": {-1, "panicked: as asked"}}
	for data, want := range tests {
		err := i.ForwardStatus(ctx, lamp, []byte(data))
		var code *internal.CallError
		if !errors.As(err, &code) || code.Code != want.code || code.Op != "forward_status" || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v", data, err)
		}
	}
	var code *internal.CallError
	if err := i.DeviceDisconnected(ctx, fleet.DisconnectAnnounced, lamp); !errors.As(err, &code) || code.Code != -7 || !strings.Contains(err.Error(), "wrapped") {
		t.Errorf("device_disconnected: %v", err)
	}
	if err := i.DeviceDisconnected(ctx, fleet.DisconnectTimeout, lamp); err != nil {
		t.Error(err)
	}
	if err := i.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestRedelivered(t *testing.T) {
	die := filepath.Join(t.TempDir(), "die")
	if err := os.WriteFile(die, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	i := open(t, "die="+die)
	if err := i.ForwardStatus(t.Context(), lamp, []byte("again")); err != nil {
		t.Error(err)
	}
	if got := next(t, i); got != "c/n again redelivered=true" {
		t.Errorf("command %q", got)
	}
}

func TestRefusals(t *testing.T) {
	m, err := host.Open(t.Context(), host.Options{Command: []string{"/proc/self/exe"}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_, err = m.Open(t.Context(), internal.InstanceSpec{Config: []internal.Pair{{Key: "bad", Value: "x"}}})
	if err == nil || !strings.Contains(err.Error(), "the key bad is not wanted") {
		t.Errorf("Open: %v", err)
	}
	if _, err := host.Open(t.Context(), host.Options{Command: []string{"/proc/self/exe"}, Expect: 8}); err == nil ||
		!strings.Contains(err.Error(), "this is module 9 but it is configured as module 8") {
		t.Errorf("Open: %v", err)
	}
	if err := module.Serve(testModule{}); err == nil || !strings.Contains(err.Error(), "module check") {
		t.Errorf("Serve outside of the server: %v", err)
	}
}
