package core

import (
	"sync"
	"time"

	"external-server/internal/httpapi/store"
)

// Stats are the counters of a core since its start and its present state.
type Stats struct {
	Cars    int // known cars
	Devices int // known devices
	Waiting int // requests held by wait=true
	// In a cluster Cars and Devices are those of the replica's own shards, and Shards counts
	// the shards that are served here.
	Cluster  bool
	Shards   int
	Queue    int // posts that wait for the store
	Messages int64
	Deleted  int64 // messages deleted by retention
	// Transactions counts the store's transactions, Posts the posts in them.
	Transactions, Posts, FailedTransactions int64
	// WriteTime and ReadTime are summed over Transactions and Reads.
	WriteTime, ReadTime time.Duration
	SlowestWrite        time.Duration
	Reads               int64
	// StoreFaults counts failed operations by fault.
	StoreFaults map[store.Fault]int64
	// store.Fault is what is wrong with the store now, empty if nothing.
	StoreFault store.Fault
	// StoreBytes is the size of the database as it was at the last sweep of retention,
	// LogBytes that of its write-ahead log (SQLite only).
	StoreBytes, LogBytes int64
}

// counters are the part of Stats that is counted where it happens.
type counters struct {
	mu sync.Mutex
	s  Stats
}

func (c *counters) read(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Reads++
	c.s.ReadTime += d
}

func (c *counters) wrote(d time.Duration, posts int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Transactions++
	c.s.WriteTime += d
	c.s.SlowestWrite = max(c.s.SlowestWrite, d)
	if ok {
		c.s.Posts += int64(posts)
	} else {
		c.s.FailedTransactions++
	}
}

func (c *counters) stored(messages int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Messages += int64(messages)
}

func (c *counters) deleted(messages int, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Deleted += int64(messages)
	c.s.SlowestWrite = max(c.s.SlowestWrite, d)
}

func (c *counters) size(store, log int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.StoreBytes, c.s.LogBytes = store, log
}

// Stats returns the counters.
func (c *Core) Stats() Stats {
	c.stats.mu.Lock()
	s := c.stats.s
	c.stats.mu.Unlock()
	c.mu.Lock()
	s.Cars, s.Devices, s.Waiting, s.Queue = c.known, c.devices, c.waits, len(c.queue)
	s.Cluster, s.Shards = c.own != nil, c.openShards()
	c.mu.Unlock()
	s.StoreFaults, s.StoreFault = c.faults.counts()
	if s.StoreFault == "" && c.starting.Load() != nil {
		s.StoreFault = store.FaultLoading
	}
	return s
}
