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
	jobAskType
)

// job is one queued call. It owns its slices.
type job struct {
	kind     jobKind
	device   fleet.Device
	data     []byte
	message  []byte // jobStatus: error message, may be empty
	number   uint64 // jobStatus
	again    bool   // jobStatus
	kindGone fleet.DisconnectType
	done     func(error) // jobConnected, jobAskType
	at       time.Time
	begun    time.Time // jobStatus, of a Forwarder with WorkerOptions.Called
}

// jobs is the FIFO in front of an Instance. Only statuses and acknowledgements
// are bounded by themselves. A device's connect and disconnect are never refused;
// but a disconnect takes a connect with it that still waits and was followed by
// nothing of the device, so that a gateway that connects again and again while
// the module hangs leaves no trace here. So the devices of the last two sessions
// and the bound of the others bound these. The job whose call is under way counts
// until the call has returned.
//
// A goroutine makes the calls as long as there are jobs, and only then: with
// thousands of cars, waiting ones would be most of the memory. The caller
// whom put or start tells to do so begins it.
type jobs struct {
	mu       sync.Mutex
	ring     []job // ring buffer
	head, n  int
	under    []job  // whose calls are under way, oldest first: one, or statuses of a Forwarder
	one      [1]job // room for the usual one
	soon     bool   // they are those of a Forwarder, and no goroutine is there
	connects int    // waiting
	asks     int    // waiting, 0 or 1
	statuses int    // waiting and running
	earlier  int    // of the statuses: those of an earlier process
	acks     int
	bytes    int // of the statuses
	limit    int // for statuses and for acks
	maxBytes int
	closed   bool
	serving  bool // start was called and halt was not
	halted   bool
	gone     bool          // nothing waits for statuses of a Forwarder any more
	active   bool          // the goroutine is there
	finished bool          // done is closed
	done     chan struct{} // closed when no call will be made any more
}

// minRing is the least size of the ring buffer, maxIdleRing the largest one that
// is kept when nothing waits: a burst must not hold its memory for ever.
const (
	minRing     = 2
	maxIdleRing = 4
)

func newJobs(limit, maxBytes int) *jobs {
	q := &jobs{limit: limit, maxBytes: maxBytes, done: make(chan struct{})}
	q.under = q.one[:0]
	return q
}

// put queues a job and reports whether there was room, and whether the caller has
// to begin the goroutine. A status that exceeds maxBytes is taken when the count
// allows it, because room was promised by free.
func (q *jobs) put(j job) (ok, begin bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed,
		j.kind == jobStatus && q.statuses >= q.limit && !j.again,
		j.kind == jobAck && q.acks >= q.limit:
		return false, false
	case j.kind == jobDisconnected && q.withdraw(j.device):
		return true, false
	case j.kind == jobAskType && q.asks > 0:
		q.replaceAsk(j)
		return true, false
	}
	q.count(&j, 1)
	switch j.kind {
	case jobConnected:
		q.connects++
	case jobAskType:
		q.asks++
	}
	if q.n == len(q.ring) {
		grown := make([]job, max(minRing, 2*len(q.ring)))
		for i := range q.n {
			grown[i] = q.ring[(q.head+i)%len(q.ring)]
		}
		q.ring, q.head = grown, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = j
	q.n++
	return true, q.activate()
}

// slot returns a waiting job; 0 is the oldest.
func (q *jobs) slot(n int) *job { return &q.ring[(q.head+n)%len(q.ring)] }

// replaceAsk puts a question about a type in the place of the one that waits.
func (q *jobs) replaceAsk(j job) {
	for i := range q.n {
		if q.slot(i).kind == jobAskType {
			*q.slot(i) = j
			return
		}
	}
}

// withdraw removes the connect of the device if it still waits and nothing of the
// device has come since: the module has not heard of it, and there is nothing that
// it would have to.
func (q *jobs) withdraw(device fleet.Device) bool {
	if q.connects == 0 {
		return false
	}
	at := q.n - 1
	for at >= 0 && q.slot(at).device.ID() != device.ID() {
		at--
	}
	if at < 0 || q.slot(at).kind != jobConnected || q.slot(at).device != device {
		return false
	}
	q.connects--
	for ; at < q.n-1; at++ {
		*q.slot(at) = *q.slot(at + 1)
	}
	*q.slot(at) = job{}
	q.n--
	q.shrink()
	return true
}

// shrink lets the memory of a burst go when nothing waits.
func (q *jobs) shrink() {
	if q.n == 0 && len(q.ring) > maxIdleRing {
		q.ring, q.head = nil, 0
	}
}

// activate tells whether the goroutine is needed and not there; it is from then on.
func (q *jobs) activate() bool {
	if !q.serving || q.active || q.n == 0 {
		return false
	}
	q.active = true
	return true
}

// start lets the calls be made from now on and tells whether the caller has to
// begin the goroutine.
func (q *jobs) start() (begin bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.serving = true
	begin = q.activate()
	q.finish()
	return begin
}

// halt says that no further call is to be made.
func (q *jobs) halt() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.serving, q.halted = false, true
	q.finish()
}

// letGo is halt that does not wait for the results of a Forwarder.
func (q *jobs) letGo() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.serving, q.halted, q.gone = false, true, true
	q.finish()
}

// finish closes done when nothing will be called any more.
func (q *jobs) finish() {
	if q.finished || q.active && !(q.gone && q.soon) || !q.halted && !(q.serving && q.closed && q.n == 0) {
		return
	}
	q.finished = true
	close(q.done)
}

// count adds a job to the counters, or takes it out with -1.
func (q *jobs) count(j *job, sign int) {
	switch j.kind {
	case jobStatus:
		q.statuses += sign
		if j.again {
			q.earlier += sign
		}
		q.bytes += sign * (len(j.data) + len(j.message) + len(j.device.Role) + len(j.device.Name))
	case jobAck:
		q.acks += sign
	}
}

// begin takes the oldest job for its call. Without one, and after halt, the
// goroutine has to end; it counts as gone.
func (q *jobs) begin() (job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 || q.halted {
		q.active = false
		q.finish()
		return job{}, false
	}
	q.soon = false
	return q.take(), true
}

// take moves the oldest job to those under way.
func (q *jobs) take() job {
	j := q.ring[q.head]
	q.ring[q.head] = job{}
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	q.shrink()
	switch j.kind {
	case jobConnected:
		q.connects--
	case jobAskType:
		q.asks--
	}
	q.under = append(q.under, j)
	return j
}

// handOver gives the oldest jobs to forward as long as it takes them. It reports true
// when the caller has to go on with begin: the next job needs a goroutine, and nothing
// is under way. forward must return at once.
func (q *jobs) handOver(forward func(*job) bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n > 0 && !q.halted {
		next := q.slot(0)
		if next.kind != jobStatus || next.again || len(next.message) > 0 || !forward(next) {
			if len(q.under) > 0 {
				return false
			}
			q.soon = false
			return true
		}
		q.soon = true
		q.take()
	}
	if len(q.under) == 0 {
		q.active = false
		q.finish()
	}
	return false
}

// oldest returns the job whose call has been under way for longest; nil, if it was
// abandoned meanwhile. It is valid until end.
func (q *jobs) oldest() *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.under) == 0 {
		return nil
	}
	return &q.under[0]
}

// end says that the call of the job begin returned has come back. It reports
// false when the job was abandoned meanwhile.
func (q *jobs) end() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.under) == 0 {
		return false
	}
	q.count(&q.under[0], -1)
	q.under[0] = job{}
	if q.under = q.under[1:]; len(q.under) == 0 {
		q.under = q.one[:0]
	}
	return true
}

// setLimit changes how many statuses and acks are taken; what is queued stays.
func (q *jobs) setLimit(limit int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = limit
}

// size returns the limit.
func (q *jobs) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limit
}

// close refuses further jobs.
func (q *jobs) close() {
	q.mu.Lock()
	q.closed = true
	q.finish()
	q.mu.Unlock()
}

// abandon empties the queue. It returns what waited, and how many statuses were
// not delivered for certain, the running one included.
func (q *jobs) abandon() (left []job, statuses int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	left = make([]job, q.n)
	for i := range left {
		left[i] = q.ring[(q.head+i)%len(q.ring)]
	}
	statuses = q.statuses
	q.ring, q.head, q.n, q.connects, q.asks, q.statuses, q.earlier, q.acks, q.bytes = nil, 0, 0, 0, 0, 0, 0, 0, 0
	q.under = nil
	return left, statuses
}

// waiting returns the statuses that wait, and before them the one whose call is under
// way.
func (q *jobs) waiting() (out []Status) {
	q.mu.Lock()
	defer q.mu.Unlock()
	add := func(j *job) {
		if j.kind == jobStatus {
			out = append(out, Status{Device: j.device, Data: j.data, Error: j.message, Number: j.number, Again: j.again})
		}
	}
	for i := range q.under {
		add(&q.under[i])
	}
	for i := range q.n {
		add(q.slot(i))
	}
	return out
}

// free tells how many more statuses put takes.
func (q *jobs) free() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.bytes >= q.maxBytes {
		return 0
	}
	return max(0, q.limit-q.statuses) // the limit may have been lowered
}

// resuming tells whether a status of an earlier process waits, or its call is under way.
func (q *jobs) resuming() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.earlier > 0
}

// depth returns how many jobs wait or run and when the oldest was queued.
func (q *jobs) depth() (n int, oldest time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case len(q.under) > 0:
		return q.n + len(q.under), q.under[0].at
	case q.n > 0:
		return q.n, q.ring[q.head].at
	}
	return 0, time.Time{}
}
