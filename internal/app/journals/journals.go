// Package journals lets sessions outlive the process: it keeps the state directory, and
// in it a journal per shard, which is the cars of one connection to the broker.
package journals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/car"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/link/mqtt"
	"external-server/internal/observe"
	"external-server/internal/session/record"
	"external-server/internal/state"
)

const (
	// shardCount is the number of connections, and journals, with a state directory. It
	// is fixed in the directory.
	shardCount = 32
	// resumable is for how long the cars may have been out of reach to be resumed: their
	// gateways give up after 30 s (GW-2).
	resumable = 25 * time.Second
	// standbyTimeout is for how long a state directory is waited for that another process has. After
	// it the cars are served without, if that process is halted or hung. One that is at work serves
	// them: this one goes on waiting, since two servers would end each other's sessions.
	standbyTimeout = 30 * time.Second
)

// Options of New.
type Options struct {
	Logger *slog.Logger
	// Version of the server, which the state directory is told.
	Version string
	// OwnBroker tells whether the server is connected to its embedded broker.
	OwnBroker func() bool
	// Tell takes what happened to journals and statuses.
	Tell func(observe.Event)
}

// Journals are the journals of this process. Trouble with them never keeps cars from
// being served; their sessions end with the process then. Its methods may be called
// concurrently once Open has returned; without Open no session outlives the process.
type Journals struct {
	opts       Options
	dir        *state.Dir              // nil: there is none
	shared     bool                    // with other replicas: shards come and go
	shards     []atomic.Pointer[Shard] // in service; nil: not open
	resumes    bool                    // sessions of the process before can go on
	alone      alone                   // see suspect
	trouble    atomic.Pointer[error]   // why sessions end with this process
	suspending atomic.Bool             // the next process goes on

	mu       sync.Mutex
	failedAt time.Time      // when a journal could not be used last; zero: all can, which is told
	declined map[string]int // sessions that cannot go on, by reason
	givenUp  map[string]int // statuses of the process before, by reason
	aside    map[string]int // journals that were set aside, by reason
}

// New returns journals without a state directory. The caller calls Close.
func New(opts Options) *Journals { return &Journals{opts: opts} }

// Open opens the state directory of the configuration and, unless replicas share the
// cars, its journals. After an error the cars can be served without.
func (j *Journals) Open(ctx context.Context, cfg *config.Config) error {
	err := j.open(ctx, cfg)
	if err != nil {
		j.trouble.Store(&err)
	}
	return err
}

// open opens the state directory and reads the journals.
func (j *Journals) open(ctx context.Context, cfg *config.Config) error {
	dir, err := j.wait(ctx, cfg)
	if err != nil {
		return err
	}
	j.dir, j.shared = dir, cfg.Cluster != nil
	j.declined, j.givenUp, j.aside = make(map[string]int), make(map[string]int), make(map[string]int)
	if n, to := dir.Lost(); n > 0 {
		j.setAside(asideDamaged, n, to)
	}
	if dir.Poisoned() {
		to, err := dir.SetAside()
		if err != nil {
			return errors.Join(err, j.giveUp())
		}
		j.setAside(asideDeaths, dir.Shards(), to)
	}
	if err := dir.Resuming(); err != nil {
		return errors.Join(err, j.giveUp())
	}
	down, known := dir.Down()
	j.resumes = known && down <= resumable
	j.alone = make(alone, 1)
	j.shards = make([]atomic.Pointer[Shard], dir.Shards())
	if j.shared { // they are opened when they are claimed
		return nil
	}
	for n := range j.shards {
		s, err := j.OpenShard(n, cfg)
		if err != nil {
			return errors.Join(err, j.giveUp())
		}
		j.shards[n].Store(s)
	}
	return nil
}

// giveUp releases the directory after an error.
func (j *Journals) giveUp() error {
	dir := j.dir
	j.dir, j.shards, j.resumes = nil, nil, false
	return dir.Close(false)
}

// Durable tells whether sessions can outlive this process.
func (j *Journals) Durable() bool { return j.dir != nil }

// Number is the shard of a car.
func (j *Journals) Number(id fleet.CarID) int { return mqtt.Shard(id, len(j.shards)) }

// Of is the shard of a car, nil when it is not in service here.
func (j *Journals) Of(id fleet.CarID) *Shard {
	if !j.Durable() {
		return nil
	}
	return j.shards[j.Number(id)].Load()
}

// Dir is the state directory; nil: there is none.
func (j *Journals) Dir() *state.Dir { return j.dir }

// Enter puts a shard in service.
func (j *Journals) Enter(s *Shard) { j.shards[s.Number].Store(s) }

// Leave takes a shard out of service: no car of it is attached any more.
func (j *Journals) Leave(shard int) { j.shards[shard].Store(nil) }

// InService returns the shards that are open.
func (j *Journals) InService() (out []*Shard) {
	for n := range j.shards {
		if s := j.shards[n].Load(); s != nil {
			out = append(out, s)
		}
	}
	return out
}

// Options are what the seat of a car needs to keep its session.
func (j *Journals) Options(id fleet.CarID, o *car.Options) {
	s := j.Of(id)
	if s == nil {
		return
	}
	o.Journal = s.Journal
	o.Carrier, o.Permit = s.Carrier, s.Permit
	o.Down = s.Away()
	if j.dir.Deaths() > 0 {
		o.Alone = j.alone.take
	}
	o.OwnBroker = j.resumes && j.dir.Clean() && j.opts.OwnBroker()
	o.Suspending = func() bool { return j.suspending.Load() || s.suspending.Load() }
}

// Take returns what is known of a car, once.
func (j *Journals) Take(id fleet.CarID) *record.Resumption {
	if s := j.Of(id); s != nil {
		return s.take(id)
	}
	return nil
}

// Look returns what is known of a car that is not served yet; it stays known.
func (j *Journals) Look(id fleet.CarID) *record.Resumption {
	if s := j.Of(id); s != nil {
		return s.Look(id)
	}
	return nil
}

// Recall reads anew what the journal knows of a car whose occupant has met a defect, nil
// if it is no help.
func (j *Journals) Recall(id fleet.CarID) *record.Resumption {
	s := j.Of(id)
	if s == nil {
		return nil
	}
	fold, err := s.Reread()
	if err != nil {
		j.opts.Logger.Warn("the session of a car that failed cannot be resumed", "car", id.Car, "error", err)
		return nil
	}
	known, err := fold.(*record.Fold).Car(id.String())
	if err != nil || known == nil {
		return nil
	}
	known.Local = true
	return known
}

// Cars names the cars of the company that something is left to do for and that are not
// taken.
func (j *Journals) Cars(company string) (names []string) {
	if !j.Durable() {
		return nil
	}
	for _, s := range j.InService() {
		names = append(names, s.Cars(company)...)
	}
	slices.Sort(names)
	return names
}

// ForgetAllUnserved takes cars out of the journals that this process does not serve.
func (j *Journals) ForgetAllUnserved() {
	if !j.Durable() {
		return
	}
	j.ForgetUnserved(j.InService()...)
	j.dir.Resumed()
}

// ForgetCar takes a car that is not served any more out of its journal.
func (j *Journals) ForgetCar(id fleet.CarID) {
	if s := j.Of(id); s != nil {
		s.Append(record.Begin(nil, id.String()).Forgotten())
	}
}

// Link returns what the link has to know, nil without state directory.
func (j *Journals) Link(cfg *config.Config) *mqtt.Sessions {
	if !j.Durable() {
		return nil
	}
	prefix := "es-" + j.dir.Identity()
	if cfg.Broker.ClientID != "" {
		prefix = cfg.Broker.ClientID
	}
	return &mqtt.Sessions{
		ClientID: prefix, Shards: len(j.shards), Explicit: cfg.Broker.ClientID != "",
		CleanStart: !j.resumes, OwnBroker: j.opts.OwnBroker(),
		Flush:      func(shard int) error { return j.shards[shard].Load().Flush() },
		FlushWaits: cfg.StateSync,
		Self:       ThisProcess(),
	}
}

// ThisProcess describes this process to people.
func ThisProcess() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("host %s, process %d, since %s", host, os.Getpid(), time.Now().UTC().Format(time.DateTime))
}

// Decline counts a session that cannot go on.
func (j *Journals) Decline(why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.declined[why]++
}

// Reasons for which answered statuses of the process before are not delivered.
const (
	endedServer   = "ended the server again and again"
	notConfigured = "car is not configured any more"
)

// lose counts statuses of the process before that are not delivered.
func (j *Journals) lose(why, car string, module int32, statuses int) {
	if statuses == 0 {
		return
	}
	j.mu.Lock()
	j.givenUp[why] += statuses
	j.mu.Unlock()
	j.opts.Tell(observe.Event{
		Kind: observe.KindFault, Car: car, Module: module, Count: statuses, Reason: "statuses given up",
		Text: "answered before the start and not delivered: " + why,
	})
}

// GivenUp counts the statuses of the process before that are not delivered, by reason.
func (j *Journals) GivenUp() map[string]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.givenUp)
}

// Declined counts the sessions that cannot go on, by reason.
func (j *Journals) Declined() map[string]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.declined)
}

// Fault is why sessions will end with this process; "" if they need not.
func (j *Journals) Fault() string {
	err := j.trouble.Load()
	for _, s := range j.InService() {
		if fault := s.fault.Load(); fault != nil {
			err = fault
		}
	}
	if j.dir != nil && j.dir.Trouble() != nil {
		trouble := j.dir.Trouble()
		err = &trouble
	}
	if err == nil {
		return ""
	}
	return "sessions will end with this process: " + (*err).Error()
}

// Close closes the journals. After a final stop nothing can be resumed.
func (j *Journals) Close(final bool) error {
	if j.dir == nil {
		return nil
	}
	for _, s := range j.InService() {
		_ = s.Flush()
	}
	return j.dir.Close(final)
}
