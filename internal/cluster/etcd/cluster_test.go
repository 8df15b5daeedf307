package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/cluster/etcd"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// broker is what replicas know of each other without etcd: the epochs at the broker, and
// which replica answers.
type broker struct {
	mu     sync.Mutex
	epochs map[int]int64
	owners map[int]*node

	t *testing.T
}

// node is one replica: a Cluster on a real etcd, and a Host that serves nothing but keeps
// account.
type node struct {
	*cluster.Cluster
	name   string
	broker *broker
	proxy  *proxy
	log    testlog.Buffer
	stop   context.CancelFunc
	done   chan error

	mu      sync.Mutex
	serving map[int]int64
	calls   []string
	health  error
	dead    bool // answers no peer
}

func (b *broker) start(e *etcdtest.Etcd, name string) *node {
	b.t.Helper()
	n := &node{name: name, broker: b, proxy: newProxy(b.t, e.Address()), serving: make(map[int]int64), done: make(chan error, 1)}
	opts := options("http://"+n.proxy.address(), name)
	opts.Shards, opts.Lease = 8, shortLease
	opts.Log = slog.New(slog.NewTextHandler(&n.log, nil))
	timing := cluster.DefaultTiming()
	timing.Balance, timing.Settle = 300*time.Millisecond, 100*time.Millisecond
	n.Cluster = cluster.New(cluster.Options{Self: name, Shards: 8, Scout: true, Store: etcd.New(opts), Host: n, Log: opts.Log, Timing: timing})
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	over := make(chan struct{})
	go func() {
		defer close(over)
		n.done <- n.Run(ctx)
	}()
	b.t.Cleanup(func() {
		cancel()
		<-over
		if b.t.Failed() {
			b.t.Logf("%s: %q\n%+v\n%s", name, n.calls, *n.View(), n.log.String())
		}
	})
	return n
}

func (n *node) note(format string, args ...any) {
	n.calls = append(n.calls, fmt.Sprintf(format, args...))
}

func (n *node) Open(_ context.Context, shard int, epoch int64) error {
	n.broker.mu.Lock()
	defer n.broker.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if known := n.broker.epochs[shard]; known > epoch || known == epoch && n.broker.owners[shard] != n {
		return &cluster.StaleError{Shard: shard, Epoch: epoch, Known: known}
	}
	if old := n.broker.owners[shard]; old != nil && old != n {
		go old.Lost(shard)
	}
	n.broker.epochs[shard], n.broker.owners[shard] = epoch, n
	n.serving[shard] = epoch
	n.note("open %d", shard)
	return nil
}

func (n *node) Close(_ context.Context, shard int, to cluster.Member, lost bool) error {
	n.broker.mu.Lock()
	defer n.broker.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.note("close %d to=%s lost=%v", shard, to.Name, lost)
	delete(n.serving, shard)
	if n.broker.owners[shard] == n {
		delete(n.broker.owners, shard)
	}
	return nil
}

func (n *node) Health() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.health
}

func (n *node) Ask(ctx context.Context, shard int) (cluster.Answer, error) {
	n.broker.mu.Lock()
	owner, epoch := n.broker.owners[shard], n.broker.epochs[shard]
	n.broker.mu.Unlock()
	if owner == nil || owner == n {
		return cluster.Answer{}, nil
	}
	owner.mu.Lock()
	dead := owner.dead
	owner.mu.Unlock()
	if dead {
		return cluster.Answer{}, nil
	}
	return cluster.Answer{Serving: true, Owner: cluster.Owner{Replica: owner.name, Epoch: epoch}}, nil
}

func (n *node) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *node) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.serving)
}

// settled waits until these replicas serve all shards, each as many as wanted, and all
// know it.
func (b *broker) settled(what string, want map[*node]int) {
	b.t.Helper()
	testwait.Until(b.t, what, func() bool {
		for n, shards := range want {
			if n.count() != shards {
				return false
			}
			for _, o := range n.View().Shards {
				if o.Replica == "" || o.State != cluster.ClaimServing {
					return false
				}
			}
		}
		return true
	})
}

// TestCluster is the life of a cluster on a real etcd: replicas join, one is killed, one
// drains, one cannot serve, all leases are revoked, one is cut off.
func TestCluster(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	b := &broker{t: t, epochs: make(map[int]int64), owners: make(map[int]*node)}
	x := b.start(e, "x")
	b.settled("one has all", map[*node]int{x: 8})
	y := b.start(e, "y")
	b.settled("two share", map[*node]int{x: 4, y: 4})
	z := b.start(e, "z")
	testwait.Until(t, "three share", func() bool {
		return x.count() >= 2 && y.count() >= 2 && z.count() >= 2 && x.count()+y.count()+z.count() == 8
	})
	testwait.Until(t, "one looks out for unknown cars", func() bool { return z.View().Scout != "" })

	x.set(func() { x.dead = true })
	x.proxy.cut() // as good as killed: no sign of life, and no answer
	testwait.Until(t, "the others have the shards of the one that was killed", func() bool { return y.count() == 4 && z.count() == 4 })
	testwait.Until(t, "the broker has told it", func() bool { return x.count() == 0 })
	x.set(func() { x.dead = false })
	x.proxy.heal()
	testwait.Until(t, "it is back", func() bool { return x.count() >= 2 && x.count()+y.count()+z.count() == 8 })

	if err := y.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.settled("y has none", map[*node]int{x: 4, y: 0, z: 4})
	for _, n := range []*node{x, y} {
		testwait.Until(t, "all know that y drains", func() bool {
			m, ok := n.View().Member("y")
			return ok && m.State == cluster.StateDraining
		})
	}
	y.set(func() {
		for _, call := range y.calls {
			if call == "close 0 to= lost=false" {
				t.Errorf("a shard was suspended although others were there: %q", y.calls)
			}
		}
	})
	y.stop()
	if err := <-y.done; err != nil {
		t.Error(err)
	}

	z.set(func() { z.health = errors.New("no broker") })
	b.settled("z is not well", map[*node]int{x: 8, z: 0})
	testwait.Until(t, "x knows why", func() bool {
		m, ok := x.View().Member("z")
		return ok && m.State == cluster.StateUnhealthy && m.Reason == "no broker"
	})
	testwait.Until(t, "the operator is told", func() bool { return z.log.Has("this replica cannot serve", "no broker") })
	z.set(func() { z.health = nil })
	b.settled("z is well", map[*node]int{x: 4, z: 4})
	testwait.Until(t, "the operator is told", func() bool { return z.log.Has("this replica can serve again") })
	z.set(func() { z.health = &cluster.NoBrokerError{Since: time.Now().Add(-time.Second)} })
	b.settled("the broker does not answer z", map[*node]int{x: 8, z: 0})
	z.set(func() { z.health = nil })
	b.settled("the broker answers z again", map[*node]int{x: 4, z: 4})

	before := x.View()
	x.set(func() { x.calls = nil })
	z.set(func() { z.calls = nil })
	c := operator(t, e)
	leases, err := c.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases.Leases {
		if _, err := c.Revoke(t.Context(), l.ID); err != nil {
			t.Fatal(err)
		}
	}
	testwait.Until(t, "all are claimed again under higher epochs", func() bool {
		for n, o := range z.View().Shards {
			if o.State != cluster.ClaimServing || o.Epoch <= before.Shards[n].Epoch {
				return false
			}
		}
		return true
	})
	for _, n := range []*node{x, z} {
		n.set(func() {
			for _, call := range n.calls {
				if call[:5] == "close" {
					t.Errorf("%s: %s, and all that happened is that claims had vanished", n.name, call)
				}
			}
		})
	}
	for n, o := range z.View().Shards {
		if o.Replica != before.Shards[n].Replica {
			t.Errorf("shard %d has moved from %s to %s", n, before.Shards[n].Replica, o.Replica)
		}
	}
	testwait.Until(t, "x has counted it", func() bool { return x.Counts().Renewed > 0 })

	// Cut off from etcd, and serving: the others leave it alone, and know who serves.
	x.proxy.cut()
	testwait.Until(t, "z knows who serves without claim", func() bool {
		for n, o := range z.View().Shards {
			if before.Shards[n].Replica == "x" && (o.State != "" || o.Replica != "x") {
				return false
			}
		}
		return x.count() == 4 && z.count() == 4
	})
	x.proxy.heal()
	b.settled("all are claimed", map[*node]int{x: 4, z: 4})
}

// TestCutOffReplica: without etcd shards are served on, and the end does not wait long.
func TestCutOffReplica(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	b := &broker{t: t, epochs: make(map[int]int64), owners: make(map[int]*node)}
	x := b.start(e, "x")
	b.settled("one has all", map[*node]int{x: 8})
	e.Kill()
	testwait.Until(t, "etcd is away", func() bool { return !x.View().Connected && leaseEnded(x) })
	if x.count() != 8 {
		t.Errorf("it serves %d shards", x.count())
	}
	if err := x.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if x.count() != 0 {
		t.Errorf("it serves %d shards", x.count())
	}
}

func leaseEnded(x interface{ Lease() (int64, time.Time) }) bool {
	_, until := x.Lease()
	return time.Now().After(until)
}
