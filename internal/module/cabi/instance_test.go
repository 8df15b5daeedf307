//go:build cgo

package cabi

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/support/testwait"
)

func hexOf(text string) string { return hex.EncodeToString([]byte(text)) }

var button = fleet.Device{Module: 77, Type: 4000000000, Role: "but\x00ton", Name: "Žárovka", Priority: 9}

func TestCallsArriveByteForByte(t *testing.T) {
	p := openProbe(t)
	ctx := t.Context()
	errs := []error{
		p.inst.DeviceConnected(ctx, button),
		p.inst.ForwardStatus(ctx, button, []byte("a\x00b")),
		p.inst.ForwardStatus(ctx, fleet.Device{Module: -5, Role: "r"}, nil),
		p.inst.ForwardError(ctx, button, []byte{0xff, 0}),
		p.inst.CommandAck(ctx, fleet.Command{Device: button, Data: []byte("cmd")}),
		p.inst.DeviceDisconnected(ctx, fleet.DisconnectAnnounced, button),
		p.inst.DeviceDisconnected(ctx, fleet.DisconnectTimeout, button),
		p.inst.DeviceDisconnected(ctx, fleet.DisconnectError, button),
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	// Priority is 0 in every call (DEF-32).
	device := fmt.Sprintf(" module=77 type=4000000000 role=%s name=%s priority=0", hexOf(button.Role), hexOf(button.Name))
	want := []string{
		"device_connected data= kind=-1" + device,
		"forward_status data=610062 kind=-1" + device,
		"forward_status data= kind=-1 module=-5 type=0 role=72 name= priority=0",
		"forward_error_message data=ff00 kind=-1" + device,
		"command_ack data=636d64 kind=-1" + device,
		"device_disconnected data= kind=0" + device,
		"device_disconnected data= kind=1" + device,
		"device_disconnected data= kind=2" + device,
	}
	if got := p.lines(); !slices.Equal(got, want) {
		t.Errorf("the library received\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	p.closeClean()
}

func TestEmptyRoleDoesNotReachTheLibrary(t *testing.T) { // MOD-11, MOD-17
	p := openProbe(t)
	ctx, nobody := t.Context(), fleet.Device{Module: 77, Name: "x"}
	for name, err := range map[string]error{
		"device_connected":      p.inst.DeviceConnected(ctx, nobody),
		"forward_status":        p.inst.ForwardStatus(ctx, nobody, []byte("s")),
		"forward_error_message": p.inst.ForwardError(ctx, nobody, []byte("s")),
		"device_disconnected":   p.inst.DeviceDisconnected(ctx, fleet.DisconnectTimeout, nobody),
	} {
		if !errors.Is(err, ErrEmptyRole) {
			t.Errorf("%s returned %v", name, err)
		}
		wantError(t, err, name, nobody.String())
	}
	if lines := p.lines(); len(lines) != 0 {
		t.Errorf("the library was called: %q", lines)
	}
	if err := p.inst.CommandAck(ctx, fleet.Command{Device: nobody}); err != nil {
		t.Error(err)
	}
	if !p.has("command_ack") || !strings.Contains(p.log.String(), "level=WARN") {
		t.Error("command_ack for an empty role must warn and reach the library")
	}
	p.closeClean()
}

func TestEveryErrorCodeIsReported(t *testing.T) {
	for _, code := range []int{-1, -3, -10, module.CodeContextIncorrect, module.CodeTimeoutOccurred, 1, math.MinInt32} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			number := strconv.Itoa(code)
			p := openProbe(t, "rc="+number, "destroy="+number, "wait="+number)
			ctx := t.Context()
			check := func(op string, err error) {
				t.Helper()
				var call *module.CallError
				if !errors.As(err, &call) || *call != (module.CallError{Op: op, Code: code}) {
					t.Errorf("%s: got %v", op, err)
				}
			}
			check("device_connected", p.inst.DeviceConnected(ctx, button))
			check("forward_status", p.inst.ForwardStatus(ctx, button, nil))
			check("forward_error_message", p.inst.ForwardError(ctx, button, nil))
			check("device_disconnected", p.inst.DeviceDisconnected(ctx, 0, button))
			check("command_ack", p.inst.CommandAck(ctx, fleet.Command{Device: button}))
			commands, err := p.inst.WaitCommands(ctx)
			if code == module.CodeTimeoutOccurred {
				if err != nil || commands != nil {
					t.Errorf("timeout is no error: %v, %v", commands, err)
				}
			} else {
				check("wait_for_command", err)
			}
			check("destroy", p.inst.Close(ctx))
			if err := p.lib.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCallsAfterCloseDoNotReachTheLibrary(t *testing.T) {
	p := openProbe(t, "echo=1")
	ctx := t.Context()
	p.closeClean()
	before := p.lines()
	_, err := p.inst.WaitCommands(ctx)
	for _, err := range []error{
		err,
		p.inst.DeviceConnected(ctx, button),
		p.inst.ForwardStatus(ctx, button, nil),
		p.inst.ForwardError(ctx, button, nil),
		p.inst.DeviceDisconnected(ctx, 0, button),
		p.inst.CommandAck(ctx, fleet.Command{Device: button}),
		p.inst.Close(ctx),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, expected ErrClosed", err)
		}
	}
	if after := p.lines(); !slices.Equal(before, after) {
		t.Errorf("the library was called: %q", after[len(before):])
	}
}

func TestDeadContextPreventsTheCall(t *testing.T) {
	p := openProbe(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.inst.ForwardStatus(ctx, button, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("ForwardStatus: %v", err)
	}
	if _, err := p.inst.WaitCommands(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitCommands: %v", err)
	}
	if lines := p.lines(); len(lines) != 0 {
		t.Errorf("the library was called: %q", lines)
	}
	p.closeClean()
}

func TestCloseWithDeadContextStillDestroysAnIdleContext(t *testing.T) {
	p := openProbe(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.inst.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	if !p.has("destroy held=0 violations=0") {
		t.Error("destroy was not called")
	}
}

// TestCloseIsBounded: CLI-24, MOD-15. Whatever function the library hangs in,
// Close comes back, and the context is never touched again.
func TestCloseIsBounded(t *testing.T) {
	calls := map[string]func(context.Context, module.Instance) outcome{
		"wait_for_command": func(ctx context.Context, i module.Instance) outcome {
			commands, err := i.WaitCommands(ctx)
			return outcome{commands, err}
		},
		"forward_status": func(ctx context.Context, i module.Instance) outcome {
			return outcome{err: i.ForwardStatus(ctx, button, []byte("s"))}
		},
		"device_connected": func(ctx context.Context, i module.Instance) outcome {
			return outcome{err: i.DeviceConnected(ctx, button)}
		},
		"pop_command": func(ctx context.Context, i module.Instance) outcome {
			commands, err := i.WaitCommands(ctx)
			return outcome{commands, err}
		},
	}
	for function, call := range calls {
		t.Run(function, func(t *testing.T) {
			p := openProbe(t, "block="+function, "wait=0", "pop=two")
			results := make(chan outcome, 1)
			go func() { results <- call(t.Context(), p.inst) }()
			p.waitFor("blocked " + function)

			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			err := p.inst.Close(ctx)
			if !errors.Is(err, module.ErrStuck) {
				t.Fatalf("Close returned %v, expected ErrStuck", err)
			}
			wantError(t, err, function)
			if p.has("unblocked") {
				t.Fatal("the library was not blocked any more: the test proves nothing")
			}
			if err := p.lib.Close(); err != nil {
				t.Errorf("a context that was given up keeps the library open: %v", err)
			}

			p.letGo()
			got := await(t, results)
			switch function {
			case "wait_for_command":
				if !errors.Is(got.err, ErrClosed) || got.commands != nil {
					t.Errorf("WaitCommands returned %v, %v; expected no pop after the context was given up", got.commands, got.err)
				}
			case "pop_command":
				if !errors.Is(got.err, ErrClosed) || len(got.commands) != 1 {
					t.Errorf("WaitCommands returned %v, %v; expected the one command that was being fetched", got.commands, got.err)
				}
			default:
				if got.err != nil {
					t.Errorf("the late call returned %v", got.err)
				}
			}
			if p.has("destroy") {
				t.Error("destroy was called for a context that was given up")
			}
		})
	}
}

func TestCloseWaitsForCallsUnderWay(t *testing.T) {
	p := openProbe(t, "block=wait_for_command", "wait=0", "pop=two")
	waited, closed := make(chan outcome, 1), make(chan outcome, 1)
	go func() { _, err := p.inst.WaitCommands(t.Context()); waited <- outcome{err: err} }()
	p.waitFor("blocked wait_for_command")
	go func() { closed <- outcome{err: p.inst.Close(t.Context())} }()
	testwait.Until(t, "Close has begun", func() bool {
		return errors.Is(p.inst.ForwardStatus(t.Context(), button, nil), ErrClosed)
	})
	if p.has("destroy") {
		t.Fatal("destroy during wait_for_command")
	}
	p.letGo()
	if err := await(t, waited).err; !errors.Is(err, ErrClosed) {
		t.Errorf("WaitCommands popped during Close: %v", err)
	}
	if err := await(t, closed).err; err != nil {
		t.Errorf("Close: %v", err)
	}
	if !p.has("destroy held=0 violations=0") {
		t.Errorf("no clean destroy: %q", p.lines())
	}
}

func TestDestroyThatDoesNotReturn(t *testing.T) {
	p := openProbe(t, "block=destroy")
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan outcome, 1)
	go func() { results <- outcome{err: p.inst.Close(ctx)} }()
	p.waitFor("blocked destroy")
	cancel()
	err := await(t, results).err
	if !errors.Is(err, module.ErrStuck) {
		t.Errorf("Close returned %v", err)
	}
	wantError(t, err, "destroy")
	p.letGo()
	p.waitFor("destroy held=0")
}

// A caller that waits for another call can give up; the wait is independent of
// the other calls.
func TestBusyModule(t *testing.T) {
	p := openProbe(t, "block=forward_status", "wait=-12")
	results := make(chan outcome, 1)
	go func() { results <- outcome{err: p.inst.ForwardStatus(t.Context(), button, nil)} }()
	p.waitFor("blocked forward_status")
	if _, err := p.inst.WaitCommands(t.Context()); err != nil {
		t.Errorf("wait_for_command must be possible beside another call (MOD-5): %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.inst.DeviceConnected(ctx, button); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("DeviceConnected: %v", err)
	}
	if p.has("device_connected") {
		t.Error("two calls at a time")
	}
	p.letGo()
	if err := await(t, results).err; err != nil {
		t.Error(err)
	}
	p.closeClean()
}

// TestConcurrentUse drives several contexts as hard as it goes; the library
// notices every overlap (MOD-5, MOD-6) and every buffer that is not given back.
func TestConcurrentUse(t *testing.T) {
	const contexts, callers, statuses = 3, 4, 40
	p := newProbe(t)
	var group sync.WaitGroup
	for n := range contexts {
		own := *p
		own.record = fmt.Sprintf("%s-%d", p.record, n)
		inst, err := p.lib.Open(t.Context(), own.spec("echo=1"))
		if err != nil {
			t.Fatal(err)
		}
		own.inst = inst
		group.Go(func() {
			var calls sync.WaitGroup
			for caller := range callers {
				calls.Go(func() {
					device := fleet.Device{Module: 77, Role: strconv.Itoa(caller), Name: "n"}
					for status := range statuses {
						if err := inst.ForwardStatus(t.Context(), device, []byte{byte(status), 0}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			next := map[string]int{}
			for got := 0; got < callers*statuses; {
				commands, err := inst.WaitCommands(t.Context())
				if err != nil {
					t.Error(err)
					break
				}
				for _, command := range commands {
					if len(command.Data) != 2 || int(command.Data[0]) != next[command.Device.Role] {
						t.Errorf("role %s: got %v, expected number %d", command.Device.Role, command.Data, next[command.Device.Role])
					}
					next[command.Device.Role]++
					got++
				}
			}
			calls.Wait()
			if err := inst.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
		defer func() {
			lines := own.lines()
			if last := lines[len(lines)-1]; !strings.HasSuffix(last, "violations=0") {
				t.Errorf("context %d: %s", n, last)
			}
		}()
	}
	group.Wait()
	// The last context to go sees the balance of all of them.
	p.record += "-last"
	inst, err := p.lib.Open(t.Context(), p.spec())
	if err != nil {
		t.Fatal(err)
	}
	p.inst = inst
	p.closeClean()
}

func TestMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]int{
		0: 1000, -5: 1000, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Second: 1000,
		math.MaxInt64: math.MaxInt32, 25 * 24 * time.Hour: math.MaxInt32,
	} {
		if got := int(milliseconds(d)); got != want {
			t.Errorf("milliseconds(%v) = %d, expected %d", d, got, want)
		}
	}
}
