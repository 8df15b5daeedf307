package fleetapi

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Limits of the breaker of one API host.
const (
	breakerThreshold = 3 // failures in a row before it opens
	breakerMin       = 200 * time.Millisecond
	breakerMax       = 5 * time.Second
	// Those who waited set off over this time each once the host answers again,
	// so that thousands of cars, which need a connection each, do not come at once.
	reopenSpread    = 500 * time.Microsecond
	reopenSpreadMax = 10 * time.Second
)

// breaker is the circuit breaker of one API host, shared by all instances that
// use the host. While it is closed all requests pass. After failures in a row it
// opens: all wait, and with a jittered back-off one request at a time
// probes the host. The first success lets all pass again.
//
// Own code because waiters need to be woken and spread, which the libraries for
// breakers, made to fail fast, do not do.
type breaker struct {
	log *slog.Logger

	mu       sync.Mutex
	failures int           // in a row
	backoff  time.Duration // 0: closed
	retry    time.Time     // when the next probe may start
	probing  bool
	opened   time.Time
	waiting  int           // requests that wait
	spread   time.Duration // see reopenSpread
	change   chan struct{} // closed and replaced when waiters should look again
}

// newBreaker makes a closed breaker. api names the host and what is served there
// in the log.
func newBreaker(api, what string, log *slog.Logger) *breaker {
	return &breaker{log: log.With("api", api, "requests", what), change: make(chan struct{})}
}

// admit waits until a request may be made. probe tells that the request decides
// whether the host is back and should be a short one. Every admitted request
// must be reported.
func (b *breaker) admit(ctx context.Context) (probe bool, err error) {
	waited := false
	for {
		b.mu.Lock()
		if b.backoff == 0 {
			spread := b.spread
			b.mu.Unlock()
			if waited {
				return false, sleep(ctx, rand.N(spread+1))
			}
			return false, ctx.Err()
		}
		wait := time.Until(b.retry)
		if !b.probing && wait <= 0 && ctx.Err() == nil {
			b.probing = true
			b.mu.Unlock()
			return true, nil
		}
		change := b.change
		probing := b.probing
		b.waiting++
		b.mu.Unlock()
		waited = true
		err := waitFor(ctx, change, wait, !probing)
		b.mu.Lock()
		b.waiting--
		b.mu.Unlock()
		if err != nil {
			return false, err
		}
	}
}

// waitFor waits for change or, when timed, at most d.
func waitFor(ctx context.Context, change <-chan struct{}, d time.Duration, timed bool) error {
	var due <-chan time.Time
	if timed {
		timer := time.NewTimer(d)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-change:
	case <-due:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// report tells how an admitted request ended. A request that its caller gave up
// says nothing about the host.
func (b *breaker) report(probe, givenUp bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
		defer b.wake()
	}
	switch {
	case givenUp:
	case err == nil:
		if b.backoff > 0 {
			b.log.Info("the HTTP API answers again", "after", time.Since(b.opened).Round(time.Millisecond).String())
			b.spread = min(time.Duration(b.waiting)*reopenSpread, reopenSpreadMax)
			if !probe {
				b.wake()
			}
		}
		b.failures, b.backoff = 0, 0
	case b.backoff == 0:
		if b.failures++; b.failures < breakerThreshold {
			return
		}
		b.backoff, b.opened = breakerMin, time.Now()
		b.retry = b.opened.Add(jitter(b.backoff))
		b.log.Warn("the HTTP API does not answer, trying again; statuses wait in their queues", "error", err)
	case probe:
		b.backoff = min(2*b.backoff, breakerMax)
		b.retry = time.Now().Add(jitter(b.backoff))
	}
}

func (b *breaker) wake() {
	close(b.change)
	b.change = make(chan struct{})
}

// mustWait tells whether requests have to wait.
func (b *breaker) mustWait() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.backoff > 0
}

// jitter returns a duration between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// sleep waits d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
