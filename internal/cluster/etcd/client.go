// Package etcd keeps the registry of a cluster in etcd: members and claims on leases, and
// what all replicas must agree on.
//
// Keys below /external-server/<cluster>/:
//
//	settings          {"format":1,"shards":32}, written by the first replica, on no lease
//	members/<replica> a cluster.Member, on the replica's lease
//	shards/<nnnn>     {"owner":"es-0","state":"serving"}, on the owner's lease
//	scout             the name of the replica that looks out for cars found by "*", on its lease
//
// What others write below the prefix is told of once and takes no memory. What they write in
// place of a key of the servers is removed where no server can have written it.
//
// It may import cluster only.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"external-server/internal/cluster"
)

// Options of New.
type Options struct {
	Endpoints          []string                    // URLs
	Username, Password string                      // empty: none
	TLS                func() (*tls.Config, error) // nil: none; asked for each new client
	Cluster            string
	Shards             int
	Lease              time.Duration  // whole seconds
	Self               cluster.Member // Name, Address, Version, Fingerprint, Identity, Instance, Host, PID
	Log                *slog.Logger
}

// Store is a cluster.Store in etcd.
type Store struct {
	opts Options
	keys keys
	log  *slog.Logger
	kick chan struct{} // something is to be looked at before its time
	// status is replaced with mu held, and read without it: each call of a module asks for the
	// lease.
	status atomic.Pointer[cluster.Status]

	mu     sync.Mutex
	client *clientv3.Client // nil: etcd was never reached
	table  *table
	self   cluster.Member // as it is to be published
	told   string         // the value that etcd has of it
	lease  clientv3.LeaseID
	terms  string // the settings in etcd that this server agrees with; empty: not read yet
	// takesPart: this server was ready to serve once, or has claimed a shard. Others rely on it
	// since, and it ends for no key in etcd.
	takesPart bool
	trouble   string // what is wrong with the settings while this server takes part
	obstacles []obstacle
	rewritten time.Time // when the settings were written again; of the goroutine of Run
}

var _ cluster.Store = (*Store)(nil)

// New returns a Store; nothing is connected before Run.
func New(opts Options) *Store {
	s := &Store{opts: opts, keys: keysOf(opts.Cluster), log: opts.Log, self: opts.Self, kick: make(chan struct{}, 1)}
	s.self.State = cluster.StateJoining
	s.table = newTable(s.keys, opts.Self.Name, opts.Shards, s.strange)
	s.status.Store(&cluster.Status{Problem: "etcd has not been reached yet", Changed: make(chan struct{})})
	return s
}

// shorten bounds what others have chosen.
func shorten(text string) string {
	const most = 100
	if len(text) > most {
		return fmt.Sprintf("%q…", text[:most])
	}
	return text
}

// Times of the connection.
const (
	callTimeout  = 1500 * time.Millisecond // of one request
	pingTime     = 5 * time.Second         // etcd refuses more frequent pings
	pingTimeout  = 2 * time.Second
	leastBackoff = 100 * time.Millisecond
	mostBackoff  = time.Second
)

// dial makes a client. etcd need not be there, unless there is a password.
func dial(opts Options) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints: opts.Endpoints, Username: opts.Username, Password: opts.Password,
		DialTimeout: callTimeout, DialKeepAliveTime: pingTime, DialKeepAliveTimeout: pingTimeout,
		MaxCallSendMsgSize: maxResponse, MaxCallRecvMsgSize: maxResponse,
		Logger: zap.NewNop(), // what matters is told by this package
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: leastBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: mostBackoff},
			MinConnectTimeout: callTimeout,
		})},
	}
	if opts.TLS != nil {
		settings, err := opts.TLS()
		if err != nil {
			return nil, err
		}
		cfg.TLS = settings
	}
	return clientv3.New(cfg)
}

// errNoClient is what writes return before etcd was reached.
var errNoClient = errors.New("etcd has not been reached yet")

// access returns the client and the lease of this replica.
func (s *Store) access() (*clientv3.Client, clientv3.LeaseID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil, 0, errNoClient
	}
	return s.client, s.lease, nil
}

// Status implements cluster.Store.
func (s *Store) Status() cluster.Status { return *s.status.Load() }

// update changes the status and tells of it; the caller does not hold mu.
func (s *Store) update(change func(*cluster.Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updateLocked(change)
}

func (s *Store) updateLocked(change func(*cluster.Status)) {
	before := *s.status.Load()
	after := before
	change(&after)
	alike := after
	alike.Deadline = before.Deadline // moves every second, which is no news
	if alike == before {
		s.status.Store(&after)
		return
	}
	after.Changed = make(chan struct{})
	s.status.Store(&after)
	close(before.Changed)
}

// refresh makes a registry from the table; the caller holds mu. While another server has
// the name of this one there is none: what the name has claimed is not this one's.
func (s *Store) refreshLocked() {
	if it := s.table.items[s.keys.member(s.opts.Self.Name)]; it.value != nil {
		if m, err := decodeMember(s.opts.Self.Name, it.value); err != nil || s.another(m) {
			s.updateLocked(func(st *cluster.Status) { st.Registry = nil })
			return
		}
	}
	registry, obstacles := s.table.registry()
	s.obstacles = obstacles
	s.updateLocked(func(st *cluster.Status) { st.Registry = registry })
	s.noticeLocked()
}

// another tells whether m is neither this process nor the one before with the same state
// directory.
func (s *Store) another(m cluster.Member) bool {
	return m.Instance != s.self.Instance && (m.Identity == "" || m.Identity != s.self.Identity)
}

// wake makes Run look at what it otherwise would look at later.
func (s *Store) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Publish implements cluster.Store.
func (s *Store) Publish(m cluster.Member) {
	s.mu.Lock()
	s.self.State, s.self.Reason, s.self.Refuses = m.State, m.Reason, m.Refuses
	s.takesPart = s.takesPart || m.State == cluster.StateReady
	s.mu.Unlock()
	s.wake()
}

// SetFingerprint tells the others, soon, which configuration this replica has now.
func (s *Store) SetFingerprint(fingerprint string) {
	s.mu.Lock()
	s.self.Fingerprint = fingerprint
	s.mu.Unlock()
	s.wake()
}

// Check says why a server with these options could not be a member, as far as that can
// be told without becoming one: etcd does not answer within the context's time, refuses
// the user, or has a cluster of another number of shards.
func Check(ctx context.Context, opts Options) error {
	client, err := dial(opts)
	if err != nil {
		err, _ = opts.explain(ctx, describe(err))
		return err
	}
	defer func() { _ = client.Close() }() // nothing was written
	s := New(opts)
	asking, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := client.Get(asking, s.keys.settings())
	if err != nil {
		err, _ = opts.explain(ctx, describe(err))
		return err
	}
	if len(got.Kvs) == 0 {
		return nil
	}
	return s.agree(got.Kvs[0].Value)
}
