package etcd_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"external-server/internal/cluster"
	"external-server/internal/cluster/etcd"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica is a Store that runs.
type replica struct {
	*etcd.Store
	t    *testing.T
	name string
	log  *testlog.Buffer
	stop context.CancelFunc
	err  chan error
}

// shortLease is for tests that wait for the end of a lease. A machine that stands still for as long ends it, too.
const shortLease = 2 * time.Second

func options(url, name string) etcd.Options {
	return etcd.Options{
		Endpoints: []string{url}, Cluster: "c", Shards: 4, Lease: 5 * time.Second,
		Self: cluster.Member{Name: name, Address: name + ":8070", Version: "1", Identity: "dir-" + name, Instance: fmt.Sprint(name, time.Now().UnixNano()), Host: "h", PID: os.Getpid()},
	}
}

// run runs a Store until the test ends or stop is called.
func run(t *testing.T, opts etcd.Options) *replica {
	t.Helper()
	r := &replica{t: t, name: opts.Self.Name, log: &testlog.Buffer{}, err: make(chan error, 1)}
	opts.Log = slog.New(slog.NewTextHandler(r.log, nil))
	r.Store = etcd.New(opts)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.err <- r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// until waits until the status is as wanted.
func (r *replica) until(what string, ok func(cluster.Status) bool) cluster.Status {
	r.t.Helper()
	var st cluster.Status
	r.t.Cleanup(func() {
		if r.t.Failed() {
			r.t.Logf("status %+v\nregistry %+v\n%s", st, st.Registry, r.log.String())
		}
	})
	testwait.Until(r.t, r.name+": "+what, func() bool { st = r.Status(); return ok(st) })
	return st
}

func (r *replica) member() cluster.Status {
	r.t.Helper()
	return r.until("a member", func(st cluster.Status) bool { return st.Up })
}

func (r *replica) owner(shard int, want string) cluster.Claim {
	r.t.Helper()
	st := r.until(fmt.Sprintf("shard %d owned by %q", shard, want), func(st cluster.Status) bool {
		return st.Registry != nil && st.Registry.Claims[shard].Owner == want
	})
	return st.Registry.Claims[shard]
}

// claim claims a shard that is free. The first attempt fails while a connection or a lease is made anew, and one
// that etcd does not answer in time may have succeeded.
func (r *replica) claim(shard int) cluster.Claim {
	r.t.Helper()
	var err error
	r.t.Cleanup(func() {
		if r.t.Failed() && err != nil {
			r.t.Logf("%s claimed shard %d: %v", r.name, shard, err)
		}
	})
	claimed := func() cluster.Claim { return r.Status().Registry.Claims[shard] }
	testwait.Until(r.t, fmt.Sprintf("%s claims shard %d", r.name, shard), func() bool {
		err = r.Claim(r.t.Context(), shard, 0)
		return err == nil || claimed().Owner == r.name
	})
	c := claimed()
	if c.Owner == "" || c.Revision == 0 {
		r.t.Fatalf("the claim was made, and the registry does not have it: %+v", c)
	}
	return c
}

// scout makes the replica the scout.
func (r *replica) scout() {
	r.t.Helper()
	testwait.Until(r.t, r.name+" is the scout", func() bool {
		return r.Scout(r.t.Context(), true) == nil || r.Status().Registry.Scout == r.name
	})
}

// operator is a client of etcd that is no server.
func operator(t *testing.T, e *etcdtest.Etcd) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.URL()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// says waits until the log has the text: the line of a write is written when etcd has answered.
func (r *replica) says(text string) {
	r.t.Helper()
	testwait.Until(r.t, r.name+" says in the log: "+text, func() bool { return strings.Contains(r.log.String(), text) })
}

func contains(t *testing.T, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%q does not contain %q", text, want)
	}
}
