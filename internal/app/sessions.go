package app

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
	"external-server/internal/logging"
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
	// standbyTimeout bounds the wait for a state directory that another process has. After
	// it the cars are served without: an orchestrator that waits for this process to be
	// ready before it ends the other one must not wait for ever.
	standbyTimeout = 30 * time.Second
	// journalTick is how often journals are looked at that have no answer to wait for, see
	// flushIdle, and how soon the directory knows that a shard is served.
	journalTick = 200 * time.Millisecond
	// lastPollsShare of limits.stop_timeout_ms is waited for the last commands of the modules
	// before the connections are left. With the defaults that is longer than a module waits.
	lastPollsShare = 3
	// journalRetry is how often a journal is begun anew that could not be written.
	journalRetry = 10 * time.Second
)

// sessionsPart lets sessions outlive the process: the state directory, and in it a
// journal per connection to the broker. Trouble with it never keeps cars from being
// served; their sessions end with the process then.
type sessionsPart struct {
	a          *App
	log        *slog.Logger
	dir        *state.Dir              // nil: there is none
	shards     []atomic.Pointer[shard] // in service; nil: not open
	resumes    bool                    // sessions of the process before can go on
	alone      alone                   // see suspect
	final      bool                    // this process is the last one
	trouble    atomic.Pointer[error]   // why sessions end with this process
	suspending atomic.Bool             // the next process goes on
	writes     *task

	mu       sync.Mutex
	declined map[string]int // sessions that cannot go on, by reason
	givenUp  map[string]int // statuses of the process before, by reason
	aside    map[string]int // journals that were set aside, by reason
}

func (*sessionsPart) keys() []string { return []string{"OnStop"} }

func (p *sessionsPart) prepare(ctx context.Context, old, fresh *config.Config) (change, error) {
	if old != nil || fresh.StateDirectory == "" {
		return change{}, nil
	}
	p.log = component(p.a.log, logging.ComponentServer)
	if err := p.open(ctx, fresh); err != nil {
		if ctx.Err() != nil {
			return change{}, context.Cause(ctx)
		}
		if fresh.Cluster != nil {
			return change{}, fmt.Errorf("a server of a cluster needs its state directory: %w", err)
		}
		p.trouble.Store(&err)
		p.log.Warn("the state directory cannot be used: the cars are served, their sessions will end with this process", "error", err)
		return change{}, nil
	}
	p.a.roster.sessions = p
	return change{apply: func(ctx context.Context) error {
		p.writes = begin(ctx, p.keep)
		return nil
	}}, nil
}

// open opens the state directory and reads the journals.
func (p *sessionsPart) open(ctx context.Context, cfg *config.Config) error {
	bound, cancel := context.WithTimeoutCause(ctx, standbyTimeout, fmt.Errorf("another process has had it for %v", standbyTimeout))
	defer cancel()
	dir, err := state.Open(bound, state.Options{
		Dir: cfg.StateDirectory, Shards: shardsOf(cfg), Version: p.a.version, Logger: p.log,
		Waiting: func(holder string) {
			p.log.Warn("the state directory is in use: waiting for that process to end", "directory", cfg.StateDirectory, "holder", holder, "at_most", standbyTimeout.String())
		},
	})
	if err != nil {
		return err
	}
	p.dir = dir
	p.declined, p.givenUp, p.aside = make(map[string]int), make(map[string]int), make(map[string]int)
	if dir.Poisoned() {
		to, err := dir.SetAside()
		if err != nil {
			return errors.Join(err, p.giveUp())
		}
		p.setAside(asideDeaths, dir.Shards(), to)
	}
	if err := dir.Resuming(); err != nil {
		return errors.Join(err, p.giveUp())
	}
	down, known := dir.Down()
	p.resumes = known && down <= resumable
	p.alone = make(alone, 1)
	p.shards = make([]atomic.Pointer[shard], dir.Shards())
	if cfg.Cluster != nil { // they are opened when they are claimed
		return nil
	}
	for n := range p.shards {
		s, err := p.openShard(n, cfg)
		if err != nil {
			return errors.Join(err, p.giveUp())
		}
		p.shards[n].Store(s)
		p.suspect(s, dir.Deaths(), cfg)
	}
	return nil
}

// shardsOf is the number of shards, which is fixed in the directory.
func shardsOf(cfg *config.Config) int {
	if cfg.Cluster != nil {
		return cfg.Cluster.Shards
	}
	return shardCount
}

// giveUp releases the directory after an error.
func (p *sessionsPart) giveUp() error {
	dir := p.dir
	p.dir, p.shards, p.resumes = nil, nil, false
	return dir.Close(false)
}

// durable tells whether sessions can outlive this process.
func (p *sessionsPart) durable() bool { return p != nil && p.dir != nil }

// number is the shard of a car.
func (p *sessionsPart) number(id fleet.CarID) int { return mqtt.Shard(id, len(p.shards)) }

// of is the shard of a car, nil when it is not in service here.
func (p *sessionsPart) of(id fleet.CarID) *shard {
	if !p.durable() {
		return nil
	}
	return p.shards[p.number(id)].Load()
}

// inService returns the shards that are open.
func (p *sessionsPart) inService() (out []*shard) {
	for n := range p.shards {
		if s := p.shards[n].Load(); s != nil {
			out = append(out, s)
		}
	}
	return out
}

// options are what the seat of a car needs to keep its session.
func (p *sessionsPart) options(id fleet.CarID, o *car.Options) {
	s := p.of(id)
	if s == nil {
		return
	}
	o.Journal = s.Journal
	if s.carrier != nil {
		o.Carrier = s.carrier
	}
	if s.permit != nil {
		o.Permit = s.permit
	}
	o.Down = s.down()
	if p.dir.Deaths() > 0 {
		o.Alone = p.alone.take
	}
	o.OwnBroker = p.resumes && p.dir.Clean() && p.a.gateways.ours.Load()
	o.Suspending = func() bool { return p.suspending.Load() || s.suspending.Load() }
}

// take returns what is known of a car, once.
func (p *sessionsPart) take(id fleet.CarID) *record.Resumption {
	if s := p.of(id); s != nil {
		return s.take(id)
	}
	return nil
}

// look returns what is known of a car that is not served yet; it stays known.
func (p *sessionsPart) look(id fleet.CarID) *record.Resumption {
	if s := p.of(id); s != nil {
		return s.look(id)
	}
	return nil
}

// recall reads anew what the journal knows of a car whose occupant has met a defect, nil
// if it is no help.
func (p *sessionsPart) recall(id fleet.CarID) *record.Resumption {
	s := p.of(id)
	if s == nil {
		return nil
	}
	fold, err := s.Reread()
	if err != nil {
		p.log.Warn("the session of a car that failed cannot be resumed", "car", id.Car, "error", err)
		return nil
	}
	known, err := fold.(*record.Fold).Car(id.String())
	if err != nil || known == nil {
		return nil
	}
	known.Local = true
	return known
}

// cars names the cars of the company that something is left to do for and that are not
// taken.
func (p *sessionsPart) cars(company string) (names []string) {
	if !p.durable() {
		return nil
	}
	for _, s := range p.inService() {
		names = append(names, s.cars(company)...)
	}
	slices.Sort(names)
	return names
}

// forget takes cars out of the journals that this process does not serve.
func (p *sessionsPart) forget() {
	if !p.durable() {
		return
	}
	for _, s := range p.inService() {
		p.forgetUnserved(s)
	}
	p.dir.Resumed()
}

// forgetCar takes a car that is not served any more out of its journal.
func (p *sessionsPart) forgetCar(id fleet.CarID) {
	if s := p.of(id); s != nil {
		s.Append(record.Begin(nil, id.String()).Forgotten())
	}
}

// link returns what the link has to know, nil without state directory.
func (p *sessionsPart) link(cfg *config.Config) *mqtt.Sessions {
	if !p.durable() {
		return nil
	}
	prefix := "es-" + p.dir.Identity()
	if cfg.Broker.ClientID != "" {
		prefix = cfg.Broker.ClientID
	}
	return &mqtt.Sessions{
		ClientID: prefix, Shards: len(p.shards), Explicit: cfg.Broker.ClientID != "",
		CleanStart: !p.resumes, OwnBroker: p.a.gateways.ours.Load(),
		Flush:      func(shard int) error { return p.shards[shard].Load().Flush() },
		FlushWaits: cfg.StateSync,
		Self:       self(),
	}
}

// self describes this process to people.
func self() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("host %s, process %d, since %s", host, os.Getpid(), time.Now().UTC().Format(time.DateTime))
}

// keep writes what no answer waits for, and notes which shards are served, until ctx
// ends.
func (p *sessionsPart) keep(ctx context.Context) error {
	tick := time.NewTicker(journalTick)
	defer tick.Stop()
	for outlived := p.a.shards != nil; ; { // in a cluster shards come later
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !outlived && p.outlived() {
			outlived = true
			p.dir.Outlived()
		}
		up := p.up()
		for _, s := range p.inService() {
			if up := up(s.number); up != s.served {
				_ = s.Flush() // first what the connection has ended: the next process looks whether the cars were served of late
				s.Serving(up)
				s.served = up
			}
			s.flushIdle()
			p.mend(s)
		}
	}
}

// up tells which shards have a connection.
func (p *sessionsPart) up() func(shard int) bool {
	if shards := p.a.shards; shards != nil {
		return func(n int) bool {
			state, ok := shards.StateOf(n)
			return ok && state.Up
		}
	}
	connections := p.a.link.State().Connections
	return func(n int) bool { return n < len(connections) && connections[n].Up }
}

// note tells the directory, before the link is suspended, which shards are served.
func (p *sessionsPart) note() {
	up := p.up()
	for _, s := range p.inService() {
		s.Serving(up(s.number))
	}
}

// suspend ends the link in such a way that the next process can go on with the
// sessions, and tells whether it can.
func (p *sessionsPart) suspend(link *linkPart) bool {
	if !p.durable() || p.final || p.a.shards != nil || p.a.link.State().Declined != "" && !p.a.gateways.ours.Load() {
		return false
	}
	p.log.Info("suspending: the next start goes on with the sessions, no gateway is told")
	// While the cars are served: a module may need as long for this as its timeout is.
	p.a.roster.endPolling(p.a.Config().Limits.Stop / lastPollsShare)
	p.note() // what has begun since the last tick
	p.suspending.Store(true)
	link.suspend()
	return true
}

// decline counts a session that cannot go on.
func (p *sessionsPart) decline(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.declined[why]++
}

// Reasons for which answered statuses of the process before are not delivered.
const (
	endedServer   = "ended the server again and again"
	notConfigured = "car is not configured any more"
)

// lose counts statuses of the process before that are not delivered.
func (p *sessionsPart) lose(why, car string, module int32, statuses int) {
	if statuses == 0 {
		return
	}
	p.mu.Lock()
	p.givenUp[why] += statuses
	p.mu.Unlock()
	if hub := p.a.hub; hub != nil {
		hub.Events.Put(observe.Event{
			Kind: observe.KindFault, Car: car, Module: module, Count: statuses, Reason: "statuses given up",
			Text: "answered before the start and not delivered: " + why,
		})
	}
}

// givenUpByReason counts the statuses of the process before that are not delivered.
func (p *sessionsPart) givenUpByReason() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.givenUp)
}

func (p *sessionsPart) declinedByReason() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.declined)
}

// fault is why sessions will end with this process; "" if they need not.
func (p *sessionsPart) fault() string {
	err := p.trouble.Load()
	for _, s := range p.inService() {
		if fault := s.fault.Load(); fault != nil {
			err = fault
		}
	}
	if p.dir != nil && p.dir.Trouble() != nil {
		trouble := p.dir.Trouble()
		err = &trouble
	}
	if err == nil {
		return ""
	}
	return "sessions will end with this process: " + (*err).Error()
}

// stop closes the journals. After a final stop nothing can be resumed.
func (p *sessionsPart) stop() error {
	err := p.writes.stop()
	if p.dir == nil {
		return err
	}
	for _, s := range p.inService() {
		_ = s.Flush()
	}
	return errors.Join(err, p.dir.Close(p.final))
}
