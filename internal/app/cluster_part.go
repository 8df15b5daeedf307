package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/cluster/etcd"
	"external-server/internal/cluster/fence"
	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/logging"
)

// clusterPart shares the cars with other replicas: it opens the shards that this one is
// given and gives them away. It implements cluster.Host.
type clusterPart struct {
	a       *App
	log     *slog.Logger
	name    string // of the cluster
	timing  cluster.Timing
	self    fence.Epoch
	cluster membership                 // nil: there is none
	shown   atomic.Pointer[membership] // the same, for those that ask from other goroutines; nil before it takes part
	offers  *offers
	// What other replicas say of the broker, for one that it does not answer.
	inquiries inquiries
	health    atomic.Pointer[error] // nil: this replica can serve
	scouts    chan struct{}         // one for each Connect that is being handed on
	handing   sync.WaitGroup        // of those
	final     atomic.Bool           // this is the end of all sessions that no other takes
	life      context.Context       // of those
	end       context.CancelFunc    // of life

	reloaded  func(fingerprint string)  // tells the others which configuration is in force
	heardAt   atomic.Pointer[time.Time] // when the broker has answered last over another connection than those of the shards
	discarded atomic.Uint64             // answered statuses that no module was given

	turns []sync.Mutex // of the shards: one changes the state of a shard at a time
	runs  *task        // the cluster
	looks *task        // after health and scout
}

// membership is this replica's part in the cluster: *cluster.Cluster.
type membership interface {
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

var _ cluster.Host = (*clusterPart)(nil)

func (p *clusterPart) keys() []string { return nil }

// on tells whether there is a cluster.
func (p *clusterPart) on() bool { return p != nil && p.cluster != nil }

func (p *clusterPart) prepare(ctx context.Context, old, fresh *config.Config) (change, error) {
	c := fresh.Cluster
	switch {
	case c == nil:
		return change{}, nil
	case old != nil:
		return change{apply: func(context.Context) error {
			p.reloaded(fresh.Fingerprint())
			return nil
		}}, nil
	}
	a := p.a
	p.log = component(a.log, logging.ComponentServer)
	p.name, p.timing, p.turns, p.offers = c.Name, cluster.TimingFor(c.Lease), make([]sync.Mutex, c.Shards), newOffers(c.Shards)
	p.inquiries.ask = func(ctx context.Context, address string) (peerShard, error) { return p.askPeer(ctx, address, 0) }
	p.scouts = make(chan struct{}, handedOn)
	p.life, p.end = context.WithCancel(context.WithoutCancel(ctx))
	p.self = fence.Epoch{Replica: c.Replica, Address: a.peers.address(c)}
	var err error
	p.cluster, err = p.join(fresh)
	if err != nil {
		return change{}, err
	}
	a.roster.elsewhere = p.elsewhere
	p.heardAt.Store(new(time.Time))
	notYet := errors.New("the broker was not asked yet")
	p.health.Store(&notYet)
	p.serve()
	a.peers.owners.joined.Store(true)
	return change{apply: p.begin}, nil
}

// join prepares to be a member.
func (p *clusterPart) join(cfg *config.Config) (membership, error) {
	p.reloaded = func(string) {}
	if p.a.membership != nil {
		return p.a.membership(p, cfg), nil
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
		Cluster: c.Name, Shards: c.Shards, Lease: c.Lease, Log: p.log,
		Self: cluster.Member{
			Name: c.Replica, Address: p.self.Address, Version: p.a.version, Fingerprint: cfg.Fingerprint(),
			Identity: p.a.sessions.dir.Identity(), Instance: rand.Text(), Host: host, PID: os.Getpid(),
		},
	})
	p.reloaded = store.SetFingerprint
	return cluster.New(cluster.Options{
		Self: c.Replica, Shards: c.Shards, Scout: cfg.AnyCar != nil, Store: store, Host: p, Log: p.log,
		Timing: p.timing,
	}), nil
}

// begin takes part in the cluster. It is called when cars can be attached.
func (p *clusterPart) begin(ctx context.Context) error {
	p.shown.Store(&p.cluster)
	p.looks = begin(ctx, func(ctx context.Context) error {
		p.look(ctx)
		return nil
	})
	p.runs = begin(ctx, func(ctx context.Context) error {
		defer p.a.end(nil)
		return p.cluster.Run(ctx)
	})
	return nil
}

// leave gives the shards to the other replicas, at a stop, and suspends those that no other
// takes, unless this is a final stop.
func (p *clusterPart) leave(final bool) {
	if !p.on() || p.runs == nil {
		return
	}
	p.final.Store(final)
	limit := drainShare * p.a.Config().Limits.Stop
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	p.log.Info("handing the cars over to the other replicas", "shards", len(p.a.sessions.inService()), "at_most", limit.String())
	// For all at once, while they are served: a module may need as long as its timeout is.
	p.a.roster.endPolling(p.a.Config().Limits.Stop / lastPollsShare)
	if err := p.cluster.Drain(ctx); err != nil {
		p.log.Warn("not all cars were handed over: their sessions are suspended", "error", err)
	}
	if final {
		return
	}
	var suspending sync.WaitGroup
	for _, s := range p.a.sessions.inService() {
		suspending.Go(func() {
			if err := p.Close(context.Background(), s.number, cluster.Member{}, false); err != nil {
				p.log.Warn("the sessions of a shard were not suspended", "shard", s.number, "error", err)
			}
		})
	}
	suspending.Wait()
}

func (p *clusterPart) stop() error {
	err := errors.Join(p.looks.stop(), p.runs.stop())
	if p.end != nil {
		p.end()
		p.handing.Wait()
	}
	return err
}

// broker is how the fence reaches the broker, with the credentials in force.
func (p *clusterPart) broker() fence.Broker {
	tuned := tuning(p.a.Config())
	at := p.a.linkTo
	return fence.Broker{
		Address: at.address, Username: tuned.Username, Password: tuned.Password, TLS: at.latest,
		Member: p.self.Replica, Logger: component(p.a.log, logging.ComponentLink), Answered: p.heard,
	}
}

// epoch is what is told of a shard's owner.
func (p *clusterPart) epoch(epoch int64) fence.Epoch {
	e := p.self
	e.Epoch = epoch
	return e
}

// sessionsOf are what the link of a shard has to know.
func (p *clusterPart) sessionsOf(s *shard) *mqtt.Sessions {
	return &mqtt.Sessions{
		ClientID: fence.ClientID(p.name), Shards: len(p.turns), Only: []int{s.number},
		Flush:      func(int) error { return s.Flush() },
		FlushWaits: p.a.Config().StateSync,
		Self:       fmt.Sprintf("replica %s, %s", p.self.Replica, self()),
		Announce: func(int) (string, []byte) {
			s.carrier.Again()
			return fence.EpochTopic(p.name, s.number), p.epoch(s.epoch.Load()).Encode()
		},
		MayConnect: func(ctx context.Context, n int) error {
			return fence.MayConnect(p.broker(), p.name, func(int) *fence.Standing { return s.standing })(ctx, n)
		},
		Records: s.carrier.Records,
	}
}

// Health implements cluster.Host.
func (p *clusterPart) Health() error {
	if err := p.health.Load(); err != nil {
		return *err
	}
	return nil
}

// fenced gives a shard up whose link has ended because another replica serves it.
func (p *clusterPart) fenced(s *shard, err error) {
	n := s.number
	if !errors.Is(err, link.ErrFenced) {
		p.log.Error("the connection of a shard has ended", "shard", n, "error", err)
	}
	p.turns[n].Lock()
	ours := p.a.sessions.shards[n].Load() == s
	if ours {
		p.lose(s)
	}
	p.turns[n].Unlock()
	if ours {
		p.cluster.Lost(n)
	}
}
