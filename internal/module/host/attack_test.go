package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

// bystander is a car whose statuses must all arrive, in order, whatever happens
// to others. It is fed through the worker, as in the server.
type bystander struct {
	t      *testing.T
	worker *module.Worker
	record string
	sent   int
	// rewinds: the process went on calling while the server could not understand its
	// answers any more, so it gets up to a window again.
	rewinds bool
}

func startBystander(t *testing.T, m *Module, car string, log *testlog.Buffer) *bystander {
	t.Helper()
	b := &bystander{t: t, record: filepath.Join(t.TempDir(), "record")}
	b.worker = module.NewWorker(openCar(t, m, spec(car, b.record)), 66, module.WorkerOptions{Logger: log.Logger()})
	b.worker.Start()
	b.worker.DeviceConnected(device("by"), func(err error) {
		if err != nil {
			t.Errorf("bystander %s: %v", car, err)
		}
	})
	return b
}

// send queues statuses and returns without waiting, as the protocol path does.
func (b *bystander) send(n int) {
	for range n {
		b.sent++
		ok, begin := b.worker.QueueStatus(module.Status{Device: device("by"), Data: fmt.Appendf(nil, "s%d", b.sent)})
		if begin {
			b.worker.Begin()
		}
		if !ok {
			b.t.Error("the queue refused a status")
		}
	}
}

// check ends the worker and compares what the module saw: repetitions are
// allowed for what was under way when the process ended, gaps are not.
func (b *bystander) check() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testwait.Patience)
	defer cancel()
	if err := b.worker.Close(ctx); err != nil {
		b.t.Errorf("bystander: %v", err)
	}
	last := 0
	for _, line := range record(b.t, b.record) {
		var role string
		var n int
		if _, err := fmt.Sscanf(line, "forward_status "+strings.Fields(line)[1]+" %s s%d", &role, &n); err != nil {
			continue
		}
		if n != last && n != last+1 && !(b.rewinds && n < last) {
			b.t.Errorf("status %d came after status %d", n, last)
		}
		last = n
	}
	if last != b.sent {
		b.t.Errorf("the last status was %d of %d", last, b.sent)
	}
	if lost := b.worker.Stats().Lost; lost != 0 {
		b.t.Errorf("%d statuses lost", lost)
	}
}

// TestAttacks lets a library do to its process, in the context of one car, what
// no library should. Required of all: the process is replaced, the reason is
// clear, the car's call succeeds in the end, another car of the same library
// loses nothing, another module does not notice.
func TestAttacks(t *testing.T) {
	testneed.Time(t)
	const short = 3 * time.Second // a busy machine may take its time to start a process
	tests := []struct {
		function, what string
		reason         string // part of the reason of the end
		output         string // part of the quoted output
		timeout        time.Duration
		memory         int64
	}{
		{"device_connected", "segv", "SIGSEGV", "SIGSEGV in device_connected, address 0x10, code libattack.so+0x", 0, 0},
		{"device_disconnected", "segv", "SIGSEGV", "SIGSEGV in device_disconnected", 0, 0},
		{"forward_status", "segv", "SIGSEGV", "SIGSEGV in forward_status", 0, 0},
		{"forward_error_message", "segv", "SIGSEGV", "SIGSEGV in forward_error_message", 0, 0},
		{"command_ack", "segv", "SIGSEGV", "SIGSEGV in command_ack", 0, 0},
		{"wait_for_command", "segv", "SIGSEGV", "SIGSEGV in wait_for_command", 0, 0},
		{"pop_command", "segv", "SIGSEGV", "SIGSEGV in pop_command", 0, 0},
		{"forward_status", "thread", "SIGSEGV", "address 0x8", 0, 0},
		{"forward_status", "overflow", "SIGSEGV", "about to overflow", 0, 0},
		{"forward_status", "abort", "SIGABRT", "SIGABRT in forward_status", 0, 0},
		{"forward_status", "exit", "exit code 3", "about to exit", 0, 0},
		{"wait_for_command", "exit0", "exit code 0", "about to exit0", 0, 0},
		{"forward_status", "kill", "SIGKILL", "about to kill", 0, 0},
		{"forward_status", "fork", "SIGABRT", "about to fork", 0, 0},
		{"forward_status", "stop", "did not come back", "about to stop", short, 0},
		{"wait_for_command", "stop", "did not come back", "about to stop", short, 0},
		{"forward_status", "spin", "forward_status for car attacker did not come back", "about to spin", short, 0},
		{"forward_status", "block", "forward_status for car attacker did not come back", "about to block", short, 0},
		{"forward_status", "leak", "the limit (memory_limit_mb) is 512 MB", "about to leak", 0, 512 << 20},
		{"forward_status", "pipe", "SIG", "about to pipe", 0, 0},
		{"forward_status", "close", "", "about to close", short, 0},
		{"forward_status", "garbage", "not a frame of the module protocol", "about to garbage", 0, 0},
		{"forward_status", "heap", "SIGABRT", "about to heap", 0, 0},
		{"forward_status", "flood", "SIGABRT", "line 1999", 0, 0},
		{"pop_command", "wild", "SIGSEGV", "pop_command (reading what it returned), address 0x1000", 0, 0},
	}
	for _, test := range tests {
		t.Run(test.function+" "+test.what, func(t *testing.T) {
			t.Parallel()
			var log, otherLog testlog.Buffer
			m := openModule(t, &log, func(o *Options) {
				o.MemoryLimit = test.memory
				if test.timeout > 0 {
					o.CallTimeout = test.timeout
				}
			})
			other := openModule(t, &otherLog, nil)
			neighbour := startBystander(t, m, "neighbour", &log)
			stranger := startBystander(t, other, "stranger", &otherLog)
			neighbour.rewinds = test.what == "garbage"
			neighbour.send(20)
			stranger.send(20)

			attacked := filepath.Join(t.TempDir(), "record")
			car := openCar(t, m, spec("attacker", attacked, "attack="+test.function+":"+test.what,
				"once="+filepath.Join(t.TempDir(), "once")))
			ctx, cancel := context.WithTimeout(t.Context(), testwait.Patience)
			defer cancel()
			polled := make(chan struct{})
			go func() { defer close(polled); poll(ctx, car) }()
			must := func(op string, err error) {
				if err != nil {
					t.Errorf("%s: %v", op, err)
				}
			}
			d := device("role")
			must("device_connected", car.DeviceConnected(ctx, d))
			must("forward_status", car.ForwardStatus(ctx, d, []byte("status")))
			must("forward_error_message", car.ForwardError(ctx, d, []byte("error")))
			must("command_ack", car.CommandAck(ctx, fleet.Command{Device: d, Data: []byte("ack")}))
			must("device_disconnected", car.DeviceDisconnected(ctx, fleet.DisconnectTimeout, d))
			neighbour.send(20)
			stranger.send(20)
			testwait.Until(t, "process replaced", func() bool { return m.State().Restarts > 0 && m.State().Ready })
			neighbour.check()
			stranger.check()
			cancel()
			<-polled
			_ = car.Close(context.Background())

			state := m.State()
			if state.Restarts != 1 {
				t.Errorf("%d restarts, expected 1", state.Restarts)
			}
			if other.State().Restarts != 0 {
				t.Error("the other module was restarted")
			}
			if !strings.Contains(state.LastExit, test.reason) {
				t.Errorf("last exit is %q, expected %q", state.LastExit, test.reason)
			}
			if !log.Has("level=ERROR", "module process ended", "module=66", test.output) {
				t.Errorf("the log does not quote %q", test.output)
			}
			testwait.Until(t, "recovery time reported", func() bool { return log.Has("all contexts are back", "recovery=") })
			lines := strings.Join(record(t, attacked), "\n")
			if !strings.Contains(lines, "forward_status attacker role status") ||
				!strings.Contains(lines, "device_disconnected attacker role 1") {
				t.Errorf("the module did not see everything in the end:\n%s", lines)
			}
			if t.Failed() {
				t.Log(log.String())
			}
		})
	}
}

// poll asks for commands until ctx ends, like the worker.
func poll(ctx context.Context, car module.Instance) {
	for ctx.Err() == nil {
		_, _ = car.WaitCommands(ctx)
	}
}

// TestHarmlessAttacks are survived without a new process.
func TestHarmlessAttacks(t *testing.T) {
	for _, attack := range []string{"forward_status:handlers", "pop_command:absurd"} {
		t.Run(attack, func(t *testing.T) {
			var log testlog.Buffer
			m := openModule(t, &log, nil)
			car := openCar(t, m, spec("attacker", "", "attack="+attack, "once="+filepath.Join(t.TempDir(), "once")))
			d := device("role")
			for range 50 {
				if err := car.ForwardStatus(t.Context(), d, []byte("status")); err != nil {
					t.Fatal(err)
				}
				_, err := car.WaitCommands(t.Context())
				if strings.HasSuffix(attack, "absurd") {
					if err == nil || !strings.Contains(err.Error(), "absurd size") {
						t.Errorf("expected an error about the absurd size, got %v", err)
					}
					break
				}
			}
			if err := car.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if s := m.State(); s.Restarts != 0 {
				t.Errorf("restarted: %s\n%s", s.LastExit, &log)
			}
		})
	}
}

// TestUnusableCommands: what no car can be sent does not cross the boundary, and
// the server learns how much it was.
func TestUnusableCommands(t *testing.T) {
	for attack, words := range map[string][]string{
		"bigrole": {"device role has 20971520 bytes", "4096"},
		"bigdata": {"data has 17825792 bytes", "4000000"},
	} {
		t.Run(attack, func(t *testing.T) {
			var log testlog.Buffer
			m := openModule(t, &log, nil)
			car := openCar(t, m, spec("car", "", "attack=pop_command:"+attack))
			commands, err := car.WaitCommands(t.Context())
			unusable, ok := errors.AsType[*module.UnusableError](err)
			if !ok || unusable.Commands != 1 || unusable.Err != nil || len(commands) != 0 {
				t.Fatalf("got %d commands, %v", len(commands), err)
			}
			for _, word := range words {
				if !strings.Contains(unusable.Reason, word) {
					t.Errorf("the reason lacks %q: %s", word, unusable.Reason)
				}
			}
		})
	}
}

// TestFailingPop names the function that failed (MOD-14).
func TestFailingPop(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	car := openCar(t, m, spec("car", "", "attack=pop_command:fail"))
	_, err := car.WaitCommands(t.Context())
	if code, ok := errors.AsType[*module.CallError](err); !ok || code.Op != "pop_command" || code.Code != -5 {
		t.Errorf("error is %v", err)
	}
}

// TestAttackInDestroy: other cars do not notice, and the caller is not kept waiting.
func TestAttackInDestroy(t *testing.T) {
	for _, what := range []string{"block", "segv"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var log testlog.Buffer
			m := openModule(t, &log, func(o *Options) { o.CallTimeout = 1500 * time.Millisecond })
			neighbour := startBystander(t, m, "neighbour", &log)
			neighbour.send(10)
			car := openCar(t, m, spec("attacker", "", "attack=destroy:"+what))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			err := car.Close(ctx)
			if what == "block" && !errors.Is(err, module.ErrStuck) {
				t.Errorf("Close: %v, expected ErrStuck", err)
			}
			neighbour.send(10)
			testwait.Until(t, "process replaced", func() bool { return m.State().Restarts == 1 && m.State().Ready })
			neighbour.check()
			if m.State().Contexts != 0 {
				t.Errorf("%d contexts left", m.State().Contexts)
			}
		})
	}
}

// TestAttackInDeallocate: the command was copied before, and reaches the server or
// is counted.
func TestAttackInDeallocate(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, func(o *Options) {
		o.Env = []string{"ATTACK=deallocate:segv", "ATTACK_ONCE=" + filepath.Join(t.TempDir(), "once")}
	})
	car := openCar(t, m, spec("car", ""))
	for _, text := range []string{"one", "two"} {
		if err := car.ForwardStatus(t.Context(), device("r"), []byte("command:"+text)); err != nil {
			t.Fatal(err)
		}
		if text == "one" { // it is lost with the process
			if _, err := car.WaitCommands(t.Context()); err != nil {
				t.Fatal(err)
			}
			testwait.Until(t, "process replaced", func() bool { s := m.State(); return s.Restarts == 1 && s.Ready })
		}
	}
	commands, err := car.WaitCommands(t.Context())
	if err != nil || len(commands) != 1 || string(commands[0].Data) != "two" {
		t.Errorf("got %v, %v", commands, err)
	}
	if s := m.State(); s.CommandsLost != 1 || !log.Has("SIGSEGV in deallocate") {
		t.Errorf("state %+v\n%s", s, &log)
	}
}

// TestAttackAtStart: a server with such a library does not start, and says why.
func TestAttackAtStart(t *testing.T) {
	for function, words := range map[string][]string{
		"load:segv":                     {"SIGSEGV"},
		"get_module_number:abort":       {"SIGABRT", "SIGABRT in get_module_number"},
		"is_device_type_supported:segv": {"SIGSEGV in is_device_type_supported"},
		"get_module_number:exit":        {"exit code 3"},
		"get_module_number:block":       {"not loaded within"},
	} {
		t.Run(function, func(t *testing.T) {
			t.Parallel()
			opts := ForLibrary(library(t), Options{Expect: 66, Env: []string{"ATTACK=" + function}, StartTimeout: 20 * time.Second})
			if strings.HasSuffix(function, "block") {
				opts.StartTimeout = 1500 * time.Millisecond
			}
			m, err := Open(t.Context(), opts)
			for err != nil && strings.Contains(err.Error(), errNoGreeting.Error()) { // the machine was too slow to start the process
				opts.StartTimeout *= 2
				m, err = Open(t.Context(), opts)
			}
			if err == nil {
				_ = m.Close()
				t.Fatal("it started")
			}
			for _, word := range append(words, "module 66", "libattack.so") {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not contain %q: %v", word, err)
				}
			}
		})
	}
}

// TestAbandonedInit: a context that is made after its caller has given up is
// destroyed again.
func TestAbandonedInit(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	gate, attacked := filepath.Join(t.TempDir(), "gate"), filepath.Join(t.TempDir(), "record")
	ctx, cancel := context.WithCancel(t.Context())
	opened := make(chan error, 1)
	go func() {
		_, err := m.Open(ctx, spec("late", attacked, "attack=init:gate", "gate="+gate))
		opened <- err
	}()
	testwait.Until(t, "init is under way", func() bool { return log.Has("about to gate") })
	cancel()
	if err := <-opened; !errors.Is(err, module.ErrStuck) {
		t.Errorf("Open: %v, expected ErrStuck", err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the context is destroyed", func() bool {
		return slices.Equal(record(t, attacked), []string{"init late", "destroy late"})
	})
}

// TestAttackInInit: the context is refused with the reason, other cars go on.
func TestAttackInInit(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	neighbour := startBystander(t, m, "neighbour", &log)
	neighbour.send(10)
	_, err := m.Open(t.Context(), spec("attacker", "", "attack=init:segv"))
	if err == nil || !strings.Contains(err.Error(), "init did not return") || !strings.Contains(err.Error(), "SIGSEGV in init") {
		t.Errorf("Open: %v", err)
	}
	neighbour.send(10)
	neighbour.check()
	// What the module said is quoted, and nothing is said twice.
	_, err = m.Open(t.Context(), spec("refused", "", "null=1"))
	if err == nil || !strings.Contains(err.Error(), "init failed") || !strings.HasSuffix(err.Error(), "; last output: no database") ||
		strings.Count(err.Error(), "module 66") != 1 || strings.Count(err.Error(), "refused") != 1 {
		t.Errorf("Open: %v", err)
	}
	if !log.Has("car=neighbour") || log.Has("car=company/") {
		t.Error("the log names cars as nothing else does")
	}
}
