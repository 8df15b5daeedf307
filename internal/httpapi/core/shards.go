package core

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
)

// Owners tells which replica of a cluster serves which cars. Its methods are called from
// many goroutines and must not block.
type Owners interface {
	// Shards is the number of shards; it does not change.
	Shards() int
	// Shard is the shard of a car, from 0.
	Shard(car fleet.CarID) int
	// Owner is the replica that serves a shard, as far as it is known.
	Owner(shard int) Owner
	// Changed returns a channel that is closed when an Owner has changed since.
	Changed() <-chan struct{}
}

// Owner is a replica that serves a shard. The zero value is none.
type Owner struct {
	Self    bool
	Epoch   int64  // rises with every owner; with Self it must be known
	Replica string // its name
	Address string // of its peer endpoint; not used with Self
}

// ownership is what the core knows of the shards of a cluster. The core's lock guards
// it.
type ownership struct {
	owners Owners
	// open has the epoch under which a shard's cars are in memory and are served, 0 when
	// they are not.
	open []int64
	// again is when a shard that could not be claimed is claimed again.
	again   []time.Time
	stale   []bool        // another replica has a newer epoch in the store; told once
	changed chan struct{} // closed at the next change of open or of an owner
	wake    chan struct{} // one token: there may be something to claim
	// carKnown has one token when a car has become known here.
	carKnown chan struct{}
}

const (
	claimPause = 500 * time.Millisecond // after a claim of a shard that failed
	claimTime  = 10 * time.Second       // of one claim
)

// ErrMoved is the answer to a request for a car that another replica serves. The router
// takes it; no client sees it.
var ErrMoved = httpapi.NewError(http.StatusMisdirectedRequest, "another replica serves this car")

func newOwnership(owners Owners) *ownership {
	n := owners.Shards()
	return &ownership{
		owners: owners, open: make([]int64, n), again: make([]time.Time, n), stale: make([]bool, n),
		changed: make(chan struct{}), wake: make(chan struct{}, 1), carKnown: make(chan struct{}, 1),
	}
}

// serves tells whether requests for a car may be answered from memory. The lock is held.
func (c *Core) serves(id fleet.CarID) bool {
	return c.own == nil || c.own.open[c.own.owners.Shard(id)] != 0
}

// MayServe is serves for those who do not hold the lock.
func (c *Core) MayServe(id fleet.CarID) bool {
	if c.own == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.serves(id)
}

// Where tells who serves a car now, and returns a channel that is closed when that may
// have changed. An owner that is this replica and not ready means that its cars are being
// loaded.
func (c *Core) Where(id fleet.CarID) (owner Owner, ready bool, changed <-chan struct{}) {
	shard := c.own.owners.Shard(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	owner = c.own.owners.Owner(shard)
	return owner, owner.Self && c.own.open[shard] != 0, c.own.changed
}

// follow takes over every change of the owners until the core stops: cars that another
// replica serves now are given up, and the writer claims those that are this replica's.
func (c *Core) follow() {
	defer c.running.Done()
	for {
		changed := c.own.owners.Changed()
		c.mu.Lock()
		var released []*waiter
		for n, epoch := range c.own.open {
			if epoch != 0 && !c.own.owners.Owner(n).Self {
				released = append(released, c.drop(n)...)
			}
		}
		c.announce()
		c.mu.Unlock()
		for _, w := range released {
			w.fail(ErrMoved)
		}
		c.wakeWriter()
		select {
		case <-changed:
		case <-c.stopped:
			return
		}
	}
}

// announce wakes those who wait for a change. The lock is held.
func (c *Core) announce() {
	close(c.own.changed)
	c.own.changed = make(chan struct{})
}

func (c *Core) wakeWriter() {
	select {
	case c.own.wake <- struct{}{}:
	default:
	}
}

// drop forgets the cars of a shard that this replica does not serve any more, and
// returns the requests that waited for them. The lock is held.
func (c *Core) drop(shard int) (released []*waiter) {
	c.own.open[shard] = 0
	for id, car := range c.cars {
		if c.own.owners.Shard(id) != shard {
			continue
		}
		for k := range car.waiting {
			released = append(released, car.waiting[k].takeAll()...)
		}
		if car.known() {
			c.known--
		}
		c.devices -= len(car.devices)
		if car.held {
			c.held--
		}
		delete(c.cars, id)
	}
	c.stale = slices.DeleteFunc(c.stale, func(d store.Device) bool { return c.own.owners.Shard(d.Car) == shard })
	c.settle(released)
	return released
}

// give gives up shards that another replica has in the store.
func (c *Core) give(shards []int) {
	c.mu.Lock()
	var released []*waiter
	for _, n := range shards {
		c.shared.Release(n)
		if c.own.open[n] != 0 {
			released = append(released, c.drop(n)...)
		}
	}
	c.announce()
	c.mu.Unlock()
	for _, w := range released {
		w.fail(ErrMoved)
	}
	c.wakeWriter()
}

// nextClaim returns the next shard to claim and its epoch, and how long to wait for the
// next one when there is none now; 0 for none at all.
func (c *Core) nextClaim() (shard int, epoch int64, wait time.Duration) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, open := range c.own.open {
		owner := c.own.owners.Owner(n)
		switch {
		case !owner.Self:
			c.own.stale[n], c.own.again[n] = false, time.Time{}
			if open == 0 {
				c.shared.Release(n)
			}
		case owner.Epoch == open:
		case now.Before(c.own.again[n]):
			if left := c.own.again[n].Sub(now); wait == 0 || left < wait {
				wait = left
			}
		default:
			return n, owner.Epoch, 0
		}
	}
	return -1, 0, wait
}

// claimNext claims one shard, if there is one to claim. It returns true when the store must
// be loaded again. The writer calls it.
func (c *Core) claimNext(timer *time.Timer) (reload bool) {
	shard, epoch, wait := c.nextClaim()
	if shard < 0 {
		if wait > 0 {
			timer.Reset(wait)
		}
		return false
	}
	err := c.claim(shard, epoch)
	c.wakeWriter() // there may be more
	if err == nil {
		return false
	}
	fault := store.AsError(err)
	c.mu.Lock()
	told := c.own.stale[shard]
	c.own.again[shard] = time.Now().Add(claimPause)
	c.own.stale[shard] = fault.Fault == store.FaultMoved
	c.mu.Unlock()
	if fault.Fault != store.FaultMoved {
		_ = c.faults.report("claim", fault)
		return fault.Reload
	}
	c.give([]int{shard})
	if !told {
		c.log.Warn("the message store of the HTTP API says that another replica serves the cars of a shard; their requests wait", "shard", shard, "epoch", epoch, "error", fault.Err)
	}
	return false
}

// claim notes the epoch in the store, loads the shard's cars and serves them.
func (c *Core) claim(shard int, epoch int64) error {
	ctx, cancel := context.WithTimeout(c.ctx, claimTime)
	defer cancel()
	state, err := c.shared.Claim(ctx, shard, epoch)
	if err != nil {
		return err
	}
	c.faults.ok("claim")
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.own.owners.Owner(shard).Self {
		c.shared.Release(shard)
		return nil // given up meanwhile; follow has seen it or will
	}
	c.restore(state, func(id fleet.CarID) bool { return c.own.owners.Shard(id) == shard })
	c.own.open[shard] = epoch
	c.announce()
	return nil
}

// claimAgain loads the cars of the shards that are served after the connection to the
// store was lost: it is not known which transactions were made.
func (c *Core) claimAgain() error {
	c.mu.Lock()
	open := slices.Clone(c.own.open)
	c.mu.Unlock()
	for n, epoch := range open {
		if epoch == 0 {
			continue
		}
		err := c.claim(n, epoch)
		var fault *store.Error
		if errors.As(err, &fault) && fault.Fault == store.FaultMoved {
			c.give(fault.Shards)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// StoreEpoch returns the epoch of a shard that the store has noted and the replica that
// has noted it; 0 and "" when there is none, and while the store is not loaded.
func (c *Core) StoreEpoch(ctx context.Context, shard int) (epoch int64, replica string, err error) {
	if c.starting.Load() != nil || c.own == nil {
		return 0, "", nil
	}
	return c.shared.Epoch(ctx, shard)
}

// openShards counts the shards that are served. The lock is held.
func (c *Core) openShards() (n int) {
	if c.own == nil {
		return 0
	}
	for _, epoch := range c.own.open {
		if epoch != 0 {
			n++
		}
	}
	return n
}
