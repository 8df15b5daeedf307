package module

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
)

// REC-8, STAT-30: the order of the calls is the order in which they were queued,
// and they are made one at a time.
func TestOrderOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		w := start(s, WorkerOptions{})
		var admitted []error
		w.DeviceConnected(button, func(err error) { admitted = append(admitted, err) })
		w.ForwardStatus(button, status(1), nil)
		w.ForwardStatus(button, status(2), []byte("broken"))
		w.CommandAck(fleet.Command{Device: button, Data: []byte("go")})
		w.DeviceDisconnected(fleet.DisconnectAnnounced, button)
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
		want := []string{"connected button", "status button 1", "status button 2", "error button broken", "ack button go",
			"disconnected button announced", "close"}
		if got := s.made(); !slices.Equal(got, want) {
			t.Errorf("calls\n got %q\nwant %q", got, want)
		}
		if len(admitted) != 1 || admitted[0] != nil {
			t.Errorf("results of device_connected: %v", admitted)
		}
		if st := w.Stats(); st.Statuses != 2 || st.Queued != 0 || st.Errors != 0 || st.Lost != 0 {
			t.Errorf("stats %+v", st)
		}
		if w.ForwardStatus(button, status(3), nil) || w.Free() != 0 || w.DeviceConnected(button, nil) {
			t.Error("a closed worker takes jobs")
		}
	})
}

// An answer is a promise, so the queue says how much it takes, takes
// exactly that, and a call under way still counts.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &scripted{onCall: func(context.Context, string) error { <-release; return nil }}
		w := start(s, WorkerOptions{QueueSize: 3})
		for i := range 3 {
			if free := w.Free(); free != 3-i {
				t.Errorf("free is %d, want %d", free, 3-i)
			}
			if !w.ForwardStatus(button, status(i), nil) {
				t.Errorf("status %d was refused", i)
			}
			synctest.Wait()
		}
		if w.Free() != 0 || w.ForwardStatus(button, status(3), nil) {
			t.Error("a full queue takes a status")
		}
		// Life of devices and as many acknowledgements as statuses still fit.
		for i := range 4 {
			if ok := w.CommandAck(fleet.Command{Device: button}); ok != (i < 3) {
				t.Errorf("acknowledgement %d: %v", i, ok)
			}
		}
		if !w.DeviceDisconnected(fleet.DisconnectTimeout, button) || !w.DeviceConnected(button, func(error) {}) {
			t.Error("the life of a device was refused")
		}
		time.Sleep(time.Minute)
		if st := w.Stats(); st.Queued != 8 || time.Since(st.OldestQueued) != time.Minute || st.AcksDropped != 1 {
			t.Errorf("stats %+v", st)
		}
		close(release)
		synctest.Wait()
		if w.Free() != 3 || w.Stats().Queued != 0 {
			t.Errorf("after the calls: free %d, stats %+v", w.Free(), w.Stats())
		}
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// Large statuses fill the queue by their bytes.
func TestQueueIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &scripted{onCall: func(context.Context, string) error { <-release; return nil }}
		w := start(s, WorkerOptions{QueueBytes: 100})
		w.ForwardStatus(button, make([]byte, 60), nil)
		if w.Free() != 999 {
			t.Errorf("free is %d", w.Free())
		}
		w.ForwardStatus(button, make([]byte, 10), make([]byte, 16)) // and twice the button's texts
		if w.Free() != 0 {
			t.Errorf("free is %d with 100 bytes queued", w.Free())
		}
		close(release)
		synctest.Wait()
		if w.Free() != 1000 {
			t.Errorf("free is %d when everything was delivered", w.Free())
		}
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// A gateway that connects again and again while the module hangs does not fill the
// memory. What the module hears in the end is whole: each device is connected
// before its statuses and disconnected after them.
func TestAdmissionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices, sessions = 20, 100
		release := make(chan struct{})
		s := &scripted{onCall: func(context.Context, string) error { <-release; return nil }}
		w := start(s, WorkerOptions{})
		device := func(n int) fleet.Device { return fleet.Device{Module: 7, Type: 1, Role: fmt.Sprint("d", n)} }
		answered := 0
		most := 0
		for session := range sessions {
			for n := range devices {
				w.DeviceConnected(device(n), func(error) { answered++ })
				synctest.Wait() // the first one is under way from here on
			}
			if session%10 == 3 {
				w.ForwardStatus(device(session%devices), status(session), nil)
			}
			most = max(most, w.Stats().Queued)
			for n := range devices {
				w.DeviceDisconnected(fleet.DisconnectTimeout, device(n))
			}
		}
		left := w.Stats().Queued
		if most > 60 || left > 40 {
			t.Errorf("up to %d jobs waited, %d in the end", most, left)
		}
		close(release)
		if err := closeWithin(w, time.Minute); err != nil {
			t.Error(err)
		}
		var want []string
		calls := s.made()
		want = append(want, "connected d0", fmt.Sprintf("disconnected d0 %v", fleet.DisconnectTimeout))
		for session := 3; session < sessions; session += 10 {
			d := device(session % devices).Role
			want = append(want, "connected "+d, fmt.Sprintf("status %s %d", d, session), fmt.Sprintf("disconnected %s %v", d, fleet.DisconnectTimeout))
		}
		if want = append(want, "close"); !slices.Equal(calls, want) {
			t.Errorf("calls %q\nwant  %q", calls, want)
		}
		if connected := 1 + sessions/10; answered != connected {
			t.Errorf("%d admissions answered, want %d", answered, connected)
		}
	})
}

// MOD-15, CLI-24: a call that never returns does not hold up the stop; what it
// keeps from the module is counted once, and when it does return at last,
// nothing happens.
func TestStuckCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &scripted{onCall: func(context.Context, string) error { <-release; return nil }}
		w := start(s, WorkerOptions{})
		var refused error
		w.ForwardStatus(button, status(1), nil)
		w.ForwardStatus(button, status(2), nil)
		w.DeviceConnected(button, func(err error) { refused = err })
		synctest.Wait()
		begin := time.Now()
		err := closeWithin(w, 4*time.Second)
		if d := time.Since(begin); d != 4*time.Second {
			t.Errorf("close took %v", d)
		}
		if !errors.Is(err, ErrStuck) || !strings.Contains(err.Error(), "2 answered statuses were not delivered") {
			t.Errorf("close: %v", err)
		}
		if st := w.Stats(); st.Lost != 2 || st.Queued != 0 {
			t.Errorf("stats %+v", st)
		}
		if refused == nil {
			t.Error("nobody was told about the device that waited")
		}
		close(release)
		synctest.Wait()
		if got := s.made(); !slices.Equal(got, []string{"status button 1", "close"}) {
			t.Errorf("calls %q", got)
		}
		if st := w.Stats(); st.Lost != 2 {
			t.Errorf("stats afterwards %+v", st)
		}
	})
}

// A module written in Go returns when its context ends: then nothing is stuck,
// and there is time to close the instance.
func TestCallsAreCancelledAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{onCall: func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return fmt.Errorf("not sent: %w", ctx.Err())
		}}
		w := start(s, WorkerOptions{})
		w.ForwardStatus(button, status(1), nil)
		w.ForwardStatus(button, status(2), nil)
		begin := time.Now()
		err := closeWithin(w, 4*time.Second)
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("close took %v, want three quarters of the time", d)
		}
		if errors.Is(err, ErrStuck) || err == nil || !strings.Contains(err.Error(), "2 answered statuses") {
			t.Errorf("close: %v", err)
		}
		if st := w.Stats(); st.Lost != 2 || st.Statuses != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// A slow module gets what was accepted before the stop.
func TestSlowModuleGetsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{onCall: func(context.Context, string) error { time.Sleep(100 * time.Millisecond); return nil }}
		w := start(s, WorkerOptions{})
		for i := range 20 {
			w.ForwardStatus(button, status(i), nil)
		}
		if err := closeWithin(w, 4*time.Second); err != nil {
			t.Error(err)
		}
		if st := w.Stats(); st.Statuses != 20 || st.Lost != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// A worker that was never started closes its instance, also when there is no time.
func TestCloseWithoutStart(t *testing.T) {
	for range 50 { // a random choice among ready channels must not matter
		s := &scripted{}
		w := NewWorker(s, 7, WorkerOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if got := s.made(); !slices.Equal(got, []string{"close"}) {
			t.Fatalf("calls %q", got)
		}
	}
}

// Errors and panics of a module are counted and logged, limited in rate, and do
// not end anything.
func TestBrokenModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := &scripted{
			onCall: func(_ context.Context, call string) error {
				if strings.HasPrefix(call, "connected") {
					panic("nil map")
				}
				return &CallError{Op: "forward_status", Code: CodeNotOK}
			},
			onWait: func(context.Context) ([]fleet.Command, error) { panic("poller") },
		}
		w := start(s, WorkerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		var refused error
		w.DeviceConnected(button, func(err error) { refused = err })
		for range 100 {
			w.ForwardStatus(button, []byte("x"), []byte("e"))
		}
		w.DeviceDisconnected(fleet.DisconnectError, button)
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
		if refused == nil || !strings.Contains(refused.Error(), "device_connected panicked: nil map") {
			t.Errorf("device_connected: %v", refused)
		}
		if st := w.Stats(); st.Errors < 202 || st.Statuses != 0 || st.Lost != 0 {
			t.Errorf("stats %+v", st)
		}
		out := log.String()
		for want, n := range map[string]int{
			"module did not take the status":                                    1, // STAT-31: both are called
			"module did not take the error message":                             1,
			"module refused the device":                                         1,
			"device is not among the module's connected devices":                1, // MOD-13
			"module=7 error=\"wait_for_command panicked: poller":                1, // of no device
			"component=module module=7":                                         5,
			"device=7/1/button/b error=\"forward_status returned -1 (NOT_OK)\"": 3,
		} {
			if got := strings.Count(out, want); got != n {
				t.Errorf("%q is logged %d times, want %d, in:\n%s", want, got, n, out)
			}
		}
	})
}
