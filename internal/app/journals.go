package app

import (
	"sync/atomic"
	"time"

	"external-server/internal/link/mqtt"
	"external-server/internal/session"
)

// journalState is what became of one journal.
type journalState struct {
	fault atomic.Pointer[error] // why it could not be written last; nil: it can
	// Of keep.
	tried  time.Time // when it was begun anew last
	served bool      // the connection of its cars is up
}

// mend begins a journal anew that could not be written, once in a while: its cars then write
// down their whole sessions. It is called often.
func (p *sessionsPart) mend(n int) {
	s, j := p.shards[n], &p.journals[n]
	switch {
	case j.fault.Load() == nil:
	case s.Err() == nil: // something was written since
		j.fault.Store(nil)
		p.log.Info("the journal can be written again: the sessions of its cars outlive this process again", "shard", n)
	case time.Since(j.tried) >= journalRetry:
		j.tried = time.Now()
		s.Restart()
		s.Append(session.AppendForgotten(nil, "")) // no car's: it is written also when there are none
		p.a.roster.record(func(e *entry) bool { return mqtt.Shard(e.id, len(p.shards)) == n })
		_ = s.Flush() // told by OnFault
	}
}

// record makes the cars write down their sessions if their journal has begun anew.
func (r *roster) record(which func(*entry) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		if which(e) {
			e.seat.Record()
		}
	}
}
