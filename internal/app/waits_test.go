package app

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/app/roster"
)

// restarting is a module whose process is being started anew for ever, when down is
// set: a context cannot be opened until the caller gives up.
func restarting() (m idleModule, down *atomic.Bool, waiting chan struct{}) {
	down, waiting = new(atomic.Bool), make(chan struct{}, 10)
	m.open = func(ctx context.Context) error {
		if !down.Load() {
			return nil
		}
		waiting <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	return m, down, waiting
}

// TestReloadIsBounded: a module that does not come up makes a reload fail in bounded
// time, with an error that says what it waited for; nothing has changed, and the next
// reload works.
func TestReloadIsBounded(t *testing.T) {
	m, down, _ := restarting()
	s := startServer(t, m)
	s.stepLimit = 20 * time.Millisecond
	before := s.Config()
	down.Store(true)
	_, err := s.Reload(context.Background(), s.load(2))
	for _, part := range []string{"of waiting for the modules of car a", "the configuration in force stays unchanged"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
	if s.Config() != before {
		t.Error("another configuration is in force")
	}
	down.Store(false)
	s.stepLimit = 0 // what works has the time that it has in service
	if _, err := s.Reload(context.Background(), s.load(2)); err != nil {
		t.Error(err)
	}
}

// TestGateThatIsOpen: a reload that finds no other one under way passes, also when there
// is no time left to wait.
func TestGateThatIsOpen(t *testing.T) {
	g := newGate()
	late, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // the choice between two that are ready is random
		if err := g.enter(late, &waits{}); err != nil {
			t.Fatal(err)
		}
		g.leave()
	}
}

// TestReloadsDoNotQueueForEver: a reload that finds another one under way says what that
// one waits for. The stop of the server ends one that waits.
func TestReloadsDoNotQueueForEver(t *testing.T) {
	m, down, waiting := restarting()
	s := newServer(t, m)
	stop := s.start()
	down.Store(true)
	first := make(chan error, 1)
	cfg := s.load(2)
	go func() {
		_, err := s.Reload(context.Background(), cfg)
		first <- err
	}()
	<-waiting
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Reload(ctx, cfg); err == nil || !strings.Contains(err.Error(), "another reload is under way and has been waiting for the modules of car a") {
		t.Errorf("the second reload: %v", err)
	}
	stop()
	if err := <-first; !errors.Is(err, roster.ErrStops) {
		t.Errorf("the first reload: %v", err)
	}
}

// TestReloadSaysWhatWasSlow: the step that took longest is known at the end.
func TestReloadSaysWhatWasSlow(t *testing.T) {
	var w waits
	w.next("a")
	w.since = w.since.Add(-time.Minute)
	w.next("b")
	w.since = w.since.Add(-time.Hour)
	w.next("c")
	if what, took := w.slowest(); what != "b" || took < time.Hour {
		t.Errorf("%s took %v", what, took)
	}
}
