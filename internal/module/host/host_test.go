package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// filter returns the lines that start with one of the prefixes.
func filter(lines []string, prefixes ...string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) })
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// restart ends the running process.
func restart(m *Module) {
	m.mu.Lock()
	c := m.current
	m.mu.Unlock()
	c.killFor(errors.New("the test asked for a restart"))
}

// replace ends the process and waits for its successor.
func replace(t *testing.T, m *Module) {
	t.Helper()
	restarts := m.State().Restarts
	restart(m)
	testwait.Until(t, "process replaced", func() bool { s := m.State(); return s.Restarts > restarts && s.Ready })
}

// TestDevicesAreAnnouncedAgain in the order in which they came, and only those
// that are still connected.
func TestDevicesAreAnnouncedAgain(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	path := filepath.Join(t.TempDir(), "record")
	car := openCar(t, m, spec("car", path))
	ctx := t.Context()
	for _, role := range []string{"c", "a", "b"} {
		must(t, car.DeviceConnected(ctx, device(role)))
	}
	must(t, car.DeviceDisconnected(ctx, fleet.DisconnectAnnounced, device("a")))
	must(t, car.ForwardStatus(ctx, device("c"), []byte("one")))
	replace(t, m)
	must(t, car.ForwardStatus(ctx, device("c"), []byte("two")))
	must(t, car.Close(ctx))
	want := []string{
		"init car", "device_connected car c ", "device_connected car a ", "device_connected car b ",
		"device_disconnected car a 0", "forward_status car c one",
		"init car", "device_connected car c ", "device_connected car b ", "forward_status car c two",
		"destroy car",
	}
	if got := record(t, path); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestPoisonCostsNobodyElse: what ends the process again and again costs itself, not
// the calls of other cars that are under way each time.
func TestPoisonCostsNobodyElse(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, func(o *Options) { o.MaxRestarts = 10 })
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for n := range 8 {
		car := openCar(t, m, spec(fmt.Sprint("car", n), "", "attack=forward_status:slow"))
		others.Go(func() {
			for ctx.Err() == nil {
				if err := car.ForwardStatus(t.Context(), device("r"), []byte("status")); err != nil {
					t.Errorf("a status of a car that did nothing is lost: %v", err)
					return
				}
			}
		})
	}
	poisoned := openCar(t, m, spec("poisoned", "", "attack=forward_status:abort"))
	if err := poisoned.ForwardStatus(t.Context(), device("r"), nil); !errors.Is(err, module.ErrNotDelivered) {
		t.Errorf("error is %v", err)
	}
	cancel()
	others.Wait()
}

// TestPoisonIsGivenUp: a status that ends every process that gets it must not end
// the module's service.
func TestPoisonIsGivenUp(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, func(o *Options) { o.MaxRestarts = 10 })
	car := openCar(t, m, spec("car", "", "attack=forward_status:abort"))
	err := car.ForwardStatus(t.Context(), device("r"), []byte("poison"))
	if !errors.Is(err, module.ErrNotDelivered) || errors.Is(err, module.ErrOutOfService) || !strings.Contains(err.Error(), "SIGABRT") {
		t.Errorf("error is %v", err)
	}
	if n := m.State().Redelivered; n != maxDeliveries-1 {
		t.Errorf("%d redeliveries", n)
	}
	if !log.Has("level=WARN", "redelivered=true", "function=forward_status", "delivery=2") {
		t.Errorf("the log does not mark the repetition\n%s", &log)
	}
	must(t, car.ForwardError(t.Context(), device("r"), []byte("other")))
}

// TestOutOfService: after too many restarts nothing is supported, and nothing waits
// but the request for commands.
func TestOutOfService(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, func(o *Options) { o.MaxRestarts = 2 })
	car := openCar(t, m, spec("car", "", "attack=forward_status:abort"))
	ctx := t.Context()
	must(t, car.DeviceConnected(ctx, device("r")))
	polled := make(chan error)
	pollCtx, stopPoll := context.WithCancel(ctx)
	go func() {
		for {
			if _, err := car.WaitCommands(pollCtx); err != nil {
				polled <- err
				return
			}
		}
	}()
	if err := car.ForwardStatus(ctx, device("r"), nil); !errors.Is(err, module.ErrNotDelivered) {
		t.Errorf("error is %v", err)
	}
	testwait.Until(t, "out of service", func() bool { return m.State().OutOfService })
	if m.Supports(1) || m.Supports(5000) {
		t.Error("a device type is supported")
	}
	if err := car.ForwardStatus(ctx, device("r"), nil); !errors.Is(err, module.ErrOutOfService) {
		t.Errorf("error is %v", err)
	}
	if err := car.DeviceConnected(ctx, device("s")); !errors.Is(err, module.ErrOutOfService) {
		t.Errorf("error is %v", err)
	}
	if _, err := m.Open(ctx, spec("other", "")); !errors.Is(err, module.ErrOutOfService) {
		t.Errorf("error is %v", err)
	}
	s := m.State()
	if s.Ready || s.PID != 0 || s.Restarts != 2 || !strings.Contains(s.LastExit, "SIGABRT") {
		t.Errorf("state: %+v", s)
	}
	testwait.Until(t, "it is logged", func() bool { return log.Has("level=ERROR", "out of service", "restarts=2") })
	select {
	case err := <-polled:
		t.Errorf("WaitCommands returned %v", err)
	default:
	}
	stopPoll()
	if err := <-polled; !errors.Is(err, context.Canceled) {
		t.Errorf("WaitCommands returned %v", err)
	}
}

// TestCommands come in order, and those that reached the server survive the end
// of the process that had them.
func TestCommands(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	once := filepath.Join(t.TempDir(), "once")
	car := openCar(t, m, spec("car", "", "attack=pop_command:segv", "once="+once))
	ctx := t.Context()
	commands, err := car.WaitCommands(ctx) // ends the process, is asked again
	if err != nil || len(commands) != 0 {
		t.Errorf("got %v, %v", commands, err)
	}
	if s := m.State(); s.CommandsLost != 1 {
		t.Errorf("%d commands lost, expected 1", s.CommandsLost)
	}
	if !log.Has("level=WARN", "commands were lost") {
		t.Errorf("not logged:\n%s", &log)
	}
	for n := range 3 {
		must(t, car.ForwardStatus(ctx, device("r"), fmt.Appendf(nil, "command:%d", n)))
	}
	var got []string
	for len(got) < 3 {
		commands, err := car.WaitCommands(ctx)
		must(t, err)
		for _, c := range commands {
			if c.Device != device("r") {
				t.Errorf("device %+v", c.Device)
			}
			got = append(got, string(c.Data))
		}
	}
	if !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("commands %q", got)
	}
}

// TestBlockedPollDelaysNobody: neither another car nor the car's own calls.
func TestBlockedPollDelaysNobody(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, func(o *Options) { o.CallTimeout = 2 * time.Second })
	blocked := openCar(t, m, spec("blocked", "", "attack=wait_for_command:block"))
	ctx, cancel := context.WithCancel(t.Context())
	polled := make(chan struct{})
	go func() { defer close(polled); poll(ctx, blocked) }()
	testwait.Until(t, "the poll is inside the library", func() bool { return log.Has("about to block") })
	other := openCar(t, m, spec("other", ""))
	for range 100 {
		must(t, blocked.ForwardStatus(ctx, device("r"), nil))
		must(t, other.ForwardStatus(ctx, device("r"), nil))
	}
	cancel()
	<-polled
	bound, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := blocked.Close(bound); !errors.Is(err, module.ErrStuck) || !strings.Contains(err.Error(), "wait_for_command") {
		t.Errorf("Close: %v", err)
	}
	must(t, other.ForwardStatus(t.Context(), device("r"), nil))
	if s := m.State(); s.Restarts != 0 {
		t.Errorf("restarted: %s", s.LastExit)
	}
}

func TestSupports(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	for deviceType, want := range map[uint32]bool{0: true, 255: true, 256: true, 299: true, 300: false, 4000000000: false} {
		testwait.Until(t, fmt.Sprintf("Supports(%d) is %v", deviceType, want), func() bool { return m.Supports(deviceType) == want })
	}
	car := openCar(t, m, spec("car", ""))
	refused := device("r")
	refused.Type = 300
	var code *module.CallError
	if err := car.DeviceConnected(t.Context(), refused); !errors.As(err, &code) || code.Code != module.CodeNotOK {
		t.Errorf("unsupported device: %v", err)
	}
	if err := car.DeviceConnected(t.Context(), fleet.Device{Module: 66, Type: 1}); !errors.Is(err, ErrEmptyRole) {
		t.Errorf("device without role: %v", err)
	}
}

// TestSecretsStayOffTheCommandLine: configuration values are for the module only.
func TestSecretsStayOffTheCommandLine(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	const secret = "s3cr3t-value"
	openCar(t, m, spec("car", "", "api_key="+secret))
	for _, file := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", m.State().PID, file))
		must(t, err)
		if strings.Contains(string(text), secret) {
			t.Errorf("%s contains the secret", file)
		}
	}
	in, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", m.State().PID))
	if err != nil || in != "/dev/null" {
		t.Errorf("standard input is %q, %v", in, err)
	}
	if strings.Contains(log.String(), secret) {
		t.Error("the log contains the secret")
	}
}

// TestStartErrors name what is wrong and what to do.
func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	tiny, err := buildC(dir, "tiny.c")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "plain"), []byte("hello"), 0o644))
	tests := map[string]struct {
		command []string
		expect  int32
		words   []string
	}{
		"missing":        {[]string{"./no-such-program"}, 66, []string{"no-such-program", "no such"}},
		"not executable": {[]string{filepath.Join(dir, "plain")}, 66, []string{"execute permission"}},
		"empty":          {nil, 66, []string{"is empty"}},
		"silent":         {[]string{"/bin/true"}, 66, []string{"did not start", "exit code 0"}},
		"complaining":    {[]string{"/bin/sh", "-c", "echo no license >&2; exit 4"}, 66, []string{"exit code 4", "no license"}},
		"mute":           {[]string{"/bin/sleep", "1000"}, 66, []string{"did not greet in time"}},
		"other protocol": {[]string{"/proc/self/exe", "test-child", "garbage"}, 66, []string{"does not speak the module protocol"}},
		"wrong number":   {[]string{tiny, "1000"}, 5, []string{"reports module number 66 but is configured as module 5"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := 30 * time.Second
			if name == "mute" {
				timeout = 200 * time.Millisecond
			}
			m, err := Open(t.Context(), Options{Command: test.command, Expect: test.expect, StartTimeout: timeout})
			if err == nil {
				_ = m.Close()
				t.Fatal("it started")
			}
			for _, word := range test.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not contain %q: %v", word, err)
				}
			}
		})
	}
}

// TestContextThatCannotBeMadeAgain is tried again until it can; its calls wait.
func TestContextThatCannotBeMadeAgain(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	dir := t.TempDir()
	path := filepath.Join(dir, "record")
	car := openCar(t, m, spec("car", path, "null_if="+filepath.Join(dir, "null")))
	must(t, os.WriteFile(filepath.Join(dir, "null"), nil, 0o600))
	restart(m)
	testwait.Until(t, "the failure is logged", func() bool { return log.Has("context cannot be made in the new module process") })
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := car.ForwardStatus(ctx, device("r"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	if m.State().Ready {
		t.Error("ready without the context")
	}
	must(t, os.Remove(filepath.Join(dir, "null")))
	must(t, car.ForwardStatus(t.Context(), device("r"), []byte("late")))
	if got := filter(record(t, path), "forward_status"); !slices.Equal(got, []string{"forward_status car r late"}) {
		t.Errorf("got %q", got)
	}
}

// TestClosedCarsKeepNoSlot: cars that are closed while the process is being replaced,
// before their contexts are made anew, do not keep those of the other cars from it.
func TestClosedCarsKeepNoSlot(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	gate := filepath.Join(t.TempDir(), "gate")
	must(t, os.WriteFile(gate, nil, 0o600))
	cars := make([]module.Instance, 2*cap(m.slots)+1)
	for n := range cars {
		cars[n] = openCar(t, m, spec(fmt.Sprintf("car%02d", n), "", "attack=init:gate", "gate="+gate))
	}
	must(t, os.Remove(gate)) // from now on init waits: some contexts are being made, the rest wait for a slot
	restarts := m.State().Restarts
	restart(m)
	testwait.Until(t, "contexts are made anew", func() bool {
		s := m.State()
		return s.Restarts > restarts && s.PID != 0 && len(m.slots) == cap(m.slots)
	})
	stays := cars[len(cars)-1]
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var closed sync.WaitGroup
	for _, car := range cars[:len(cars)-1] {
		closed.Go(func() { _ = car.Close(ended) }) // those in init are stuck
	}
	closed.Wait()
	must(t, os.WriteFile(gate, nil, 0o600))
	ctx, stop := context.WithTimeout(t.Context(), testwait.Patience)
	defer stop()
	must(t, stays.ForwardStatus(ctx, device("r"), []byte("status")))
	testwait.Until(t, "nobody keeps a slot", func() bool { return len(m.slots) == 0 })
}
