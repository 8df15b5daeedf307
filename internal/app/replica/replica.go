// Package replica is this server's part in a cluster: it takes shards over, serves them and
// gives them away, as cluster tells it, and talks with the other replicas.
package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/app/journals"
	"external-server/internal/app/roster"
	"external-server/internal/cluster"
	"external-server/internal/cluster/etcd"
	"external-server/internal/cluster/fence"
	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/link/shards"
	"external-server/internal/logging"
	"external-server/internal/module"
	"external-server/internal/peer"
	"external-server/internal/state"
)

// Options of Join.
type Options struct {
	// Config returns the configuration in force.
	Config  func() *config.Config
	Logger  *slog.Logger
	Version string
	// Journals are open and have no shard in service.
	Journals *journals.Journals
	// Server is where the other replicas ask this one; they reach it at Address. Client asks
	// them.
	Server  *peer.Server
	Address string
	Client  *peer.Client
	// Owners are told who serves what.
	Owners *Owners
	// Shards is the link of all cars, which gets the connections of the shards.
	Shards *shards.Link
	// Link returns what the connections to the broker have in common, with the settings in force.
	Link func() mqtt.Options
	// Processes tells how the modules are that run in processes of their own.
	Processes func() []module.ProcessState
	// StoreEpoch tells which epoch of a shard the message store of the HTTP API knows, and
	// of which replica; nil: there is no HTTP API.
	StoreEpoch func(ctx context.Context, shard int) (epoch int64, replica string, err error)
	// Membership is used instead of etcd; nil: etcd is.
	Membership func(cluster.Host) Membership
}

// Replica shares the cars with other replicas: it opens the shards that this one is given
// and gives them away. It implements cluster.Host. Its methods may be called concurrently.
type Replica struct {
	opts      Options
	log       *slog.Logger
	limit     logging.Limiter // of what strangers cause
	journals  *journals.Journals
	dir       *state.Dir
	cars      *roster.Roster // set by Begin
	name      string         // of the cluster
	timing    cluster.Timing
	self      fence.Epoch
	cluster   Membership
	offers    *offers
	inquiries inquiries             // what the others say of the broker, for one that it does not answer
	reach     *reach                // which other replicas do not answer this one
	health    atomic.Pointer[error] // nil: this replica can serve
	scouts    chan struct{}         // one for each Connect that is being handed on
	handing   sync.WaitGroup        // of those
	final     atomic.Bool           // this is the end of all sessions that no other takes
	life      context.Context       // of those
	end       context.CancelFunc    // of life
	part      context.Context       // of Run; its cause is why this replica can not go on
	retire    context.CancelCauseFunc

	reloaded  func(fingerprint string)  // tells the others which configuration is in force
	heardAt   atomic.Pointer[time.Time] // when the broker has answered last over another connection than those of the shards
	discarded atomic.Uint64             // answered statuses that no module was given

	turns  []sync.Mutex            // of the shards: one changes the state of a shard at a time
	shards []atomic.Pointer[shard] // in service, as in journals; nil: not here
}

// shard is a shard that this replica serves.
type shard struct {
	*journals.Shard
	standing *fence.Standing
	link     *mqtt.Link
	carrier  *fence.Carrier
	permit   *permit
	carried  map[fleet.CarID][]byte // the records of the owner before, until the cars have taken them over
}

// epoch is that under which the shard is served.
func (s *shard) epoch() int64 { return s.standing.Epoch().Epoch }

// inService returns the shards that this replica serves.
func (r *Replica) inService() (out []*shard) {
	for n := range r.shards {
		if s := r.shards[n].Load(); s != nil {
			out = append(out, s)
		}
	}
	return out
}

// openEmpty opens the journal of a shard, of which nothing is known yet.
func (r *Replica) openEmpty(n int) (*shard, error) {
	s, err := r.journals.OpenEmpty(n, r.opts.Config())
	if err != nil {
		return nil, err
	}
	return &shard{Shard: s}, nil
}

// Membership is this replica's part in the cluster: *cluster.Cluster.
type Membership interface {
	// Run joins the cluster and tells a cluster.Host what to do until ctx ends.
	Run(ctx context.Context) error
	// Drain gives all shards away, as far as others take them.
	Drain(ctx context.Context) error
	// View is what is known of the cluster; Changed is closed when there is something newer.
	View() *cluster.View
	Changed() <-chan struct{}
	// BeginDrain begins a Drain and does not wait.
	BeginDrain()
	// Counts is what this replica did.
	Counts() cluster.Counts
	// Lease is the lease of this replica, and when it ends by this machine's monotonic clock unless etcd is
	// heard from before.
	Lease() (id int64, until time.Time)
	// AnyCar says whether cars found by "*" are served from now on.
	AnyCar(served bool)
	// Lost says that the broker has told of another owner of the shard.
	Lost(shard int)
}

// Bounds of the cluster.
const (
	// handOverWait is for how long a shard waits for connect sequences before it is handed
	// over: those would have to begin anew.
	handOverWait = 5 * time.Second
	// upWait bounds the wait for the connection of a shard that is being opened.
	upWait = 10 * time.Second
	// drainShare times limits.stop_timeout_ms bounds the handing over of all shards at a
	// stop: with the default it fits into the 10 s that containers and units have.
	drainShare = 2
	// handedOn bounds the Connects of unknown cars that are handed on at the same time.
	handedOn = 256
)

var _ cluster.Host = (*Replica)(nil)

// Join prepares to take part in the cluster of the configuration. The caller calls Begin,
// then Run and Look; Leave; and End.
func Join(ctx context.Context, opts Options) (*Replica, error) {
	cfg := opts.Config()
	c := cfg.Cluster
	r := &Replica{
		opts: opts, log: opts.Logger, journals: opts.Journals, dir: opts.Journals.Dir(),
		name: c.Name, timing: cluster.TimingFor(c.Lease), self: fence.Epoch{Replica: c.Replica, Address: opts.Address, Shards: c.Shards},
		offers: newOffers(c.Shards), scouts: make(chan struct{}, handedOn),
		turns: make([]sync.Mutex, c.Shards), shards: make([]atomic.Pointer[shard], c.Shards),
	}
	r.life, r.end = context.WithCancel(context.WithoutCancel(ctx))
	r.part, r.retire = context.WithCancelCause(r.life)
	var err error
	if r.cluster, err = r.join(cfg); err != nil {
		r.end()
		return nil, err
	}
	r.inquiries.ask = func(ctx context.Context, address string) (peerShard, error) { return r.askPeer(ctx, address, 0) }
	r.reach = r.contacts()
	r.heardAt.Store(new(time.Time))
	notYet := errors.New("the broker was not asked yet")
	r.health.Store(&notYet)
	r.serve()
	opts.Owners.joined.Store(r)
	return r, nil
}

// join prepares to be a member.
func (r *Replica) join(cfg *config.Config) (Membership, error) {
	r.reloaded = func(string) {}
	if r.opts.Membership != nil {
		return r.opts.Membership(r), nil
	}
	c := cfg.Cluster
	secure, err := tlsfiles.Client(c.TLS)
	if err != nil {
		return nil, fmt.Errorf("cluster.tls: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	store := etcd.New(etcd.Options{
		Endpoints: c.Etcd, Username: c.Username, Password: c.Password.Reveal(), TLS: secure,
		Cluster: c.Name, Shards: c.Shards, Lease: c.Lease, Log: r.log,
		Self: cluster.Member{
			Name: c.Replica, Address: r.self.Address, Version: r.opts.Version, Fingerprint: cfg.Fingerprint(),
			Identity: r.dir.Identity(), Instance: rand.Text(), Host: host, PID: os.Getpid(),
		},
	})
	r.reloaded = store.SetFingerprint
	return cluster.New(cluster.Options{
		Self: c.Replica, Shards: c.Shards, Scout: cfg.AnyCar != nil, Store: store, Host: r, Log: r.log,
		Timing: r.timing,
	}), nil
}

// Begin says that cars can be attached.
func (r *Replica) Begin(cars *roster.Roster) { r.cars = cars }

// Run takes part in the cluster until ctx ends. An error before that says that this replica can not.
func (r *Replica) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.part, cancel)()
	err := r.cluster.Run(ctx)
	if why := (*fence.ShardsError)(nil); errors.As(context.Cause(r.part), &why) {
		return errors.Join(fmt.Errorf("cluster: %w", why), err)
	}
	return err
}

// Reloaded says that another configuration is in force.
func (r *Replica) Reloaded(cfg *config.Config) {
	r.reloaded(cfg.Fingerprint())
	r.cluster.AnyCar(cfg.AnyCar != nil)
}

// Leave gives the shards to the other replicas, at a stop, and suspends those that no other
// takes, unless this is a final stop.
func (r *Replica) Leave(final bool) {
	r.final.Store(final)
	limit := drainShare * r.opts.Config().Limits.Stop
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	r.log.Info("handing the cars over to the other replicas", "shards", len(r.inService()), "at_most", limit.String())
	// For all at once, while they are served: a module may need as long as its timeout is.
	r.cars.EndPolling()
	if err := r.cluster.Drain(ctx); err != nil {
		r.log.Warn("not all cars were handed over: their sessions are suspended", "error", err)
	} else {
		r.awaitOwners(ctx)
	}
	if final {
		return
	}
	var suspending sync.WaitGroup
	for _, s := range r.inService() {
		suspending.Go(func() {
			if err := r.Close(context.Background(), s.Number, cluster.Member{}, false); err != nil {
				r.log.Warn("the sessions of a shard were not suspended", "shard", s.Number, "error", err)
			}
		})
	}
	suspending.Wait()
}

// ownersTime bounds the wait for the next owners of the shards that were given away.
const ownersTime = time.Second

// awaitOwners waits until the shards have their next owners, to which requests of the HTTP API are passed on.
func (r *Replica) awaitOwners(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, ownersTime)
	defer cancel()
	for {
		changed := r.cluster.Changed()
		view := r.cluster.View()
		taken := !slices.ContainsFunc(view.Shards, func(o cluster.Owner) bool { return o.State != cluster.ClaimServing })
		takers := slices.ContainsFunc(view.Members, func(m cluster.Member) bool { return m.Name != view.Self && m.State == cluster.StateReady })
		if taken || !takers || !view.Connected {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// End ends the Connects that are being handed on, after Run and Look have returned.
func (r *Replica) End() {
	r.end()
	r.handing.Wait()
}

// broker is how the fence reaches the broker, with the credentials in force.
func (r *Replica) broker() fence.Broker {
	at := r.opts.Link()
	return fence.Broker{
		Address: at.Address, Username: at.Username, Password: at.Password, TLS: at.TLS,
		Member: r.self.Replica, Logger: at.Logger, Answered: r.heard,
	}
}

// connection makes that of a shard to the broker.
func (r *Replica) connection(s *shard) (*mqtt.Link, error) {
	opts := r.opts.Link()
	opts.Sessions, opts.Heartbeat = r.sessionsOf(s), r.timing.Unwell/2
	return mqtt.New(opts)
}

// epoch is what is told of a shard's owner.
func (r *Replica) epoch(epoch int64) fence.Epoch {
	e := r.self
	e.Epoch = epoch
	return e
}

// sessionsOf are what the link of a shard has to know.
func (r *Replica) sessionsOf(s *shard) *mqtt.Sessions {
	return &mqtt.Sessions{
		ClientID: fence.ClientID(r.name), Shards: len(r.turns), Only: []int{s.Number},
		Flush:      func(int) error { return s.Flush() },
		FlushWaits: r.opts.Config().StateSync,
		Self:       fmt.Sprintf("replica %s, %s", r.self.Replica, journals.ThisProcess()),
		Announce: func(int) (string, []byte) {
			s.carrier.Again()
			return fence.EpochTopic(r.name, s.Number), s.standing.Epoch().Encode()
		},
		MayConnect: func(ctx context.Context, n int) error {
			return fence.MayConnect(r.broker(), r.name, func(int) *fence.Standing { return s.standing })(ctx, n)
		},
		Records: s.carrier.Records,
	}
}

// Health implements cluster.Host.
func (r *Replica) Health() error {
	if err := r.health.Load(); err != nil {
		return *err
	}
	return nil
}

// fenced gives a shard up whose link has ended because another replica serves it.
func (r *Replica) fenced(s *shard, err error) {
	n := s.Number
	if !errors.Is(err, link.ErrFenced) {
		r.log.Error("the connection of a shard has ended", "shard", n, "error", err)
	}
	if why := (*fence.ShardsError)(nil); errors.As(err, &why) {
		r.retire(why)
	}
	r.turns[n].Lock()
	ours := r.shards[n].Load() == s
	if ours {
		r.lose(s)
	}
	r.turns[n].Unlock()
	if ours {
		r.cluster.Lost(n)
	}
}
