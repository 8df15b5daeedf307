package app

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/cluster/fence"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/journal"
	"external-server/internal/link/mqtt"
	"external-server/internal/session/record"
	"external-server/internal/state"
)

// shard is a shard in service: the journal of one connection to the broker and what it
// knows of the cars of that connection.
type shard struct {
	*state.Shard
	number int
	// Why the journal could not be written last; nil: it can.
	fault atomic.Pointer[error]
	// The next owner goes on with the sessions: the end of the link ends none.
	suspending atomic.Bool
	down       func() time.Duration // for how long the cars have been out of reach

	// In a cluster.
	epoch    atomic.Int64
	standing *fence.Standing
	link     *mqtt.Link
	carrier  *fence.Carrier
	permit   *permit
	carried  map[fleet.CarID][]byte // the records of the owner before, until the cars have taken them over

	// Of keep.
	tried  time.Time // when the journal was begun anew last
	served bool      // the connection of its cars is up
	last   uint64    // batch of the journal

	mu    sync.Mutex
	known map[string]*record.Resumption // by car, until it is served
}

// openShard opens one journal and takes what it knows.
func (p *sessionsPart) openShard(n int, cfg *config.Config) (*shard, error) {
	s, err := p.openJournal(n, cfg)
	if err != nil {
		return nil, err
	}
	if s.SetAside != "" {
		p.setAside(asideReason(s.Declined), 1, s.SetAside)
	}
	s.down = func() time.Duration {
		down, _ := s.Down() // it has grown since the journal was read
		return down
	}
	fold := s.Replayed()
	if s.Declined != nil {
		fold = s.Rest
	}
	f, ok := fold.(*record.Fold)
	if !ok || f == nil {
		return s, nil
	}
	down, served := s.Down() // of this connection: the others may have been served on
	p.learn(s, f, func() string {
		switch {
		case s.Declined != nil:
			return "damaged journal"
		case !served || down > resumable:
			return "out of reach for too long"
		}
		return ""
	}())
	return s, nil
}

// openJournal opens the journal of a shard, of which nothing is known yet.
func (p *sessionsPart) openJournal(n int, cfg *config.Config) (*shard, error) {
	s := &shard{number: n, known: make(map[string]*record.Resumption)}
	var err error
	s.Shard, err = p.dir.OpenShard(n, state.ShardOptions{
		Sync:    cfg.StateSync,
		NewFold: func() journal.Fold { return record.NewFold() },
		OnFault: func(err error) {
			if s.fault.Swap(&err) == nil {
				p.log.Warn("a journal cannot be written: the cars of its connection are served, their sessions will end with this process unless it can be begun anew",
					"shard", n, "error", err, "next_attempt_in", journalRetry.String())
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// learn takes what the records say of the cars of the shard. why is the reason for which
// no session of them can go on; "": they can.
func (p *sessionsPart) learn(s *shard, f *record.Fold, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range f.Cars() {
		known, err := f.Car(name)
		if err != nil {
			p.log.Warn("the session of a car cannot be resumed, it connects anew", "car", name, "error", err)
			p.decline("unreadable")
		} else if known.Record != nil && why != "" {
			p.decline(why)
			known.Record = nil
		}
		s.known[name] = known
	}
}

// take returns what is known of a car, once.
func (s *shard) take(id fleet.CarID) *record.Resumption {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[id.String()]
	delete(s.known, id.String())
	return known
}

// look returns what is known of a car that is not served yet; it stays known.
func (s *shard) look(id fleet.CarID) *record.Resumption {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[id.String()]
}

// cars names the cars of the company that something is left to do for and that are not
// taken.
func (s *shard) cars(company string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, known := range s.known {
		if of, name, _ := strings.Cut(id, "/"); of == company && unfinished(known) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func unfinished(known *record.Resumption) bool { return known.Record != nil || len(known.Left) > 0 }

// forgetUnserved takes cars out of the journal that are not served: they are not in the
// configuration any more.
func (p *sessionsPart) forgetUnserved(s *shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, known := range s.known {
		if unfinished(known) {
			company, name, _ := strings.Cut(id, "/")
			p.log.Warn("a car of the process before is not configured any more; its session is not resumed and what its modules had not taken is lost",
				"company", company, "car", name, "statuses", len(known.Left))
			p.lose(notConfigured, name, 0, len(known.Left))
		}
		s.Append(record.Begin(nil, id).Forgotten())
	}
	s.known = nil
}

// flushIdle writes what no answer waits for. In a journal that was written since the last
// look it leaves with the next answer, or is written at the next look.
func (s *shard) flushIdle() {
	if n := s.Sequence(); n != s.last {
		s.last = n
		return
	}
	_ = s.Flush() // told by OnFault
}

// mend begins a journal anew that could not be written, once in a while: its cars then write
// down their whole sessions. It is called often.
func (p *sessionsPart) mend(s *shard) {
	switch {
	case s.fault.Load() == nil:
	case s.Err() == nil: // something was written since
		s.fault.Store(nil)
		p.log.Info("the journal can be written again: the sessions of its cars outlive this process again", "shard", s.number)
	case time.Since(s.tried) >= journalRetry:
		s.tried = time.Now()
		s.Restart()
		s.Append(record.Begin(nil, "").Forgotten()) // no car's: it is written also when there are none
		p.a.roster.record(func(e *entry) bool { return p.number(e.id) == s.number })
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
