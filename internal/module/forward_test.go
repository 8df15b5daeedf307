package module

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
)

// forwarder is a Forwarder whose statuses are under way until the test answers them.
type forwarder struct {
	*scripted
	window int

	results []func(error) // guarded by scripted.mu
}

func (f *forwarder) Forward(_ context.Context, d fleet.Device, status []byte, done func(error)) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.results) >= f.window {
		return false
	}
	f.calls = append(f.calls, fmt.Sprintf("forward %s %s", d.Role, status))
	f.results = append(f.results, done)
	return true
}

// answer brings the result of the oldest status that is under way.
func (f *forwarder) answer(err error) {
	f.mu.Lock()
	done := f.results[0]
	f.results = f.results[1:]
	f.mu.Unlock()
	done(err)
	synctest.Wait()
}

func startForwarder(window int, opts WorkerOptions) (*forwarder, *Worker) {
	f := &forwarder{scripted: &scripted{}, window: window}
	w := NewWorker(f, 7, opts)
	w.Start()
	synctest.Wait()
	return f, w
}

// Statuses that have come during another one are handed over together, and everything
// else after them: the module hears it in the order in which it came.
func TestForwarder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var confirmed []uint64
		var took []time.Duration
		f, w := startForwarder(2, WorkerOptions{
			Confirmed: func(number uint64) { confirmed = append(confirmed, number) },
			Called: func(c *Call) {
				if c.Kind == CallStatus {
					took = append(took, c.Took)
				}
			},
		})
		for n := range uint64(3) {
			if ok, begin := w.QueueStatus(Status{Device: button, Data: status(int(n)), Number: n}); ok && begin {
				w.Begin()
			}
		}
		w.CommandAck(fleet.Command{Device: button, Data: []byte("go")})
		if ok, begin := w.QueueStatus(Status{Device: button, Data: status(3), Number: 3}); !ok || begin {
			t.Errorf("the last status: %v, begin %v", ok, begin)
		}
		w.ForwardStatus(button, status(4), []byte("broken"))
		synctest.Wait()
		want := []string{"forward button 0"}
		if got := f.made(); !slices.Equal(got, want) {
			t.Errorf("calls %q, expected %q: what comes meanwhile leaves together", got, want)
		}
		if st := w.Stats(); st.Queued != 6 || len(w.Waiting()) != 5 {
			t.Errorf("stats %+v, %d statuses wait", st, len(w.Waiting()))
		}
		time.Sleep(time.Second)
		f.answer(nil)
		want = append(want, "forward button 1", "forward button 2")
		if got := f.made(); !slices.Equal(got, want) {
			t.Errorf("calls %q, expected %q: those that came meanwhile leave together", got, want)
		}
		f.answer(errors.New("no"))
		if got := f.made(); !slices.Equal(got, want) {
			t.Errorf("calls %q, expected %q: an acknowledgement is not called beside a status", got, want)
		}
		f.answer(nil) // and the acknowledgement is called, and then the next status
		want = append(want, "ack button go", "forward button 3")
		if got := f.made(); !slices.Equal(got, want) {
			t.Errorf("calls %q, expected %q", got, want)
		}
		f.answer(nil)
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
		want = append(want, "status button 4", "error button broken", "close")
		if got := f.made(); !slices.Equal(got, want) {
			t.Errorf("calls\n got %q\nwant %q", got, want)
		}
		if st := w.Stats(); st.Statuses != 4 || st.Errors != 1 || st.Lost != 0 || st.Queued != 0 {
			t.Errorf("stats %+v", st)
		}
		if !slices.Equal(confirmed, []uint64{0, 1, 2, 3, 0}) {
			t.Errorf("confirmed %v", confirmed)
		}
		if want := []time.Duration{time.Second, 0, 0, 0, 0}; !slices.Equal(took, want) {
			t.Errorf("took %v, expected %v", took, want)
		}
	})
}

// Statuses whose results do not come are given up at the stop like a call that does not
// come back. A result that comes later changes nothing.
func TestForwarderAtTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := startForwarder(2, WorkerOptions{})
		for i := range 4 {
			w.ForwardStatus(button, status(i), nil)
		}
		f.answer(nil)
		begin := time.Now()
		err := closeWithin(w, 4*time.Second)
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("close took %v, expected three quarters of the time", d)
		}
		if err == nil || !strings.Contains(err.Error(), "3 answered statuses were not delivered") {
			t.Errorf("close: %v", err)
		}
		f.answer(nil)
		f.answer(nil)
		if st := w.Stats(); st.Statuses != 1 || st.Lost != 3 || st.Queued != 0 {
			t.Errorf("stats %+v", st)
		}
		if got := f.made(); !slices.Equal(got, []string{"forward button 0", "forward button 1", "forward button 2", "close"}) {
			t.Errorf("calls %q", got)
		}
	})
}

// A Forwarder that takes nothing, as while its process is replaced, is called like any
// other instance.
func TestForwarderThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := startForwarder(0, WorkerOptions{})
		for i := range 3 {
			w.ForwardStatus(button, status(i), nil)
		}
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
		if got := f.made(); !slices.Equal(got, []string{"status button 0", "status button 1", "status button 2", "close"}) {
			t.Errorf("calls %q", got)
		}
	})
}

// A worker that is suspended waits for the statuses that were handed over: what comes back
// in time is not handed over by the next process again.
func TestForwarderIsSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var confirmed []uint64
		f, w := startForwarder(2, WorkerOptions{Confirmed: func(n uint64) { confirmed = append(confirmed, n) }})
		for n := range uint64(5) {
			if _, begin := w.QueueStatus(Status{Device: button, Number: n}); begin {
				w.Begin()
			}
		}
		f.answer(nil)
		go func() {
			time.Sleep(suspendDelivery + time.Second)
			f.answer(nil)
			f.answer(nil)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		begin := time.Now()
		if err := w.Suspend(ctx); err != nil || time.Since(begin) != suspendDelivery+time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if !slices.Equal(confirmed, []uint64{0, 1, 2}) {
			t.Errorf("confirmed %v", confirmed)
		}
	})
}
