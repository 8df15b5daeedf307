package module

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate()
		enter := func(timeout time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			return g.Enter(ctx, Calling, "b")
		}
		if err := g.Enter(t.Context(), Calling, "a"); err != nil {
			t.Fatal(err)
		}
		if err := g.Enter(t.Context(), Waiting, "wait"); err != nil {
			t.Errorf("the other lane: %v", err)
		}
		if err := enter(time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a lane that is taken: %v", err)
		}
		if g.Leave(Calling) {
			t.Error("abandoned, although open")
		}
		if err := enter(0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a context that has ended: %v", err)
		}
		if err := enter(time.Second); err != nil {
			t.Errorf("a lane that is free: %v", err)
		}
		waiting := make(chan error, 1)
		go func() { waiting <- enter(time.Hour) }()
		synctest.Wait()
		if !g.Shut() || g.Shut() {
			t.Error("Shut is not true for the first alone")
		}
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Errorf("who waits: %v", err)
		}
		for _, timeout := range []time.Duration{0, time.Second} {
			if err := enter(timeout); !errors.Is(err, ErrClosed) {
				t.Errorf("a shut gate: %v", err)
			}
		}
		drained := make(chan string, 1)
		done := make(chan struct{})
		go func() { drained <- g.Drain(done, Opening, Calling, Waiting) }()
		synctest.Wait()
		if got := g.Busy(); got != "b" {
			t.Errorf("busy with %q", got)
		}
		if g.Leave(Calling) {
			t.Error("abandoned, although Drain waits")
		}
		synctest.Wait()
		close(done)
		if got := <-drained; got != "wait" {
			t.Errorf("stuck in %q", got)
		}
		if !g.Leave(Waiting) {
			t.Error("nobody is told of what was abandoned")
		}
		if got := g.Busy(); got != "" {
			t.Errorf("busy with %q at the end", got)
		}
	})
}

// TestGateModel plays random histories, one step at a time, against what the state
// diagram promises.
func TestGateModel(t *testing.T) {
	steps := rapid.SliceOfN(rapid.SampledFrom([]string{"enter", "enter", "leave", "leave", "give up", "shut", "drain", "drain ends"}), 1, 40)
	rapid.Check(t, func(rt *rapid.T) {
		history := steps.Draw(rt, "history")
		lanesOf := rapid.SliceOfN(rapid.SampledFrom([]Lane{Opening, Calling, Waiting}), len(history), len(history)).Draw(rt, "lanes")
		var fault error
		synctest.Test(t, func(t *testing.T) { fault = play(t.Context(), history, lanesOf) })
		if fault != nil {
			rt.Fatal(fault)
		}
	})
}

// entrant is a goroutine that waits at the gate or is inside.
type entrant struct {
	lane   Lane
	cancel context.CancelFunc
	result chan error // of Enter
}

func (e *entrant) verdict() (err error, ok bool) {
	select {
	case err = <-e.result:
		return err, true
	default:
		return nil, false
	}
}

func play(ctx context.Context, history []string, on []Lane) error {
	g := NewGate()
	var outside []*entrant     // in the order in which they came
	var inside [lanes]*entrant // the model: one at a time
	var shut, drains, drained, abandoned bool
	stop, verdict := make(chan struct{}), make(chan string, 1)
	defer func() {
		for _, e := range outside {
			e.cancel()
		}
		for lane, e := range inside {
			if e != nil {
				e.cancel()
				g.Leave(Lane(lane))
			}
		}
		if drains && !drained && !abandoned {
			close(stop)
		}
		synctest.Wait()
	}()
	for n, step := range history {
		lane := on[n]
		fail := func(format string, args ...any) error {
			return fmt.Errorf("step %d (%s, lane %d) of %v: %s", n, step, lane, history, fmt.Sprintf(format, args...))
		}
		var gaveUp *entrant
		switch step {
		case "enter":
			own, cancel := context.WithCancel(ctx)
			e := &entrant{lane: lane, cancel: cancel, result: make(chan error, 1)}
			outside = append(outside, e)
			go func() { e.result <- g.Enter(own, lane, "op") }()
		case "leave":
			if inside[lane] == nil {
				continue
			}
			inside[lane].cancel()
			inside[lane] = nil
			if got := g.Leave(lane); got != abandoned {
				return fail("Leave told %t", got)
			}
		case "give up":
			if len(outside) == 0 {
				continue
			}
			gaveUp = outside[0]
			gaveUp.cancel()
		case "shut":
			if got := g.Shut(); got == shut {
				return fail("Shut told %t", got)
			}
			shut = true
		case "drain":
			if !shut || drains {
				continue
			}
			drains = true
			go func() { verdict <- g.Drain(stop, Opening, Calling, Waiting) }()
		case "drain ends":
			if !drains || drained || abandoned {
				continue
			}
			close(stop)
		}
		synctest.Wait()
		busy := slices.ContainsFunc(inside[:], func(e *entrant) bool { return e != nil })
		outside = slices.DeleteFunc(outside, func(e *entrant) bool {
			err, ok := e.verdict()
			switch {
			case !ok:
				return false
			case err == nil:
				e.result <- nil // looked at below
				return false
			}
			e.cancel()
			return true
		})
		for i := 0; i < len(outside); {
			e := outside[i]
			_, ok := e.verdict()
			switch {
			case !ok && (shut || inside[e.lane] == nil):
				return fail("one waits, although it need not")
			case !ok:
				i++
				continue
			case shut && step != "shut" || inside[e.lane] != nil:
				return fail("one was let in")
			}
			inside[e.lane] = e
			outside = slices.Delete(outside, i, i+1)
		}
		if gaveUp != nil && slices.Contains(outside, gaveUp) {
			return fail("one waits after giving up")
		}
		select {
		case stuck := <-verdict:
			if stuck == "" && busy || stuck != "" && !busy {
				return fail("drained with verdict %q", stuck)
			}
			drained, abandoned = stuck == "", stuck != ""
		default:
			if drains && !drained && !abandoned && !busy {
				return fail("not drained")
			}
		}
	}
	return nil
}
