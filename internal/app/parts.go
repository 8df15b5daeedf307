package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"external-server/internal/config"
)

// part is one part of the server. The parts stand in one list, each above those that
// it needs: they are prepared from the bottom up, and begin, change and stop from the
// top down.
type part interface {
	// keys are the settings that a reload applies, as paths of fields of
	// config.Config; "A.*" stands for all fields of A. Those that no part has need a
	// restart.
	keys() []string
	// prepare does everything that can fail to put fresh in force, and changes nothing
	// that is in force. old is nil at the start; the change then begins to serve.
	prepare(ctx context.Context, old, fresh *config.Config) (change, error)
	// stop ends what was prepared and begun, or only prepared. It is called once, also
	// when prepare failed or was never called.
	stop() error
}

// change is what a part has prepared. One of its functions is called, once; nil: there
// is nothing to do.
type change struct {
	apply func(context.Context) error
	drop  func() error
}

// step is a place in the list of parts.
type step struct {
	name string
	part part
	// stopLimit bounds the stop of the part. Each part has bounds of its own, which are
	// smaller; this one lets the others end when they do not hold.
	stopLimit time.Duration
}

// Bounds of the stop of the parts; the cars have limits.stop_timeout_ms in addition.
const (
	carsStopLimit      = 10 * time.Second
	linkStopLimit      = 10 * time.Second
	sessionsStopLimit  = 5 * time.Second
	clusterStopLimit   = 5 * time.Second
	peersStopLimit     = 5 * time.Second
	apiStopLimit       = 10 * time.Second
	adminStopLimit     = 5 * time.Second
	brokerStopLimit    = 10 * time.Second
	observingStopLimit = 5 * time.Second
	modulesStopLimit   = 10 * time.Second
	fileStopLimit      = time.Second
	loggingStopLimit   = time.Second
)

type parts []step

// prepare prepares all parts. On error it drops what was prepared; what the start made
// is the caller's to stop.
func (ps parts) prepare(ctx context.Context, old, fresh *config.Config) (changes, error) {
	var made changes
	for _, s := range ps {
		c, err := s.prepare(ctx, old, fresh)
		if err != nil {
			return nil, errors.Join(err, made.drop())
		}
		made = append(made, c)
	}
	return made, nil
}

const (
	// addressWait is for how long the start waits for an address that another process has: a
	// server that was killed may still be ending.
	addressWait = 2 * time.Second
	addressPoll = 20 * time.Millisecond
)

// prepare prepares the part. At the start an address in use is tried again for a while.
func (s step) prepare(ctx context.Context, old, fresh *config.Config) (change, error) {
	tick := time.NewTicker(addressPoll)
	defer tick.Stop()
	for late := time.After(addressWait); ; {
		c, err := s.part.prepare(ctx, old, fresh)
		if old != nil || !errors.Is(err, syscall.EADDRINUSE) {
			return c, err
		}
		select {
		case <-tick.C:
		case <-late:
			return c, err
		case <-ctx.Done():
			return c, err
		}
	}
}

// keys are those of all parts.
func (ps parts) keys() (keys []string) {
	for _, s := range ps {
		keys = append(keys, s.part.keys()...)
	}
	return keys
}

// stop stops all parts.
func (ps parts) stop() error {
	var errs []error
	for _, s := range slices.Backward(ps) {
		errs = append(errs, s.stop())
	}
	return errors.Join(errs...)
}

func (s step) stop() error {
	ended := make(chan error, 1)
	go func() { ended <- s.part.stop() }()
	late := time.NewTimer(s.stopLimit)
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
		return fmt.Errorf("%s: has not ended within %v", s.name, s.stopLimit)
	}
}

// changes are those of all parts, in the order of the list.
type changes []change

// apply puts all of them in force. At the start, the first error ends it.
func (cs changes) apply(ctx context.Context, starting bool) error {
	var errs []error
	for _, c := range slices.Backward(cs) {
		if c.apply == nil {
			continue
		}
		if err := c.apply(ctx); err != nil {
			errs = append(errs, err)
			if starting {
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (cs changes) drop() error {
	var errs []error
	for _, c := range slices.Backward(cs) {
		if c.drop != nil {
			errs = append(errs, c.drop())
		}
	}
	return errors.Join(errs...)
}

// task is a goroutine that serves until stop. A nil one does nothing.
type task struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error
}

// begin runs serve, with the values of ctx but not its end.
func begin(ctx context.Context, serve func(context.Context) error) *task {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	t := &task{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.err = serve(ctx)
	}()
	return t
}

// stop ends the goroutine and returns its error.
func (t *task) stop() error {
	if t == nil {
		return nil
	}
	t.cancel(nil)
	<-t.done
	return t.err
}
