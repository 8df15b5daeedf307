package httpapi

import (
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Stats are the counters of a server since its start and its present state.
type Stats struct {
	// Requests counts answered requests by route, such as "GET /status", and
	// status code. Route is "other" for paths that do not exist.
	Requests map[RequestKey]int64
	Cars     int // known cars
	Devices  int // known devices
	Waiting  int // requests held by wait=true
	// In a cluster Cars and Devices are those of the replica's own shards, and Requests those
	// of its own clients, whichever replica has answered them. Shards are the shards served
	// here, PassedOn the requests that another replica has answered, Held those that wait for
	// an owner or its answer now, ForOthers those answered for other replicas.
	Cluster             bool
	Shards, Held        int
	PassedOn, ForOthers int64
	Queue               int // posts that wait for the store
	Messages            int64
	Deleted             int64 // messages deleted by retention
	// Transactions counts the store's transactions, Posts the posts in them.
	Transactions, Posts, FailedTransactions int64
	// WriteTime and ReadTime are summed over Transactions and Reads.
	WriteTime, ReadTime time.Duration
	SlowestWrite        time.Duration
	Reads               int64
	// StoreFaults counts failed operations by fault.
	StoreFaults map[StoreFault]int64
	// StoreFault is what is wrong with the store now, empty if nothing.
	StoreFault StoreFault
	// StoreBytes is the size of the database as it was at the last sweep of retention,
	// LogBytes that of its write-ahead log (SQLite only).
	StoreBytes, LogBytes int64
}

// RequestKey is a route and the status code of its answers.
type RequestKey struct {
	Route string
	Code  int
}

type counters struct {
	mu sync.Mutex
	s  Stats
}

func newCounters() *counters {
	return &counters{s: Stats{Requests: map[RequestKey]int64{}}}
}

func (c *counters) request(route string, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Requests[RequestKey{route, code}]++
}

// forOthers counts a request that another replica has passed on and counts too.
func (c *counters) forOthers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.ForOthers++
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

func (c *core) snapshot() Stats {
	c.stats.mu.Lock()
	s := c.stats.s
	s.Requests = make(map[RequestKey]int64, len(c.stats.s.Requests))
	for k, v := range c.stats.s.Requests {
		s.Requests[k] = v
	}
	c.stats.mu.Unlock()
	c.mu.Lock()
	s.Cars, s.Devices, s.Waiting, s.Queue = c.known, c.devices, c.waits, len(c.queue)
	s.Cluster, s.Shards = c.own != nil, c.openShards()
	c.mu.Unlock()
	s.StoreFaults, s.StoreFault = c.faults.counts()
	if s.StoreFault == "" && c.starting.Load() != nil {
		s.StoreFault = FaultLoading
	}
	return s
}

// faultLog logs a fault of the store once until the same kind of operation has
// worked again, and turns it into the client's answer.
type faultLog struct {
	log    *slog.Logger
	mu     sync.Mutex
	now    map[string]StoreFault // by operation: the fault that was logged
	total  map[StoreFault]int64
	latest *Error
}

func newFaultLog(log *slog.Logger) *faultLog {
	return &faultLog{log: log, now: map[string]StoreFault{}, total: map[StoreFault]int64{}}
}

func (f *faultLog) report(operation string, e *StoreError) *Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total[e.Fault]++
	f.latest = e.answer()
	if f.now[operation] != e.Fault {
		f.now[operation] = e.Fault
		f.log.Error("the message store of the HTTP API failed; service continues", "operation", operation, "fault", string(e.Fault), "error", e.Err, "hint", e.Fault.hint())
	}
	return f.latest
}

func (f *faultLog) ok(operation string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fault, was := f.now[operation]; was {
		delete(f.now, operation)
		f.log.Warn("the message store of the HTTP API works again", "operation", operation, "fault", string(fault))
	}
}

// lastError is the answer to give while the store is known to be lost.
func (f *faultLog) lastError() *Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.latest == nil {
		return newError(http.StatusServiceUnavailable, "the message store is not reachable; try again")
	}
	return f.latest
}

func (f *faultLog) counts() (map[StoreFault]int64, StoreFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	total := make(map[StoreFault]int64, len(f.total))
	for k, v := range f.total {
		total[k] = v
	}
	for _, fault := range f.now {
		return total, fault
	}
	return total, ""
}
