package journals

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/car"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/journal"
	"external-server/internal/module"
	"external-server/internal/session/record"
	"external-server/internal/state"
)

// Shard is a shard in service: the journal of one connection to the broker and what it
// knows of the cars of that connection.
type Shard struct {
	*state.Shard
	Number int
	// Why the journal could not be written last; nil: it can.
	fault atomic.Pointer[error]
	// The next owner goes on with the sessions: the end of the link ends none.
	suspending atomic.Bool
	// Away tells for how long the cars have been out of reach.
	Away func() time.Duration

	// Of an owner in a cluster; nil: there is none.
	Carrier car.Carrier
	Permit  module.Permit

	// Of Keep.
	tried  time.Time // when the journal was begun anew last
	served bool      // the connection of its cars is up
	last   uint64    // batch of the journal

	mu    sync.Mutex
	known map[string]*record.Resumption // by car, until it is served
}

// OpenShard opens one journal and takes what it knows, but for statuses that have ended the
// processes before.
func (j *Journals) OpenShard(n int, cfg *config.Config) (*Shard, error) {
	s, err := j.OpenEmpty(n, cfg)
	if err != nil {
		return nil, err
	}
	if s.SetAside != "" && !s.Lost {
		j.setAside(asideReason(s.Declined), 1, s.SetAside)
	}
	s.Away = func() time.Duration {
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
	j.learn(s, f, func() string {
		switch {
		case s.Declined != nil:
			return "damaged journal"
		case !served || down > resumable:
			return "out of reach for too long"
		}
		return ""
	}())
	j.suspect(s, j.dir.Deaths(), cfg)
	return s, nil
}

// OpenEmpty opens the journal of a shard and takes nothing of what it knows.
func (j *Journals) OpenEmpty(n int, cfg *config.Config) (*Shard, error) {
	s := &Shard{Number: n, known: make(map[string]*record.Resumption)}
	var err error
	s.Shard, err = j.dir.OpenShard(n, state.ShardOptions{
		Sync:    cfg.StateSync,
		NewFold: func() journal.Fold { return record.NewFold() },
		OnFault: func(err error) { j.failed(s, err) },
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Learn takes what the records say of the cars of the shard, whose sessions go on.
func (j *Journals) Learn(s *Shard, f *record.Fold) { j.learn(s, f, "") }

// learn takes what the records say of the cars of the shard. why is the reason for which
// no session of them can go on; "": they can.
func (j *Journals) learn(s *Shard, f *record.Fold, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range f.Cars() {
		known, err := f.Car(name)
		if err != nil {
			j.opts.Logger.Warn("the session of a car cannot be resumed, it connects anew", "car", name, "error", err)
			j.Decline("unreadable")
		} else if known.Record != nil && why != "" {
			j.Decline(why)
			known.Record = nil
		}
		s.known[name] = known
	}
}

// Know takes what is known of a car from elsewhere; car is its CarID as text.
func (s *Shard) Know(car string, known *record.Resumption) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[car] = known
}

// Suspend says that the next owner goes on with the sessions: the end of the link ends none.
func (s *Shard) Suspend() { s.suspending.Store(true) }

// take returns what is known of a car, once.
func (s *Shard) take(id fleet.CarID) *record.Resumption {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[id.String()]
	delete(s.known, id.String())
	return known
}

// Look returns what is known of a car that is not served yet; it stays known.
func (s *Shard) Look(id fleet.CarID) *record.Resumption {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[id.String()]
}

// Cars names the cars of the company that something is left to do for and that are not
// taken.
func (s *Shard) Cars(company string) (names []string) {
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

// ForgetUnserved takes cars out of the journals that are not served: they are not in the
// configuration any more.
func (j *Journals) ForgetUnserved(shards ...*Shard) {
	var gone []string
	statuses := 0
	for _, s := range shards {
		s.mu.Lock()
		for id, known := range s.known {
			if unfinished(known) {
				_, name, _ := strings.Cut(id, "/")
				gone = append(gone, id)
				statuses += len(known.Left)
				j.lose(notConfigured, name, 0, len(known.Left))
			}
			s.Append(record.Begin(nil, id).Forgotten())
		}
		s.known = nil
		s.mu.Unlock()
	}
	if len(gone) == 0 {
		return
	}
	slices.Sort(gone) // there may be thousands, for instance of another company
	j.opts.Logger.Warn("cars of the process before are not configured any more; their sessions are not resumed and what their modules had not taken is lost",
		"cars", len(gone), "statuses", statuses, "first", strings.Join(gone[:min(len(gone), 8)], " "))
}
