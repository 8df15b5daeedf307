package module

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/support/testlog"
)

// holding is a Holder: a module with commands of its own.
type holding struct {
	scripted
	never     bool          // Holds says no
	deaf      time.Duration // how long a wait takes at least, whatever its timeout
	each      bool          // every wait finds a command
	brief     int           // requests of that patience
	mu        sync.Mutex
	held      []string
	pushed    chan struct{}
	asking    int
	requests  int
	exclusive bool          // no two requests at a time so far
	hurried   bool          // EndPolls was called
	last      time.Duration // how long the request then still takes
}

func newHolding() *holding { return &holding{pushed: make(chan struct{}, 100), exclusive: true} }

func (h *holding) Holds() bool { return !h.never }

func (h *holding) push(names ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = append(h.held, names...)
	h.pushed <- struct{}{}
}

func (h *holding) take() []fleet.Command {
	h.mu.Lock()
	defer h.mu.Unlock()
	got := commands(h.held...)
	h.held = nil
	return got
}

func (h *holding) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	return h.FetchCommands(ctx, Interval)
}

func (h *holding) FetchCommands(ctx context.Context, patience Patience) ([]fleet.Command, error) {
	h.mu.Lock()
	h.asking++
	h.requests++
	if patience == Brief {
		h.brief++
	}
	h.exclusive = h.exclusive && h.asking == 1
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.asking--
		h.mu.Unlock()
	}()
	if h.each {
		return commands("again"), nil
	}
	var timeout <-chan time.Time
	switch patience {
	case Interval:
		timeout = time.After(max(h.deaf, time.Second))
	case Brief:
		timeout = time.After(max(h.deaf, BriefWait))
	}
	for {
		h.mu.Lock()
		hurried := h.hurried
		h.mu.Unlock()
		if hurried && timeout == nil {
			timeout = time.After(h.last)
		}
		if got := h.take(); len(got) > 0 {
			return got, nil
		}
		select {
		case <-h.pushed:
		case <-timeout:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *holding) state() (asking, requests, brief int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asking, h.requests, h.brief
}

func startHolding(h *holding, opts WorkerOptions) *Worker {
	w := NewWorker(h, 7, opts)
	w.Start()
	synctest.Wait()
	return w
}

// come connects the device as the first one of its module, leave disconnects it.
func come(w *Worker, d fleet.Device) {
	w.DiscardCommands()
	w.DeviceConnected(d, func(error) {})
	synctest.Wait()
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func leave(w *Worker, d fleet.Device) {
	w.DeviceDisconnected(fleet.DisconnectTimeout, d)
	synctest.Wait()
}

// A module without devices is asked for nothing. What it holds when the first device
// comes is stale (DEV-3, DEF-38) and gone before it hears of the device; it is asked
// once for the next commands, as long as there are devices and a while longer.
func TestCommandsAreFetchedForDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		h := newHolding()
		var connectedWith []string
		h.onCall = func(context.Context, string) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			connectedWith = slices.Clone(h.held)
			return nil
		}
		stale := 0
		w := startHolding(h, WorkerOptions{Logger: log.Logger(), Stale: func(n int) { stale += n }})
		h.push("old", "older")
		pass(time.Hour)
		if asking, requests, _ := h.state(); asking != 0 || requests != 0 {
			t.Fatalf("%d requests without device", requests)
		}

		come(w, button)
		pass(time.Minute)
		if stale != 2 || len(connectedWith) != 0 || len(all(w)) != 0 {
			t.Errorf("%d stale commands, %v left at device_connected", stale, connectedWith)
		}
		if st := w.Stats(); st.CommandsFetched != 2 || st.CommandsDiscarded != 2 {
			t.Errorf("stats %+v", st)
		}
		if !log.Has("level=INFO", "commands=2", "time without device were discarded") {
			t.Errorf("log:\n%s", &log)
		}
		_, before, _ := h.state()
		h.push("new")
		synctest.Wait()
		if got := texts(all(w)); got != "[new]" {
			t.Errorf("took %s", got)
		}
		pass(time.Hour)
		if asking, requests, _ := h.state(); asking != 1 || requests != before+1 {
			t.Errorf("%d under way, %d requests for one batch in an hour", asking, requests-before)
		}

		second := button
		second.Role = "second"
		w.DeviceConnected(second, func(error) {})
		leave(w, button)
		pass(2 * lingerPolls)
		if asking, _, _ := h.state(); asking != 1 {
			t.Error("not asked although a device is left")
		}
		leave(w, second)
		pass(lingerPolls - time.Second)
		if asking, _, _ := h.state(); asking != 1 {
			t.Error("a gateway that connects anew would find no poll")
		}
		pass(2 * time.Second)
		if asking, _, _ := h.state(); asking != 0 {
			t.Error("still asked without device")
		}
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// A session that goes on after a restart or with other contexts wants what was issued
// meanwhile (RES-13): its car does not discard.
func TestCommandsOfAContinuedSessionAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		w := startHolding(h, WorkerOptions{})
		h.push("issued meanwhile")
		w.DeviceConnected(button, func(error) {})
		synctest.Wait()
		if got := texts(all(w)); got != "[issued meanwhile]" {
			t.Errorf("took %s", got)
		}
		_ = closeWithin(w, time.Second)
	})
}

// A gateway that connects anew soon finds the poll under way; later it finds another
// one, and one at a time asks.
func TestDevicesReturn(t *testing.T) {
	for _, pause := range []time.Duration{time.Millisecond, lingerPolls / 2, lingerPolls, lingerPolls + time.Millisecond, 3 * lingerPolls} {
		synctest.Test(t, func(t *testing.T) {
			h := newHolding()
			w := startHolding(h, WorkerOptions{})
			for range 5 {
				come(w, button)
				leave(w, button)
				pass(pause)
			}
			come(w, button)
			pass(time.Minute)
			h.push("x")
			synctest.Wait()
			if got := texts(all(w)); got != "[x]" || !h.exclusive {
				t.Errorf("after %v: took %s, exclusive %v", pause, got, h.exclusive)
			}
			if _, _, brief := h.state(); pause < lingerPolls && brief != 1 {
				t.Errorf("after %v: drained %d times", pause, brief)
			}
			_ = closeWithin(w, time.Second)
		})
	}
}

// MOD-15: a library that ignores the timeout delays the first device_connected by
// drainLimit at most. It holds nothing, or it would have said so: what it brings
// later is new.
func TestModuleThatIgnoresTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		h.deaf = 30 * time.Second
		w := startHolding(h, WorkerOptions{})
		begin := time.Now()
		var took time.Duration
		w.DiscardCommands()
		w.DeviceConnected(button, func(error) { took = time.Since(begin) })
		pass(2 * drainLimit)
		if took != drainLimit {
			t.Errorf("device_connected came after %v", took)
		}
		h.push("new")
		synctest.Wait()
		if got := texts(all(w)); got != "[new]" {
			t.Errorf("took %s", got)
		}
		_ = closeWithin(w, time.Second)
	})
}

// A module that makes a command with every wait cannot keep a device waiting.
func TestModuleThatAlwaysHasCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		h := newHolding()
		h.each = true
		w := startHolding(h, WorkerOptions{Logger: log.Logger(), CommandQueue: 3})
		come(w, button)
		if !slices.Contains(h.made(), "connected button") || !log.Has("level=WARN", "always has commands") {
			t.Errorf("calls %q, log:\n%s", h.made(), &log)
		}
		if st := w.Stats(); st.CommandsDiscarded != drainRounds {
			t.Errorf("stats %+v", st)
		}
		_ = closeWithin(w, time.Second)
	})
}

// A device that the module refuses is none: the poll ends again.
func TestRefusedDeviceKeepsNoPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		h.onCall = func(context.Context, string) error { return errors.New("refused") }
		w := startHolding(h, WorkerOptions{})
		come(w, button)
		pass(lingerPolls + time.Second)
		if asking, _, _ := h.state(); asking != 0 {
			t.Error("still asked")
		}
		_ = closeWithin(w, time.Second)
	})
}

// A program that does not know polls that are held is asked all the time, as ever.
func TestProgramThatHoldsNoPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		h.never = true
		w := startHolding(h, WorkerOptions{})
		pass(10*time.Second + time.Millisecond)
		if _, requests, _ := h.state(); requests != 11 {
			t.Errorf("%d requests in 10 s", requests)
		}
		come(w, button)
		if _, _, brief := h.state(); brief != 0 {
			t.Errorf("%d short requests", brief)
		}
		_ = closeWithin(w, time.Second)
	})
}

// The stop ends the poll in whatever state it is, and a module that does not let go of
// it holds up neither the calls nor the stop.
func TestStopEndsHeldPolls(t *testing.T) {
	for name, prepare := range map[string]func(*Worker){
		"never begun": func(*Worker) {},
		"polling":     func(w *Worker) { come(w, button) },
		"lingering":   func(w *Worker) { come(w, button); leave(w, button) },
		"ended":       func(w *Worker) { come(w, button); leave(w, button); pass(2 * lingerPolls) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHolding()
				w := startHolding(h, WorkerOptions{})
				prepare(w)
				begin := time.Now()
				if err := closeWithin(w, time.Second); err != nil || time.Since(begin) != 0 {
					t.Errorf("close took %v: %v", time.Since(begin), err)
				}
				if asking, _, _ := h.state(); asking != 0 {
					t.Error("a request is still under way")
				}
			})
		})
	}
}

// EndPolls makes the request that is held the last one: what it brings is handed out.
func (h *holding) EndPolls() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hurried = true
	select {
	case h.pushed <- struct{}{}:
	default:
	}
}

// The last request brings what it can before a worker is suspended, and no other follows,
// whatever the kind of module.
func TestEndPolling(t *testing.T) {
	for name, prepare := range map[string]func(*Worker, *holding){
		"never begun": func(*Worker, *holding) {},
		"polling":     func(w *Worker, _ *holding) { come(w, button); pass(time.Minute) },
		"lingering":   func(w *Worker, _ *holding) { come(w, button); pass(time.Minute); leave(w, button) },
		"ended":       func(w *Worker, _ *holding) { come(w, button); leave(w, button); pass(2 * lingerPolls) },
		"interval":    func(_ *Worker, h *holding) { h.never = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHolding()
				h.never = name == "interval"
				h.last = 500 * time.Millisecond
				w := startHolding(h, WorkerOptions{})
				prepare(w, h)
				asking, _, _ := h.state()
				begin := time.Now()
				ended := w.EndPolling()
				if asking > 0 {
					h.push("last")
				}
				<-ended
				if took := time.Since(begin); took > time.Second {
					t.Errorf("the polls end after %v", took)
				}
				want := "[]"
				if asking > 0 {
					want = "[last]"
				}
				if got := texts(all(w)); got != want {
					t.Errorf("took %s, want %s", got, want)
				}
				_, before, _ := h.state()
				come(w, button)
				pass(time.Minute)
				if asking, requests, _ := h.state(); asking != 0 || requests != before {
					t.Errorf("%d requests after the last one", requests-before)
				}
				if err := closeWithin(w, time.Second); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A module that does not come back keeps the caller waiting, who gives up, and Close ends
// it as ever.
func TestEndPollingOfAStuckModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolding()
		h.last = time.Hour
		w := startHolding(h, WorkerOptions{})
		come(w, button)
		pass(time.Minute)
		select {
		case <-w.EndPolling():
			t.Error("the poll has ended")
		case <-time.After(time.Second):
		}
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
	})
}
