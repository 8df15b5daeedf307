package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Bounds of a reload. A module whose process is being started anew, with
// "max_restarts": 0 for ever, must not hold up what an operator does next.
const (
	reloadStepTimeout = 15 * time.Second       // for the start of a module or one context
	reloadTimeout     = time.Minute            // for everything that can fail, and in addition
	reloadCarTimeout  = 100 * time.Millisecond // for each car of the configuration
	applyTimeout      = 15 * time.Second       // for the end of what is replaced or removed
)

// errStep is the cause of the end of the context of a step.
var errStep = errors.New("not done in time")

// waits notes what a reload waits for, so that its error, and that of the next one,
// can say it. The zero value is ready.
type waits struct {
	step time.Duration // bound of a step; zero: reloadStepTimeout

	mu      sync.Mutex
	what    string
	since   time.Time
	longest string // of the steps that are over
	took    time.Duration
}

// next begins a step, which is described as what it waits for.
func (w *waits) next(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if took := now.Sub(w.since); w.what != "" && took > w.took {
		w.longest, w.took = w.what, took
	}
	w.what, w.since = what, now
}

// within runs a step of a reload with the bound of one. An error that comes from the
// bound, or from that of the whole reload, says for what it was waited how long.
func (w *waits) within(ctx context.Context, what string, step func(context.Context) error) error {
	w.next(what)
	bound, cancel := context.WithTimeoutCause(ctx, cmp.Or(w.step, reloadStepTimeout), errStep)
	defer cancel()
	err := step(bound)
	if err != nil && bound.Err() != nil {
		_, waited := w.now()
		return fmt.Errorf("gave up after %v of waiting for %s: %w (%w)", waited.Round(time.Millisecond), what, err, context.Cause(bound))
	}
	return err
}

// now tells what is being waited for, and for how long already.
func (w *waits) now() (what string, since time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.what, time.Since(w.since)
}

// slowest tells which step took longest.
func (w *waits) slowest() (what string, took time.Duration) {
	w.next("")
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.longest, w.took
}

// gate lets one reload pass at a time. Its methods may be called from any goroutine.
type gate struct {
	passing chan struct{} // capacity 1
	mu      sync.Mutex
	waits   *waits // of the one that passes
}

func newGate() *gate { return &gate{passing: make(chan struct{}, 1)} }

// enter waits until no reload passes; without success it says what that one waits for.
func (g *gate) enter(ctx context.Context, w *waits) error {
	bound, cancel := context.WithTimeoutCause(ctx, cmp.Or(w.step, reloadStepTimeout), errStep)
	defer cancel()
	select {
	case g.passing <- struct{}{}: // nothing has to be waited for, however little time there is
	default:
		select {
		case g.passing <- struct{}{}:
		case <-bound.Done():
			g.mu.Lock()
			other := g.waits
			g.mu.Unlock()
			if other == nil { // it has just ended
				return errors.New("another reload has just ended; try again")
			}
			what, since := other.now()
			return fmt.Errorf("another reload is under way and has been waiting for %s for %v; try again", what, since.Round(time.Millisecond))
		}
	}
	g.mu.Lock()
	g.waits = w
	g.mu.Unlock()
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	g.waits = nil
	g.mu.Unlock()
	<-g.passing
}
