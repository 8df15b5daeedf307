package module

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ErrClosed reports a call with a context, or a module, that is closed.
var ErrClosed = errors.New("the module context is closed")

// Lane is one of the things that happen one at a time with a module context, beside
// those of the other lanes.
type Lane int

// The lanes of a context.
const (
	Opening Lane = iota // init, also in the next process
	Calling             // every call but wait_for_command (MOD-5)
	Waiting             // wait_for_command and what follows it (MOD-6)
	lanes
)

// Gate keeps the order that a module context demands: one call of each lane at a
// time, and none once the context is being closed. Who waits at a gate can give up,
// because a call inside a module may never come back (CLI-24).
//
//	Enter, Leave                         every lane that Drain takes
//	 ┌──────┐                             was left
//	 ▼      │      Shut                ┌───────────────────────► drained
//	open ───┴─────────────► shut ──────┤
//	                    (Enter fails)  └───────────────────────► abandoned
//	                                    Drain stopped waiting    (Leave tells)
//
// A call that is under way when the gate is shut goes on until Leave. The methods
// may be called by any goroutine.
type Gate struct {
	shut  chan struct{} // closed by Shut
	turns [lanes]chan struct{}

	mu        sync.Mutex
	closed    bool
	abandoned bool
	ops       [lanes]string // what is under way; "" for a lane that is free or drained
}

// NewGate returns an open gate.
func NewGate() *Gate {
	g := &Gate{shut: make(chan struct{})}
	for lane := range g.turns {
		g.turns[lane] = make(chan struct{}, 1)
	}
	return g
}

// Enter waits for the turn of the operation op in its lane. When it returns nil, Leave
// must follow. Otherwise the error wraps ErrClosed or that of ctx: op must not
// be called.
func (g *Gate) Enter(ctx context.Context, lane Lane, op string) error {
	if g.IsShut() {
		return fmt.Errorf("%s not called: %w", op, ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s not called: %w", op, err)
	}
	select {
	case g.turns[lane] <- struct{}{}:
	default:
		select {
		case g.turns[lane] <- struct{}{}:
		case <-g.shut:
			return fmt.Errorf("%s not called: %w", op, ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("%s not called, the module is busy: %w", op, ctx.Err())
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		<-g.turns[lane]
		return fmt.Errorf("%s not called: %w", op, ErrClosed)
	}
	g.ops[lane] = op
	return nil
}

// Try is Enter that does not wait: it reports false when the lane is taken or the gate
// shut.
func (g *Gate) Try(lane Lane, op string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	select {
	case g.turns[lane] <- struct{}{}:
		g.ops[lane] = op
		return true
	default:
		return false
	}
}

// Leave ends what began with Enter, on any goroutine. It reports true when Drain has
// stopped waiting for it: nothing else is done with the context then, unless the
// caller does it.
func (g *Gate) Leave(lane Lane) (abandoned bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ops[lane] = ""
	<-g.turns[lane]
	return g.abandoned
}

// Shut lets nothing more in. It reports true for the first caller, whose business it
// is to drain the gate.
func (g *Gate) Shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.closed = true
	close(g.shut)
	return true
}

// Shutting is closed by Shut.
func (g *Gate) Shutting() <-chan struct{} { return g.shut }

// IsShut tells whether Shut was called.
func (g *Gate) IsShut() bool {
	select {
	case <-g.shut:
		return true
	default:
		return false
	}
}

// Drain takes the lanes of a gate that is shut, for good, one after the other. It
// returns "" when it has all of them, or what keeps it waiting when done is closed
// first; done is nil to wait for ever. It prefers a free lane.
func (g *Gate) Drain(done <-chan struct{}, wanted ...Lane) (stuck string) {
	for _, lane := range wanted {
		select {
		case g.turns[lane] <- struct{}{}:
			continue
		default:
		}
		select {
		case g.turns[lane] <- struct{}{}:
			continue
		case <-done:
		}
		g.mu.Lock()
		select {
		case g.turns[lane] <- struct{}{}:
			g.mu.Unlock()
		default: // and Leave will tell
			defer g.mu.Unlock()
			g.abandoned = true
			return g.ops[lane]
		}
	}
	return ""
}

// Busy names an operation that is under way, or "".
func (g *Gate) Busy() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, op := range g.ops {
		if op != "" {
			return op
		}
	}
	return ""
}
