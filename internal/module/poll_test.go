package module

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/support/testlog"
)

func commands(names ...string) []fleet.Command {
	out := make([]fleet.Command, len(names))
	for i, n := range names {
		out[i] = fleet.Command{Device: button, Data: []byte(n)}
	}
	return out
}

func texts(commands []fleet.Command) string {
	var out []string
	for _, c := range commands {
		out = append(out, string(c.Data))
	}
	return fmt.Sprint(out)
}

// What can be sent to no car is dropped, counted and said, not sent again and
// again; neither the commands beside it nor the polling suffer.
func TestUnusableCommandsAreDropped(t *testing.T) {
	for name, spoil := range map[string]func(*fleet.Command){
		"its device role has 4097 bytes, the limit is 4096": func(c *fleet.Command) { c.Device.Role = strings.Repeat("r", 4097) },
		"its device name has 4097 bytes, the limit is 4096": func(c *fleet.Command) { c.Device.Name = strings.Repeat("n", 4097) },
		"its data has 4000001 bytes, the limit is 4000000":  func(c *fleet.Command) { c.Data = make([]byte, 4_000_001) },
		`its device role is not UTF-8: \"\\xff`:             func(c *fleet.Command) { c.Device.Role = "\xff" + strings.Repeat("r", 4000) },
		`its device name is not UTF-8: \"\\xc3\"`:           func(c *fleet.Command) { c.Device.Name = "\xc3" },
		"told by the instance":                              nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log testlog.Buffer
				var waits atomic.Int32
				s := &scripted{onWait: func(ctx context.Context) ([]fleet.Command, error) {
					time.Sleep(time.Second)
					waits.Add(1)
					got := commands("before", "bad", "after")
					if spoil == nil {
						return append(got[:1], got[2]), &UnusableError{Commands: 1, Reason: name}
					}
					spoil(&got[1])
					return got, nil
				}}
				w := start(s, WorkerOptions{Logger: log.Logger()})
				time.Sleep(5*time.Second + time.Millisecond)
				if got := texts(all(w)); got != "["+strings.TrimSpace(strings.Repeat("before after ", 5))+"]" {
					t.Errorf("took %s", got)
				}
				if st := w.Stats(); st.CommandsFetched != 15 || st.CommandsDiscarded != 5 || st.Errors != 0 || waits.Load() != 5 {
					t.Errorf("%d waits, stats %+v", waits.Load(), st)
				}
				if n := strings.Count(log.String(), "can be sent to no car"); n != 1 || !log.Has("level=ERROR", "module=7", name) {
					t.Errorf("logged %d times:\n%s", n, &log)
				}
				_ = closeWithin(w, time.Second)
			})
		})
	}
}

// What waits is taken in order and in parts, and there is room again below both bounds.
func TestInbox(t *testing.T) {
	roomy := func(c <-chan struct{}) bool {
		if c == nil {
			return true
		}
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	b := inbox{limit: 3, maxBytes: 10 + 2*CommandSize(&commands("")[0])}
	if !roomy(b.put(commands("1234", "5678"))) {
		t.Error("two of three commands, 8 of 10 bytes: no room")
	}
	room := b.put(commands("larger than the bound"))
	if roomy(room) || roomy(b.roomy()) {
		t.Error("three of three commands: there is room")
	}
	if got, left := b.take(1, 100); texts(got) != "[1234]" || !left {
		t.Errorf("took %s, left %v", texts(got), left)
	}
	if roomy(room) {
		t.Error("25 of 10 bytes: there is room")
	}
	if got, left := b.take(5, 4); texts(got) != "[5678]" || !left {
		t.Errorf("took %s, left %v", texts(got), left)
	}
	if got, left := b.take(5, 0); len(got) != 0 || !left {
		t.Errorf("took %s, left %v", texts(got), left)
	}
	if got, left := b.take(5, 1); texts(got) != "[larger than the bound]" || left {
		t.Errorf("took %s, left %v", texts(got), left)
	}
	if !roomy(room) || b.bytes != 0 {
		t.Errorf("nothing waits: room %v, %d bytes", roomy(room), b.bytes)
	}
}

// CMD-1, CMD-5: commands come in order, the car is told after each batch, and a
// failed wait keeps what was fetched before (MOD-14).
func TestCommandsAreFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		batches := make(chan []fleet.Command)
		s := &scripted{onWait: func(ctx context.Context) ([]fleet.Command, error) {
			select {
			case b := <-batches:
				if len(b) == 1 {
					return b, errors.New("the rest is broken")
				}
				return b, nil
			case <-ctx.Done():
				return nil, nil
			}
		}}
		notified := 0
		w := start(s, WorkerOptions{Notify: func() { notified++ }})
		batches <- commands("a", "b")
		synctest.Wait()
		batches <- commands("c")
		synctest.Wait()
		if notified != 2 {
			t.Errorf("notified %d times", notified)
		}
		if got := texts(all(w)); got != "[a b c]" {
			t.Errorf("took %s", got)
		}
		if got := all(w); len(got) != 0 {
			t.Errorf("took %s again", texts(got))
		}
		batches <- commands("d", "e")
		synctest.Wait()
		if n := w.DiscardCommands(); n != 2 { // DEV-3
			t.Errorf("%d discarded", n)
		}
		batches <- commands("f", "g")
		synctest.Wait()
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
		if st := w.Stats(); st.CommandsFetched != 7 || st.CommandsDiscarded != 4 || st.Errors != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

// REC-22: beyond a bound no command is fetched, and none is dropped: the module keeps
// what it has.
func TestCommandsAreBounded(t *testing.T) {
	for _, source := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			made := 0
			more := func() []fleet.Command {
				made++
				return commands(fmt.Sprint(made))
			}
			var instance Instance = &scripted{onWait: func(context.Context) ([]fleet.Command, error) { return more(), nil }}
			if source {
				instance = &pushing{more: more}
			}
			w := NewWorker(instance, 7, WorkerOptions{CommandQueue: 3})
			w.Start()
			synctest.Wait()
			if made != 3 {
				t.Errorf("%d commands were fetched, want 3", made)
			}
			if got, left := w.TakeCommands(2, 100); texts(got) != "[1 2]" || !left {
				t.Errorf("took %s, left %v", texts(got), left)
			}
			synctest.Wait()
			if got, _ := w.TakeCommands(100, 100); texts(got) != "[3 4 5]" {
				t.Errorf("took %s", texts(got))
			}
			synctest.Wait()
			if st := w.Stats(); st.CommandsDiscarded != 0 || st.CommandsFetched != 8 {
				t.Errorf("stats %+v", st)
			}
			if err := closeWithin(w, time.Second); err != nil { // also while it is full
				t.Error(err)
			}
		})
	}
}

// pushing is an instance that brings its commands.
type pushing struct {
	scripted
	more func() []fleet.Command
}

func (p *pushing) StartCommands(deliver func([]fleet.Command) <-chan struct{}) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			wanted := deliver(p.more())
			if wanted == nil {
				continue
			}
			select {
			case <-wanted:
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// DEF-24: a wait that fails is tried again after 100 ms, doubling to 5 s, with
// jitter; one that succeeds starts over.
func TestPollerBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		s := &scripted{onWait: func(ctx context.Context) ([]fleet.Command, error) {
			at = append(at, time.Now())
			if len(at) == 12 {
				select {
				case <-time.After(time.Second): // a wait as it should be
				case <-ctx.Done():
				}
				return nil, nil
			}
			return nil, errors.New("broken")
		}}
		w := start(s, WorkerOptions{})
		time.Sleep(2 * time.Minute)
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
		if len(at) < 14 {
			t.Fatalf("only %d waits", len(at))
		}
		want := 100 * time.Millisecond
		for i := 1; i < 12; i++ {
			if pause := at[i].Sub(at[i-1]); pause < want/2 || pause > want {
				t.Errorf("pause %d is %v, want %v to %v", i, pause, want/2, want)
			}
			want = min(2*want, 5*time.Second)
		}
		if pause := at[13].Sub(at[12]); at[12].Sub(at[11]) != time.Second || pause > 100*time.Millisecond {
			t.Errorf("after a success: waits %v and %v later", at[12].Sub(at[11]), pause)
		}
	})
}

// A library that ignores its timeout and returns at once does not keep a core
// busy; one that brings commands is asked again at once.
func TestPollerDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := 0
		full := 100
		s := &scripted{onWait: func(context.Context) ([]fleet.Command, error) {
			waits++
			if waits <= full {
				return commands("x"), nil
			}
			return nil, nil
		}}
		begin := time.Now()
		var filled time.Duration
		w := start(s, WorkerOptions{Notify: func() { filled = time.Since(begin) }})
		time.Sleep(10 * time.Second)
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
		if filled != 0 {
			t.Errorf("%d commands took %v", full, filled)
		}
		if empty := waits - full; empty < 150 || empty > 250 {
			t.Errorf("%d empty waits in 10 s", empty)
		}
	})
}

// MOD-15: a wait inside a library that does not return holds up neither the
// calls nor the stop.
func TestStuckPoller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &scripted{onWait: func(context.Context) ([]fleet.Command, error) { <-release; return commands("late"), nil }}
		w := start(s, WorkerOptions{})
		w.ForwardStatus(button, status(1), nil)
		begin := time.Now()
		if err := closeWithin(w, 2*time.Second); err != nil {
			t.Error(err) // the instance decides what a stuck wait means
		}
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("close took %v", d)
		}
		if got := s.made(); !slices.Equal(got, []string{"status button 1", "close"}) {
			t.Errorf("calls %q", got)
		}
		close(release)
	})
}

// all takes all commands that wait.
func all(w *Worker) []fleet.Command {
	commands, _ := w.TakeCommands(math.MaxInt, math.MaxInt)
	return commands
}
