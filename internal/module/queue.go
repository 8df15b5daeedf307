package module

import (
	"sync"
	"time"

	"external-server/internal/fleet"
)

// jobKind tells which call of the Instance a job makes.
type jobKind uint8

const (
	jobConnected jobKind = iota + 1
	jobStatus
	jobDisconnected
	jobAck
)

// job is one queued call. It owns its slices.
type job struct {
	kind     jobKind
	device   fleet.Device
	data     []byte
	message  []byte // jobStatus: error message, may be empty
	kindGone fleet.DisconnectType
	done     func(error) // jobConnected
	at       time.Time
}

// jobs is the FIFO in front of an Instance. Only statuses and acknowledgements
// are bounded; a device's connect and disconnect are never refused, they are
// bounded by the number of devices.
type jobs struct {
	mu       sync.Mutex
	ring     []job // ring buffer
	head, n  int
	statuses int // of the n
	acks     int
	limit    int
	closed   bool
	wake     chan struct{} // capacity 1
}

func newJobs(limit int) *jobs { return &jobs{limit: limit, wake: make(chan struct{}, 1)} }

func (q *jobs) put(j job) bool {
	q.mu.Lock()
	switch {
	case q.closed,
		j.kind == jobStatus && q.statuses >= q.limit,
		j.kind == jobAck && q.acks >= q.limit:
		q.mu.Unlock()
		return false
	}
	switch j.kind {
	case jobStatus:
		q.statuses++
	case jobAck:
		q.acks++
	}
	if q.n == len(q.ring) {
		grown := make([]job, max(8, 2*len(q.ring)))
		for i := range q.n {
			grown[i] = q.ring[(q.head+i)%len(q.ring)]
		}
		q.ring, q.head = grown, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = j
	q.n++
	q.mu.Unlock()
	q.signal()
	return true
}

func (q *jobs) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// first returns the oldest job without removing it: it counts against the bound
// until its call has returned.
func (q *jobs) first() (job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 {
		return job{}, false
	}
	return q.ring[q.head], true
}

func (q *jobs) removeFirst() {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch q.ring[q.head].kind {
	case jobStatus:
		q.statuses--
	case jobAck:
		q.acks--
	}
	q.ring[q.head] = job{}
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	if q.n == 0 && len(q.ring) > 64 { // a burst must not hold its memory for ever
		q.ring, q.head = nil, 0
	}
}

// close refuses further jobs.
func (q *jobs) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

// abandon empties the queue and returns what was in it.
func (q *jobs) abandon() []job {
	q.mu.Lock()
	defer q.mu.Unlock()
	left := make([]job, q.n)
	for i := range left {
		left[i] = q.ring[(q.head+i)%len(q.ring)]
	}
	q.ring, q.head, q.n, q.statuses, q.acks = nil, 0, 0, 0, 0
	return left
}

func (q *jobs) free() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0
	}
	return q.limit - q.statuses
}

// depth returns how many jobs wait and when the oldest was queued.
func (q *jobs) depth() (int, time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 {
		return 0, time.Time{}
	}
	return q.n, q.ring[q.head].at
}

func (q *jobs) finished() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed && q.n == 0
}
