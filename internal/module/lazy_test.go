package module

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// opener is a Module whose Open a test decides.
type opener struct {
	open func(ctx context.Context) (Instance, error)
}

func (opener) Number() int32        { return 7 }
func (opener) Supports(uint32) bool { return true }
func (opener) Close() error         { return nil }
func (o opener) Open(ctx context.Context, _ InstanceSpec) (Instance, error) {
	return o.open(ctx)
}

// A lazy instance is opened once, although the calls and the poller come at the
// same time, and closed with its wrapper.
func TestLazyOpensOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		opened := 0
		w := NewWorker(Lazy(opener{func(context.Context) (Instance, error) {
			opened++
			time.Sleep(time.Second)
			return s, nil
		}}, InstanceSpec{}), 7, WorkerOptions{})
		w.Start()
		w.DeviceConnected(button, func(err error) {
			if err != nil {
				t.Error(err)
			}
		})
		time.Sleep(2 * time.Second)
		if err := closeWithin(w, time.Second); err != nil {
			t.Error(err)
		}
		if got := s.made(); opened != 1 || !slices.Equal(got, []string{"connected button", "close"}) {
			t.Errorf("opened %d times, calls %q", opened, got)
		}
	})
}

// An instance that cannot be opened is tried again with the next call; a closed
// one is not.
func TestLazyTriesAgain(t *testing.T) {
	s := &scripted{}
	broken := errors.New("init returned NULL")
	err := broken
	l := Lazy(opener{func(context.Context) (Instance, error) { return s, err }}, InstanceSpec{})
	if got := l.DeviceConnected(t.Context(), button); !errors.Is(got, broken) {
		t.Errorf("first call: %v", got)
	}
	err = nil
	if got := l.ForwardStatus(t.Context(), button, status(1)); got != nil {
		t.Errorf("second call: %v", got)
	}
	if got := l.Close(t.Context()); got != nil {
		t.Errorf("close: %v", got)
	}
	if got := l.CommandAck(t.Context(), commands("x")[0]); got == nil {
		t.Error("a closed instance takes calls")
	}
	if got := s.made(); !slices.Equal(got, []string{"status button 1", "close"}) {
		t.Errorf("calls %q", got)
	}
}

// A context that is never created does not hold up the stop.
func TestLazyStuckWhileOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &scripted{}
		w := NewWorker(Lazy(opener{func(context.Context) (Instance, error) { <-release; return s, nil }}, InstanceSpec{}), 7, WorkerOptions{})
		w.Start()
		synctest.Wait()
		begin := time.Now()
		if err := closeWithin(w, time.Second); !errors.Is(err, ErrStuck) {
			t.Errorf("close: %v", err)
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("close took %v", d)
		}
		close(release)
		synctest.Wait()
		if got := s.made(); !slices.Equal(got, []string{"close"}) {
			t.Errorf("calls of what was opened too late: %q", got)
		}
	})
}

// A context that comes into being after Close has given up is destroyed and not
// called, also when the call that made it goes on.
func TestLazyOpenedAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &scripted{}
		l := Lazy(opener{func(context.Context) (Instance, error) { <-release; return s, nil }}, InstanceSpec{})
		called := make(chan error, 1)
		go func() { called <- l.DeviceConnected(context.Background(), button) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, ErrStuck) {
			t.Errorf("close: %v", err)
		}
		close(release)
		if err := <-called; err == nil {
			t.Error("the call succeeded after Close")
		}
		if got := s.made(); !slices.Equal(got, []string{"close"}) {
			t.Errorf("calls %q", got)
		}
	})
}

// A Close that still waits closes what the opening under way brings.
func TestLazyCloseWaitsForOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{}
		l := Lazy(opener{func(context.Context) (Instance, error) { time.Sleep(time.Second); return s, nil }}, InstanceSpec{})
		called := make(chan error, 1)
		go func() { called <- l.DeviceConnected(context.Background(), button) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-called; err == nil {
			t.Error("the call succeeded after Close")
		}
		if got := s.made(); !slices.Equal(got, []string{"close"}) {
			t.Errorf("calls %q", got)
		}
	})
}

// Close with a context that has ended, as after a call that was stuck or a reload
// that failed, still does all that needs no waiting.
func TestLazyCloseAfterItsDeadline(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // a choice by chance shows
		s := &scripted{}
		opens := opener{func(context.Context) (Instance, error) { return s, nil }}
		l := Lazy(opens, InstanceSpec{})
		if err := l.DeviceConnected(t.Context(), button); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(ended); err != nil {
			t.Fatalf("close: %v", err)
		}
		if got := s.made(); !slices.Equal(got, []string{"connected button", "close"}) {
			t.Fatalf("calls %q", got)
		}
		if err := Lazy(opens, InstanceSpec{}).Close(ended); err != nil {
			t.Fatalf("close of what was never opened: %v", err)
		}
	}
}

// Polls are not held once EndPolls was called, whenever the instance is opened.
func TestLazyEndPolls(t *testing.T) {
	for _, opened := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := newHolding()
			l := Lazy(opener{func(context.Context) (Instance, error) { return h, nil }}, InstanceSpec{}).(*lazy)
			if opened {
				if err := l.open(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			l.EndPolls()
			begin := time.Now()
			if _, err := l.FetchCommands(t.Context(), Held); err != nil || time.Since(begin) > time.Second {
				t.Errorf("opened %v: %v after %v", opened, err, time.Since(begin))
			}
		})
	}
}
