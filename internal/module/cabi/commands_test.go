//go:build cgo

package cabi

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/module"
)

func lampCommand(data string) fleet.Command {
	return fleet.Command{Data: []byte(data), Device: fleet.Device{
		Module: probeNumber, Type: 4000000000, Role: "lamp", Name: "Lamp", Priority: 3}}
}

func x(n int) []byte { return bytes.Repeat([]byte("x"), n) }

// TestPop covers the return values of MOD-14 and everything odd a library may
// put into the buffers. Every case ends with all memory given back (MOD-2).
func TestPop(t *testing.T) {
	tests := []struct {
		scenario string
		want     []fleet.Command
		code     int      // of the *module.CallError, 0 for none
		err      []string // words of the error, if any
		log      string   // what the log must contain
	}{
		{scenario: "two", want: []fleet.Command{lampCommand("first"), lampCommand("second")}},
		{scenario: "one_then_error", want: []fleet.Command{lampCommand("first")}, log: "level=DEBUG"},
		{scenario: "error", code: module.CodeContextIncorrect, err: []string{"pop_command"}},
		{scenario: "nothing", log: "empty command for an empty device"},
		{scenario: "empty", want: []fleet.Command{lampCommand("")}},
		{scenario: "not_utf8", want: []fleet.Command{lampCommand("data")}, // DEF-34
			err: []string{"2 commands were dropped", "role is not UTF-8", `l\xffmp`}},
		{scenario: "too_large", want: []fleet.Command{lampCommand("data"), lampCommand("data")},
			err: []string{"3 commands were dropped", "device role has 4097 bytes", "the limit is 4096"}},
		{scenario: "largest", want: []fleet.Command{{Data: x(module.MaxCommandData), Device: fleet.Device{Module: probeNumber,
			Type: 4000000000, Role: string(x(module.MaxDeviceText)), Name: string(x(module.MaxDeviceText)), Priority: 3}}}},
		{scenario: "absurd", want: []fleet.Command{lampCommand("data")}, err: []string{"absurd size", "role 4611686018427387904"}},
		{scenario: "hollow", err: []string{"NULL", "name 4 bytes"}},
	}
	for _, test := range tests {
		t.Run(test.scenario, func(t *testing.T) {
			p := openProbe(t, "wait=0", "pop="+test.scenario)
			got, err := p.inst.WaitCommands(t.Context())
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %.500v, expected %.500v", got, test.want)
			}
			if test.err != nil {
				wantError(t, err, test.err...)
			} else if err != nil {
				t.Errorf("unexpected error: %v", err)
			}
			var call *module.CallError
			if code := 0; errors.As(err, &call) || test.code != 0 {
				if call != nil {
					code = call.Code
				}
				if code != test.code {
					t.Errorf("code %d, expected %d", code, test.code)
				}
			}
			if !strings.Contains(p.log.String(), test.log) {
				t.Errorf("log lacks %q:\n%s", test.log, p.log)
			}
			p.closeClean()
		})
	}
}

func TestBatchIsBounded(t *testing.T) {
	p := openProbe(t, "wait=0", "pop=endless")
	commands, err := p.inst.WaitCommands(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(commands) != maxBatch {
		t.Errorf("%d commands, expected the bound %d", len(commands), maxBatch)
	}
	if !strings.Contains(p.log.String(), "level=WARN") {
		t.Error("the bound was reached silently")
	}
	p.closeClean()
}

func TestCommandsKeepNULs(t *testing.T) { // MOD-3, DEF-33
	p := openProbe(t, "echo=1")
	if err := p.inst.ForwardStatus(t.Context(), button, []byte("\x00a\x00")); err != nil {
		t.Fatal(err)
	}
	got, err := p.inst.WaitCommands(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []fleet.Command{{Device: button.ForModule(), Data: []byte("\x00a\x00")}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, expected %+v", got, want)
	}
	p.closeClean()
}
