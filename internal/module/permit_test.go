package module

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wall is a Permit that a test opens and closes.
type wall struct {
	mu   sync.Mutex
	open chan struct{}
}

func newWall(open bool) *wall {
	w := &wall{open: make(chan struct{})}
	if open {
		close(w.open)
	}
	return w
}

func (w *wall) gate() chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open
}

func (w *wall) shut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = make(chan struct{})
}

func (w *wall) Granted() bool {
	select {
	case <-w.gate():
		return true
	default:
		return false
	}
}

func (w *wall) Wait(ctx context.Context) error {
	select {
	case <-w.gate():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Without permit nothing is called, and everything in its order as soon as there is one.
func TestPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, window := range []int{0, 2} {
			p := newWall(false)
			var made func() []string
			var w *Worker
			want := []string{"connected button", "status button 1", "status button 2"}
			if window == 0 {
				s := &scripted{}
				made, w = s.made, start(s, WorkerOptions{Permit: p})
			} else {
				var f *forwarder
				f, w = startForwarder(window, WorkerOptions{Permit: p})
				made = f.made
				// The first call after a wait is made as any other.
				want = []string{"connected button", "forward button 1", "forward button 2"}
				defer func() {
					f.answer(nil)
					f.answer(nil)
					if err := closeWithin(w, time.Second); err != nil {
						t.Error(err)
					}
				}()
			}
			w.DeviceConnected(button, func(error) {})
			w.ForwardStatus(button, status(1), nil)
			w.ForwardStatus(button, status(2), nil)
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := made(); len(got) > 0 {
				t.Errorf("without permit %q were called", got)
			}
			close(p.gate())
			synctest.Wait()
			if got := made(); !slices.Equal(got, want) {
				t.Errorf("calls %q, want %q", got, want)
			}
			if window > 0 {
				continue
			}
			if err := closeWithin(w, time.Second); err != nil {
				t.Error(err)
			}
		}
	})
}

// What waits for a permit when the worker is abandoned is never called, also when the permit comes then; Suspend does not
// wait for it, and nothing is lost.
func TestPermitThatDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, confirmed := newWall(true), 0
		s := &scripted{}
		w := start(s, WorkerOptions{Permit: p, Confirmed: func(uint64) { confirmed++ }})
		p.shut()
		refused := 0
		w.DeviceConnected(button, func(error) { refused++ })
		w.ForwardStatus(button, status(1), nil)
		synctest.Wait()
		w.Abandon()
		close(p.gate())
		synctest.Wait()
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
		if got := s.made(); !slices.Equal(got, []string{"close"}) || refused != 1 || confirmed != 0 {
			t.Errorf("calls %q, %d connects refused, %d statuses confirmed", got, refused, confirmed)
		}

		p, s = newWall(false), &scripted{}
		w = start(s, WorkerOptions{Permit: p, Confirmed: func(uint64) { confirmed++ }})
		w.ForwardStatus(button, status(1), nil)
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := w.Suspend(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("Suspend took %v", took)
		}
		if got := s.made(); !slices.Equal(got, []string{"close"}) || w.Stats().Lost != 0 || confirmed != 0 {
			t.Errorf("calls %q, lost %d, %d statuses confirmed", got, w.Stats().Lost, confirmed)
		}
	})
}
