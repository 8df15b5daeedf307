package fleetapi

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"external-server/internal/module/spool"
)

// Bounds of one window, which is what is posted before the queue is looked at
// again, and so of one array.
const (
	windowEntries = 100
	windowBytes   = 1 << 20
)

// spoolRetry is the pause before a spool in use elsewhere, or one that cannot be
// read, is tried again; while it stays in use the pause grows.
const (
	spoolRetry    = time.Second
	spoolRetryMax = 30 * time.Second
)

var errQueueClosed = errors.New("the instance is closed")

// queue is the bounded FIFO of one instance (REC-22). With a spool, entries are
// kept there and survive the process; the memory holds only what came after the
// spool failed, so what is in the spool is always older. One goroutine puts,
// one takes.
type queue struct {
	number    int32
	limit     int // entries in memory
	byteLimit int // bytes in memory; one entry always fits
	log       *slog.Logger

	mu         sync.Mutex
	mem        []entry
	memoryOnly bool // new entries are not spooled
	bytes      int
	closed     bool
	busy       bool          // a poster is running
	room       chan struct{} // closed and replaced when something left
	oldest     time.Time     // of the window
	spooled    bool          // the window came from the spool
	// delivered counts entries in mem, behind its first, that were posted before
	// the poster gave up.
	delivered int

	open     func() (*spool.Spool, error) // nil: no spool
	spool    *spool.Spool                 // nil: none, or not ours yet; then for good
	failing  bool                         // of the putting goroutine: the failure has been logged
	told     func(error)                  // of a spool that fails, and with nil that it works again
	failures uint64                       // entries that went to memory because of the spool
	damaged  uint64                       // records that could not be read
}

func newQueue(number int32, limit, byteLimit int, log *slog.Logger) *queue {
	return &queue{number: number, limit: limit, byteLimit: byteLimit, log: log, room: make(chan struct{}), told: func(error) {}}
}

// enqueue appends the entry. While there is no room it waits: the worker's own queue
// then fills up and the session withholds answers, which keeps the promise of
// those already given. start reports that the caller has to start a poster.
func (q *queue) enqueue(ctx context.Context, e entry) (start bool, err error) {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return false, errQueueClosed
		}
		room := q.room
		s := q.spool
		useSpool := s != nil && len(q.mem) == 0 && !q.memoryOnly
		if !useSpool && q.fits(&e) {
			start = q.add(e)
			q.mu.Unlock()
			return start, nil
		}
		q.mu.Unlock()
		if useSpool {
			stored, full := q.trySpool(s, &e)
			q.mu.Lock()
			if stored {
				if q.oldest.IsZero() {
					q.oldest = e.at
				}
				start = q.claim()
				q.mu.Unlock()
				return start, nil
			}
			if !full && !q.closed && q.fits(&e) {
				start = q.add(e)
				q.mu.Unlock()
				return start, nil
			}
			q.mu.Unlock()
		}
		select {
		case <-room:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// emptied waits until nothing is queued any more. An error is that of ctx, or says that the queue was closed with
// something in it.
func (q *queue) emptied(ctx context.Context) error {
	for {
		q.mu.Lock()
		room, closed := q.room, q.closed
		left := len(q.mem)
		q.mu.Unlock()
		switch {
		case left == 0:
			return nil
		case closed:
			return errQueueClosed
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (q *queue) fits(e *entry) bool {
	return len(q.mem) == 0 || len(q.mem) < q.limit && q.bytes+e.size() <= q.byteLimit
}

func (q *queue) add(e entry) bool {
	q.mem = append(q.mem, e)
	q.bytes += e.size()
	if q.open != nil {
		q.failures++
	}
	return q.claim()
}

// claim reports whether a poster has to be started, and counts it as running.
func (q *queue) claim() bool {
	start := !q.busy
	q.busy = true
	return start
}

// trySpool appends the entry to the spool. Not stored and not full means that it failed.
func (q *queue) trySpool(s *spool.Spool, e *entry) (stored, full bool) {
	err := s.Append(e.appendRecord(nil))
	switch {
	case err == nil:
		if q.failing {
			q.failing = false
			q.told(nil)
			q.log.Info("the spool takes statuses again")
		}
		return true, false
	case errors.Is(err, spool.ErrFull):
		return false, true
	case !q.failing:
		q.failing = true
		q.told(err)
		q.log.Warn("the spool fails, statuses are kept in memory only until it works again", "error", err)
	}
	return false, false
}

// await opens the spool that was in use when the instance was made, by the
// instance it replaces, or that had no room on the disk. It returns when it has, or
// after one last attempt when ctx has ended. start reports that the caller has to
// start a poster for what is there: perhaps no status ever comes that would.
func (q *queue) await(ctx context.Context) (start bool) {
	pause, told := spoolRetry, false
	for last := false; !last; pause = min(2*pause, spoolRetryMax) {
		last = sleep(ctx, pause) != nil
		s, err := q.open()
		switch {
		case err == nil:
			q.mu.Lock()
			defer q.mu.Unlock()
			q.told(nil)
			q.spool = s
			return s.Len() > 0 && q.claim()
		case !told && !errors.Is(err, spool.ErrLocked):
			told = true
			q.told(err)
			q.log.Warn("the spool cannot be opened, statuses are kept in memory until it can", "error", err)
		}
	}
	return false
}

// window returns the oldest entries without removing them, nil when there is
// nothing: the poster has then ended as far as the queue is concerned. With an
// error it has not; the spool cannot be read just now.
func (q *queue) window() ([]entry, error) {
	for {
		q.mu.Lock()
		s := q.spool
		if s == nil || s.Len() == 0 {
			w := q.memoryWindow()
			q.mu.Unlock()
			return w, nil
		}
		q.mu.Unlock()
		if w, err := q.spoolWindow(s); w != nil || err != nil {
			return w, err
		}
	}
}

func (q *queue) memoryWindow() []entry {
	q.spooled = false
	if len(q.mem) == 0 {
		q.busy = false
		q.oldest = time.Time{}
		return nil
	}
	n, size := 0, 0
	for n < len(q.mem) && n < windowEntries && (n == 0 || size+q.mem[n].size() <= windowBytes) {
		size += q.mem[n].size()
		n++
	}
	q.oldest = q.mem[0].at
	return append([]entry(nil), q.mem[:n]...)
}

// spoolWindow returns nil when there was nothing readable. A record that is none
// of ours is passed over: the entries before it are the window.
func (q *queue) spoolWindow(s *spool.Spool) ([]entry, error) {
	records, err := s.Peek(windowEntries, windowBytes)
	if err != nil {
		return nil, err
	}
	var w []entry
	for _, r := range records {
		e, err := parseRecord(r, q.number)
		if err != nil {
			if len(w) > 0 {
				break // next time it is the first
			}
			q.damage("a record of the spool is not a status and is skipped", err)
			q.ack(s, 1)
			return nil, nil
		}
		w = append(w, e)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spooled = len(w) > 0
	if q.spooled {
		q.oldest = w[0].at
	}
	return w, nil
}

func (q *queue) damage(text string, err error) {
	q.mu.Lock()
	q.damaged++
	q.mu.Unlock()
	q.log.Warn(text, "error", err)
}

func (q *queue) ack(s *spool.Spool, n int) {
	if err := s.Ack(n); err != nil {
		q.log.Warn("the position in the spool cannot be kept; after a restart some statuses would be posted again", "error", err)
	}
}

// remove forgets the first n entries of the last window.
func (q *queue) remove(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.spooled {
		s := q.spool
		q.mu.Unlock()
		q.ack(s, n)
		q.mu.Lock()
	} else {
		for i := range q.mem[:n] {
			q.bytes -= q.mem[i].size()
			q.mem[i] = entry{}
		}
		if q.mem = q.mem[n:]; len(q.mem) == 0 {
			q.mem = nil // a burst must not hold its memory for ever
		}
	}
	close(q.room)
	q.room = make(chan struct{})
}

// posterGaveUp lets the next poster begin; done tells which entries of its
// window need no more posting. They are removed as far as the spool's order
// allows; the rest of them may be posted again by the next run.
func (q *queue) posterGaveUp(done []bool) {
	first := 0
	for first < len(done) && done[first] {
		first++
	}
	if first > 0 {
		q.remove(first)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = false
	if !q.spooled {
		for _, d := range done[first:] {
			if d {
				q.delivered++
			}
		}
	}
}

// kept tells whether closing loses nothing.
func (q *queue) kept() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.spool != nil && len(q.mem) == 0
}

// release closes the spool after the last poster has ended. It returns how many
// entries stay there and how many are lost with the memory.
func (q *queue) release() (kept, lost int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lost = len(q.mem) - q.delivered
	if q.spool != nil {
		// What is only in memory goes behind the rest, if there is room.
		for lost > 0 && len(q.mem) > 0 && q.delivered == 0 && q.spool.Append(q.mem[0].appendRecord(nil)) == nil {
			q.mem = q.mem[1:]
			lost--
		}
		kept = q.spool.Len()
		err = q.spool.Close()
	}
	q.mem, q.bytes = nil, 0
	q.told(nil)
	return kept, lost, err
}

// faults returns how often the spool failed and how many places in it could not
// be read.
func (q *queue) faults() (failures, damaged uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	damaged = q.damaged
	if q.spool != nil {
		damaged += q.spool.Skipped()
	}
	return q.failures, damaged
}

// refuseMore refuses further entries and wakes those who wait for room.
func (q *queue) refuseMore() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.room)
		q.room = make(chan struct{})
	}
}

// depth returns how many entries wait, their bytes, and how many of them are in
// the spool.
func (q *queue) depth() (entries, spooled int, bytes int64, oldest time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	entries, bytes, oldest = len(q.mem), int64(q.bytes), q.oldest
	if q.spool != nil {
		spooled = q.spool.Len()
		entries += spooled
		bytes += q.spool.Bytes()
	}
	if oldest.IsZero() && len(q.mem) > 0 {
		oldest = q.mem[0].at
	}
	return entries, spooled, bytes, oldest
}
