package module

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/testlog"
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
				if got := texts(w.TakeCommands()); got != "["+strings.TrimSpace(strings.Repeat("before after ", 5))+"]" {
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

// Waiting commands are bounded by their bytes, too: the oldest give way.
func TestWaitingCommandsAreBoundedInBytes(t *testing.T) {
	b := inbox{limit: 100, maxBytes: 10}
	if over := b.put(commands("1234", "5678")); over != 0 {
		t.Errorf("%d dropped", over)
	}
	if over := b.put(commands("abcd", "e")); over != 1 || b.bytes != 9 {
		t.Errorf("%d dropped, %d bytes left", over, b.bytes)
	}
	if over := b.put(commands("larger than the bound")); over != 3 {
		t.Errorf("%d dropped", over)
	}
	if got := texts(b.take()); got != "[larger than the bound]" || b.bytes != 0 {
		t.Errorf("took %s, %d bytes left", got, b.bytes)
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
		if got := texts(w.TakeCommands()); got != "[a b c]" {
			t.Errorf("took %s", got)
		}
		if got := w.TakeCommands(); len(got) != 0 {
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

// REC-22: commands nobody takes do not pile up; the oldest give way.
func TestCommandsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		batches := make(chan []fleet.Command)
		s := &scripted{onWait: func(ctx context.Context) ([]fleet.Command, error) {
			select {
			case b := <-batches:
				return b, nil
			case <-ctx.Done():
				return nil, nil
			}
		}}
		w := start(s, WorkerOptions{CommandQueue: 3})
		batches <- commands("a", "b")
		batches <- commands("c", "d")
		batches <- commands("e")
		synctest.Wait()
		if got := texts(w.TakeCommands()); got != "[c d e]" {
			t.Errorf("took %s", got)
		}
		if st := w.Stats(); st.CommandsDiscarded != 2 {
			t.Errorf("stats %+v", st)
		}
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
	})
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
