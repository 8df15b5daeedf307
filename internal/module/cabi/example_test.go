//go:build cgo

package cabi

import (
	"errors"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/support/testneed"
)

// buildExample builds the example module as its author does: with its makefile.
func buildExample(t testing.TB) *Library {
	t.Helper()
	testneed.Tool(t, "make", "make")
	out := filepath.Join(t.TempDir(), "libexample-module.so")
	command := exec.Command("make", "-s", "-C", filepath.Dir(exampleSource), "OUT="+out)
	if text, err := command.CombinedOutput(); err != nil {
		t.Fatalf("make: %v\n%s", err, text)
	}
	lib, err := Open(out, Options{Expect: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

func openExample(t testing.TB, lib *Library, poll time.Duration, config ...module.Pair) module.Instance {
	t.Helper()
	inst, err := lib.Open(t.Context(), module.InstanceSpec{Car: testCar, PollTimeout: poll, Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return inst
}

func closeExample(t testing.TB, lib *Library, instances ...module.Instance) {
	t.Helper()
	for _, inst := range instances {
		if err := inst.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := lib.Close(); err != nil {
		t.Error(err)
	}
}

func exampleButton(role string) fleet.Device {
	return fleet.Device{Module: 1000, Role: role, Name: role + "\x00name"}
}

func wantCommands(t *testing.T, inst module.Instance, want ...fleet.Command) {
	t.Helper()
	got, err := inst.WaitCommands(t.Context())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("WaitCommands: %+v, %v; expected %+v", got, err, want)
	}
}

func wantCode(t *testing.T, err error, code int) {
	t.Helper()
	var call *module.CallError
	if !errors.As(err, &call) || call.Code != code {
		t.Errorf("got %v, expected code %d", err, code)
	}
}

// TestExampleClassic: MM-50 to MM-54.
func TestExampleClassic(t *testing.T) {
	lib := buildExample(t)
	if !lib.Supports(0) || lib.Supports(1) {
		t.Error("the example serves device type 0 only (MM-50)")
	}
	ctx := t.Context()
	inst := openExample(t, lib, 5*time.Millisecond, module.Pair{Key: "command", Value: "ignored"})
	first, second := exampleButton("first"), exampleButton("second")
	off := func(d fleet.Device) fleet.Command {
		return fleet.Command{Device: d, Data: []byte(`{"lit_up": false}`)}
	}
	wantCommands(t, inst) // no device: timeout

	for _, device := range []fleet.Device{first, second, first} {
		if err := inst.DeviceConnected(ctx, device); err != nil {
			t.Error(err)
		}
	}
	wantCode(t, inst.DeviceConnected(ctx, fleet.Device{Module: 1000, Type: 1, Role: "r"}), module.CodeNotOK)
	for range 3 { // one per poll: the batch of two calls ends with -2
		wantCommands(t, inst, off(first))
	}
	for _, err := range []error{
		inst.ForwardStatus(ctx, first, []byte(`{"pressed": true}`)),
		inst.ForwardError(ctx, first, nil),
		inst.CommandAck(ctx, off(first)),
		inst.DeviceDisconnected(ctx, fleet.DisconnectTimeout, first),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	wantCode(t, inst.DeviceDisconnected(ctx, fleet.DisconnectTimeout, first), -3)
	other := second
	other.Name = "another"
	wantCode(t, inst.DeviceDisconnected(ctx, fleet.DisconnectTimeout, other), -3)
	wantCommands(t, inst, off(second))
	if err := inst.DeviceDisconnected(ctx, fleet.DisconnectAnnounced, second); err != nil {
		t.Error(err)
	}
	wantCommands(t, inst)
	closeExample(t, lib, inst)
}

// TestExampleWaitSleeps: without an interval the wait takes its full time also
// when a device is there (MM-51).
func TestExampleWaitSleeps(t *testing.T) {
	lib := buildExample(t)
	inst := openExample(t, lib, 30*time.Millisecond)
	if err := inst.DeviceConnected(t.Context(), exampleButton("b")); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := inst.WaitCommands(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 29*time.Millisecond { // the clock of C counts whole milliseconds
		t.Errorf("the wait took %v, expected the full timeout", took)
	}
	closeExample(t, lib, inst)
}

// TestExampleInterval: with an interval the wait ends when a command is due, and
// a device that connects during the wait starts the interval. Each wait could
// take a minute; the test would run into its patience.
func TestExampleInterval(t *testing.T) {
	lib := buildExample(t)
	pair := module.Pair{Key: "command_interval_ms", Value: "5"}
	inst := openExample(t, lib, time.Minute, pair)
	results := make(chan outcome, 1)
	wait := func() {
		commands, err := inst.WaitCommands(t.Context())
		results <- outcome{commands, err}
	}
	go wait()
	if err := inst.DeviceConnected(t.Context(), exampleButton("b")); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if got := await(t, results); got.err != nil || len(got.commands) != 1 || got.commands[0].Device != exampleButton("b") {
			t.Fatalf("got %+v", got)
		}
		go wait()
	}
	await(t, results)

	// Not due yet: timeout.
	pair.Value = "86400000"
	slow := openExample(t, lib, time.Millisecond, pair)
	if err := slow.DeviceConnected(t.Context(), exampleButton("b")); err != nil {
		t.Fatal(err)
	}
	wantCommands(t, slow)
	closeExample(t, lib, inst, slow)
}

func TestExampleRefusesBadInterval(t *testing.T) {
	lib := buildExample(t)
	for _, value := range []string{"", "0", "-1", "5x", "1\x00", " 5", "86400001", strings.Repeat("9", 40)} {
		_, err := lib.Open(t.Context(), module.InstanceSpec{Car: testCar, Config: []module.Pair{{Key: "command_interval_ms", Value: value}}})
		if err == nil {
			t.Errorf("%q was accepted", value)
			continue
		}
		wantError(t, err, "module 1000", "NULL")
	}
	closeExample(t, lib)
}
