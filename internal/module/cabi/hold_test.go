//go:build cgo

package cabi

import (
	"context"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/support/testwait"
)

// held begins a poll that is held.
func held(ctx context.Context, p *probe) <-chan outcome {
	results := make(chan outcome, 1)
	go func() {
		commands, err := p.inst.(module.Holder).FetchCommands(ctx, module.Held)
		results <- outcome{commands, err}
	}()
	return results
}

// waits is how often wait_for_command was called, with the setting waits=1.
func (p *probe) waits() int {
	n := 0
	for _, line := range p.lines() {
		if line == "wait" {
			n++
		}
	}
	return n
}

// A poll that is held outlasts many timeouts of the library, and ends with a command
// or with its context.
func TestHeldPoll(t *testing.T) {
	p := openProbe(t, "waits=1", "echo=1")
	ctx, cancel := context.WithCancel(t.Context())
	results := held(ctx, p)
	testwait.Until(t, "the library was asked ten times", func() bool { return p.waits() >= 10 })
	select {
	case got := <-results:
		t.Fatalf("the poll ended with %v, %v", got.commands, got.err)
	default:
	}
	if err := p.inst.ForwardStatus(t.Context(), button, []byte("s")); err != nil {
		t.Fatal(err)
	}
	if got := await(t, results); got.err != nil || len(got.commands) != 1 {
		t.Errorf("the poll ended with %v, %v", got.commands, got.err)
	}
	results = held(ctx, p)
	testwait.Until(t, "the library is asked again", func() bool { return p.inst.(*instance).Waiting() > 0 })
	cancel()
	if got := await(t, results); got.err != nil || len(got.commands) != 0 {
		t.Errorf("the poll ended with %v, %v", got.commands, got.err)
	}
	if p.inst.(*instance).Waiting() != 0 {
		t.Error("a wait is under way")
	}
	p.closeClean()
}

// An error ends the poll at once: who asks decides on the pause.
func TestHeldPollFails(t *testing.T) {
	p := openProbe(t, "wait=-1")
	got := await(t, held(t.Context(), p))
	wantError(t, got.err, "wait_for_command", "-1")
	p.closeClean()
}

// Close ends a poll that is held, also one that begins in the same moment.
func TestCloseEndsHeldPoll(t *testing.T) {
	for range 20 {
		p := openProbe(t)
		results := held(t.Context(), p)
		p.closeClean()
		await(t, results)
	}
}

// A library that ignores its timeout does not keep a core busy.
func TestHeldPollDoesNotSpin(t *testing.T) {
	p := openProbe(t, "wait=-12", "waits=1")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	await(t, held(ctx, p))
	if n := p.waits(); n > 500 {
		t.Errorf("%d waits in half a second", n)
	}
	p.closeClean()
}

// Known libraries drop what comes before their first wait (MM-10): there is one, also
// without device, and no second one.
func TestFirstWait(t *testing.T) {
	p := newProbe(t)
	p.lib.prime = true
	inst, err := p.lib.Open(t.Context(), p.spec("waits=1"))
	if err != nil {
		t.Fatal(err)
	}
	p.inst = inst
	p.waitFor("wait")
	p.closeClean()
	if n := p.waits(); n != 1 {
		t.Errorf("%d waits", n)
	}
}

// Contexts whose first wait takes long are many at a time, and can be closed.
func TestFirstWaitsThatBlock(t *testing.T) {
	p := newProbe(t)
	p.lib.prime = true
	var all []module.Instance
	for range 12 {
		inst, err := p.lib.Open(t.Context(), p.spec("block=wait_for_command"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, inst)
	}
	testwait.Until(t, "all wait", func() bool {
		for _, inst := range all {
			if !inst.(*instance).polled.Load() {
				return false
			}
		}
		return true
	})
	p.letGo()
	for _, inst := range all {
		if err := inst.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// EndPolls ends the poll that is held, also one that begins in the same moment, and no
// command is lost; a later one takes no longer than the timeout.
func TestEndPolls(t *testing.T) {
	for round := range 20 {
		p := openProbe(t, "echo=1")
		results := held(t.Context(), p)
		if round%2 == 0 {
			testwait.Until(t, "the library is asked", func() bool { return p.inst.(*instance).Waiting() > 0 })
			if err := p.inst.ForwardStatus(t.Context(), button, []byte("s")); err != nil {
				t.Fatal(err)
			}
		}
		p.inst.(module.Holder).EndPolls()
		first := await(t, results)
		next := await(t, held(t.Context(), p))
		if first.err != nil || next.err != nil {
			t.Errorf("the polls ended with %v and %v", first.err, next.err)
		}
		// The first poll may have ended between two waits, then the next one has it.
		if got := append(first.commands, next.commands...); len(got) != (round+1)%2 {
			t.Errorf("the polls brought %v", got)
		}
		p.closeClean()
		p.inst.(module.Holder).EndPolls() // after the end
	}
}

// Polls of many contexts that begin and end together all come back, and what follows them
// is not kept waiting by those that are held.
func TestManyHeldPolls(t *testing.T) {
	p := newProbe(t)
	t.Cleanup(func() {
		if err := p.lib.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	const contexts = 300
	var held sync.WaitGroup
	var open []module.Instance
	for range contexts {
		i, err := p.lib.Open(t.Context(), p.spec())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, i)
		held.Go(func() {
			if got, err := i.(module.Holder).FetchCommands(ctx, module.Held); err != nil || len(got) > 0 {
				t.Errorf("%d commands, %v", len(got), err)
			}
		})
	}
	testwait.Until(t, "all polls held", func() bool {
		p.lib.waits.mu.Lock()
		defer p.lib.waits.mu.Unlock()
		return len(p.lib.waits.under) == contexts
	})
	if err := open[0].ForwardStatus(t.Context(), fleet.Device{Module: probeNumber, Role: "role"}, nil); err != nil {
		t.Error(err)
	}
	cancel()
	held.Wait()
	for _, i := range open {
		if err := i.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
