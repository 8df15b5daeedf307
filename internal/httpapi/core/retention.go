package core

import (
	"context"
	"errors"
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi/store"
)

const (
	sweepRows        = 500 // messages deleted in one transaction
	shortestSweep    = time.Second
	longestSweep     = time.Minute
	sweepsPerPeriod  = 60
	clockCatchUpRate = 10 // the retention clock follows a step forward at 1/10 of the time that passes
)

// sweeper deletes what is older than the retention period (HTTP-18), a small
// part at a time, on the writer's goroutine between its transactions.
type sweeper struct {
	core     *Core
	ticker   *time.Ticker
	always   chan time.Time // closed
	clock    int64          // by ageClock, when this sweep began
	cutoff   int64
	deleting bool
	cars     []fleet.CarID // perhaps to be forgotten in this sweep
}

func newSweeper(c *Core) *sweeper {
	s := &sweeper{core: c, always: make(chan time.Time)}
	close(s.always)
	s.ticker = time.NewTicker(c.sweepPause())
	return s
}

// sweepPause is the time between two sweeps.
func (c *Core) sweepPause() time.Duration {
	return min(longestSweep, max(shortestSweep, time.Duration(c.retention.Load())/sweepsPerPeriod))
}

func (s *sweeper) close() { s.ticker.Stop() }

// due is ready when there is something to delete or to look for.
func (s *sweeper) due() <-chan time.Time {
	if s.deleting {
		return s.always
	}
	return s.ticker.C
}

// begin moves the cutoff and forgets the devices without a status since.
func (s *sweeper) begin() []store.Device {
	s.clock = s.core.age.now().UnixMilli()
	s.cutoff = s.clock - time.Duration(s.core.retention.Load()).Milliseconds()
	s.ticker.Reset(s.core.sweepPause()) // a reload may have changed it
	s.deleting = true
	c := s.core
	c.mu.Lock()
	defer c.mu.Unlock()
	forgotten := c.stale
	c.stale = nil
	for _, car := range c.cars {
		known := car.known()
		for key, d := range car.devices {
			d.storedAt = min(d.storedAt, s.clock) // as with its message
			if d.storedAt < s.cutoff {
				delete(car.devices, key)
				c.devices--
				forgotten = append(forgotten, store.Device{Car: car.id, Device: d.id})
			}
		}
		if known && !car.known() {
			c.known--
		}
	}
	return forgotten
}

// ageClock is the time by which age is measured. It is the wall clock as far as that
// goes as time passes. One goroutine uses it.
type ageClock struct {
	wall    func() time.Time
	at      time.Time
	checked time.Time // when it was moved, with monotonic reading
}

func newAgeClock(wall func() time.Time) ageClock {
	return ageClock{wall: wall, at: wall().Round(0), checked: time.Now()}
}

func (a *ageClock) now() time.Time {
	passed := time.Since(a.checked)
	a.checked = a.checked.Add(passed)
	a.at = moveClock(a.at, a.wall().Round(0), passed)
	return a.at
}

// moveClock returns the time by which age is measured, when it was clock and some
// time has passed. A step of the wall clock forward would make everything old at
// once; it is followed only a little faster than time passes. A step back is
// followed at once: it deletes nothing.
func moveClock(clock, wall time.Time, passed time.Duration) time.Time {
	clock = clock.Add(passed + passed/clockCatchUpRate)
	if clock.After(wall) {
		return wall
	}
	return clock
}

// step begins a sweep or deletes the next part. It returns true when the store
// must be loaded again.
func (s *sweeper) step() (reload bool) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	c := s.core
	if !s.deleting {
		if forgotten := s.begin(); len(forgotten) > 0 {
			if err := s.forgetDevices(ctx, forgotten); err != nil {
				return s.failed(err)
			}
		}
	}
	if len(s.cars) > 0 {
		return s.forgetCars(ctx)
	}
	started := time.Now()
	n, more, err := c.store.DeleteBefore(ctx, s.cutoff, s.clock, sweepRows)
	if err != nil {
		return s.failed(err)
	}
	c.stats.deleted(n, time.Since(started))
	c.faults.ok("delete")
	s.deleting = more
	if more {
		return false
	}
	c.stats.size(c.store.Tidy(ctx))
	s.cars = c.forgettable(s.cutoff)
	return s.forgetCars(ctx)
}

// forgetDevices forgets devices in the store, except those of cars that another replica
// serves by now.
func (s *sweeper) forgetDevices(ctx context.Context, devices []store.Device) error {
	for len(devices) > 0 {
		err := s.core.store.Forget(ctx, devices)
		var fault *store.Error
		if !errors.As(err, &fault) || fault.Fault != store.FaultMoved {
			return err
		}
		s.core.give(fault.Shards)
		devices = slices.DeleteFunc(devices, func(d store.Device) bool {
			return slices.Contains(fault.Shards, s.core.own.owners.Shard(d.Car))
		})
	}
	return nil
}

// forgetCars forgets the next part of the cars of this sweep, in the store and then in
// memory. Those that still have messages stay.
func (s *sweeper) forgetCars(ctx context.Context) (reload bool) {
	part := s.cars[:min(len(s.cars), sweepRows)]
	s.cars = s.cars[len(part):]
	s.deleting = len(s.cars) > 0
	if len(part) == 0 {
		return false
	}
	floor := s.core.floorOf(part)
	gone, err := s.core.store.ForgetCars(ctx, part, floor)
	if err != nil {
		return s.failed(err)
	}
	s.core.forget(gone, floor)
	return false
}

// failed ends this sweep; the next one tries again.
func (s *sweeper) failed(err error) bool {
	s.deleting, s.cars = false, nil
	fault := store.AsError(err)
	if fault.Fault == store.FaultMoved {
		s.core.give(fault.Shards)
		return false
	}
	_ = s.core.faults.report("delete", fault)
	return fault.Reload
}
