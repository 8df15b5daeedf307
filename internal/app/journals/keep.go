package journals

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"external-server/internal/session/record"
)

const (
	// journalTick is how often journals are looked at that have no answer to wait for, see
	// flushIdle, and how soon the directory knows that a shard is served.
	journalTick = 200 * time.Millisecond
	// journalCheck is how often a journal is looked for in its place.
	journalCheck = time.Second
	// journalRetry is how often a journal is begun anew that could not be written.
	journalRetry = 10 * time.Second
)

// Service is the service of the cars whose sessions are kept.
type Service interface {
	// Up returns what tells whether the cars of a shard have a connection to the broker.
	Up() func(shard int) bool
	// CaughtUp tells whether all that this process has begun with has been dealt with: the
	// modules have the statuses that the process before had accepted, and what the broker held
	// has been read. A journal that has been lived through so far does not end the next
	// process either.
	CaughtUp() bool
	// Record makes the cars of a shard whose journal has begun anew write down their sessions.
	Record(shard int)
}

// Keep writes what no answer waits for, and notes which shards are served, until ctx
// ends.
func (j *Journals) Keep(ctx context.Context, service Service) error {
	tick := time.NewTicker(journalTick)
	defer tick.Stop()
	var checked time.Time
	for outlived := j.shared; ; { // in a cluster shards come later
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !outlived && service.CaughtUp() {
			outlived = true
			j.dir.Outlived()
		}
		check := time.Since(checked) >= journalCheck
		if check {
			checked = time.Now()
		}
		up := service.Up()
		for _, s := range j.InService() {
			if up := up(s.Number); up != s.served {
				_ = s.Flush() // first what the connection has ended: the next process looks whether the cars were served of late
				s.Serving(up)
				s.served = up
			}
			s.flushIdle()
			if check {
				_ = s.Check() // told by OnFault
			}
			j.mend(s, service)
		}
		j.usable()
	}
}

// Suspend says, before the link is suspended, that the next process goes on with the
// sessions, and tells the directory which shards are served.
func (j *Journals) Suspend(up func(shard int) bool) {
	for _, s := range j.InService() { // what has begun since the last look
		s.Serving(up(s.Number))
	}
	j.suspending.Store(true)
}

// flushIdle writes what no answer waits for. In a journal that was written since the last
// look it leaves with the next answer, or is written at the next look.
func (s *Shard) flushIdle() {
	if n := s.Sequence(); n != s.last {
		s.last = n
		return
	}
	_ = s.Flush() // told by OnFault
}

// mend begins a journal anew that could not be written, once in a while: its cars then write
// down their whole sessions. It is called often.
func (j *Journals) mend(s *Shard, service Service) {
	switch {
	case s.fault.Load() == nil:
	case s.Err() == nil: // something was written since
		s.fault.Store(nil)
	case time.Since(s.tried) >= journalRetry:
		s.tried = time.Now()
		s.Restart()
		s.Append(record.Begin(nil, "").Forgotten()) // no car's: it is written also when there are none
		service.Record(s.Number)
		_ = s.Flush() // told by OnFault
	}
}

// failed notes that a journal cannot be used. What ails one usually ails all, and some of them
// can be begun anew at once and fail again: one warning speaks for all.
func (j *Journals) failed(s *Shard, err error) {
	s.fault.Store(&err)
	j.mu.Lock()
	told := !j.failedAt.IsZero()
	j.failedAt = time.Now()
	j.mu.Unlock()
	level := slog.LevelWarn
	if told {
		level = slog.LevelDebug
	}
	j.opts.Logger.Log(context.Background(), level, "a journal cannot be used: the cars of its connection are served, their sessions will end with this process unless it can be begun anew; /readyz shows how it is",
		"shard", s.Number, "error", err, "next_attempt_in", journalRetry.String())
}

// usable says that all journals can be used again, when none has failed for a while.
func (j *Journals) usable() {
	j.mu.Lock()
	over := !j.failedAt.IsZero() && time.Since(j.failedAt) >= journalRetry
	j.mu.Unlock()
	if !over || slices.ContainsFunc(j.InService(), func(s *Shard) bool { return s.fault.Load() != nil }) {
		return
	}
	j.mu.Lock()
	j.failedAt = time.Time{}
	j.mu.Unlock()
	j.opts.Logger.Info("the journals can be used again: the sessions of all cars outlive this process again")
}
