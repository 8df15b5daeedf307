package core

import (
	"context"
	"errors"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi/store"
)

// Times of the attempts to reach a store.
const (
	// startPatience is how long the start waits for the store, by default. Its faults are then
	// told by the start itself; later the cars are served without it.
	startPatience = 2 * time.Second
	reloadPause   = 500 * time.Millisecond // after a failed attempt, doubled each time
	longestPause  = 5 * time.Second
)

// Begin starts the writer, which opens and loads the store and tries again as long as
// it takes; Close ends it. Begin waits a moment for that, and returns an error only if
// no further attempt would help.
func (c *Core) Begin(ctx context.Context) error {
	if c.own != nil {
		c.running.Add(2)
		go c.follow()
		go c.watchCars()
	}
	go c.write(c.queue)
	timer := time.NewTimer(c.patience)
	defer timer.Stop()
	select {
	case err := <-c.first:
		if err != nil && !mayPass(err) {
			return err
		}
		return nil
	case <-timer.C:
		c.log.Warn("the message store of the HTTP API is not loaded yet; cars are served, the HTTP API answers 503 until it is")
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mayPass tells faults of the surroundings, such as a database that is still starting,
// from those of the configuration or the data.
func mayPass(err error) bool {
	var e *store.Error
	if !errors.As(err, &e) {
		return errors.Is(err, context.DeadlineExceeded)
	}
	return e.Fault == store.FaultUnavailable || e.Fault == store.FaultBusy || e.Fault == store.FaultFull
}

// firstLoad returns when the store is loaded, or false when the core stops before.
func (c *Core) firstLoad() bool {
	started := time.Now()
	again := newRetry()
	defer again.stop()
	for {
		err := c.load()
		if err == nil {
			c.tell(nil)
			c.faults.ok("open")
			if d := time.Since(started); d > c.patience {
				c.log.Info("the message store of the HTTP API is loaded", "after", d.Round(time.Millisecond))
			}
			return true
		}
		if c.ctx.Err() != nil {
			c.tell(err)
			return false
		}
		fault := *store.AsError(err)
		fault.Err = err // names the store and what to do
		c.starting.Store(c.faults.report("open", &fault))
		c.tell(err) // when requests are answered with it: what follows the start may look
		again.later()
		select {
		case <-again.due():
		case <-c.ctx.Done():
			return false
		}
	}
}

// tell lets Begin know what became of an attempt, if it waits for the first one.
func (c *Core) tell(err error) {
	select {
	case c.first <- err:
	default: // Begin has returned
	}
}

// load opens the store if need be and takes over what it knows. It may take as long as
// the store needs: only the stop ends it.
func (c *Core) load() error {
	if c.store == nil {
		opened, err := c.open(c.ctx)
		if err != nil {
			return err
		}
		c.store = opened
		c.shared, _ = opened.(store.Shared)
	}
	state, err := c.store.Load(c.ctx)
	if err != nil {
		return err
	}
	if c.own != nil {
		if err := c.claimAgain(); err != nil {
			return err
		}
		c.wakeWriter()
	} else {
		c.mu.Lock()
		c.restore(state, func(fleet.CarID) bool { return true })
		c.mu.Unlock()
	}
	c.starting.Store(nil)
	return nil
}

// lose notes that the store must be loaded again and refuses what waits for it.
func (c *Core) lose(queue chan *post, again *retry) {
	c.lost.Store(true)
	for {
		p, ok := tryReceive(queue)
		if !ok {
			break
		}
		c.failAll([]*post{p})
	}
	again.now()
}

// reload connects again after the store was lost and takes over what it knows.
func (c *Core) reload(again *retry) {
	if err := c.load(); err != nil {
		if c.ctx.Err() == nil {
			_ = c.faults.report("write", store.AsError(err))
		}
		again.later()
		return
	}
	again.done()
	c.lost.Store(false)
}

// retry is the time of the next attempt.
type retry struct {
	timer *time.Timer
	pause time.Duration
}

func newRetry() *retry {
	r := &retry{timer: time.NewTimer(time.Hour)}
	r.done()
	return r
}

func (r *retry) due() <-chan time.Time { return r.timer.C }

func (r *retry) now() { r.timer.Reset(0) }

func (r *retry) later() {
	r.timer.Reset(r.pause)
	r.pause = min(2*r.pause, longestPause)
}

// done means that no attempt is needed.
func (r *retry) done() {
	r.timer.Stop()
	r.pause = reloadPause
}

func (r *retry) stop() { r.timer.Stop() }
