package e2e

import (
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"external-server/internal/support/badnetwork"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

func (f *fleetOf) etcdClient() *clientv3.Client {
	f.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{f.etcd.URL()}, Logger: zap.NewNop()})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Running replicas end for no key in etcd. After etcd has lost everything, a newcomer with another number of
// shards comes before them: it serves no car, and ends when they are back. When all have ended, the number
// can be changed, also for a replica that was forgotten.
func TestNumberOfShardsIsThatOfTheRunningReplicas(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, 4)
	other := func(i int) { f.configs[i]["cluster"].(obj)["shards"] = 8 }
	other(2)
	f.start(0, 1)
	f.spread(32, 0, 1)
	f.drive()
	c := f.etcdClient()
	f.step("the settings are changed", func() {
		if _, err := c.Put(t.Context(), "/external-server/fleet/settings", `{"format":1,"shards":8}`); err != nil {
			t.Fatal(err)
		}
		testwait.Until(t, "they are as before", func() bool {
			got, err := c.Get(t.Context(), "/external-server/fleet/settings")
			return err == nil && len(got.Kvs) == 1 && strings.Contains(string(got.Kvs[0].Value), "32")
		})
	})
	f.step("etcd has lost everything, and a newcomer is first", func() {
		for i := range 2 {
			f.networks[i][1].Set(badnetwork.Faults{Silent: true})
		}
		testwait.Until(t, "both are without etcd", func() bool { return f.said(0, "etcd is away") > 0 && f.said(1, "etcd is away") > 0 })
		if _, err := c.Delete(t.Context(), "/external-server/fleet/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		f.replicas[2] = servertest.Start(t, servertest.Options{Config: f.configs[2]})
		const why = "serves this cluster with 32 shards, and this one is configured with 8; set cluster.shards to 32"
		f.replicas[2].WaitLog(why)
		testwait.Until(t, "its readiness says why", func() bool { return strings.Contains(get(t, "http://"+f.admins[2]+"/readyz"), why) })
		for i := range 2 {
			f.networks[i][1].Set(badnetwork.Faults{})
		}
		if code := f.replicas[2].Wait(); code == 0 {
			t.Error("the newcomer ended without an error")
		}
		if log := f.replicas[2].Log(); !strings.Contains(log, "the number of shards is 8, and the cluster was made with 32") || strings.Contains(log, "serving a shard") {
			t.Error(log)
		}
	})
	for i := range 2 {
		f.seen(i)
		if !f.replicas[i].Running() {
			t.Fatalf("replica %d has ended", i)
		}
	}
	// The way of the documentation, but one replica is forgotten.
	f.end(1)
	f.replicas[0].Signal(syscall.SIGSTOP)
	if _, err := c.Delete(t.Context(), "/external-server/fleet/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	f.start(2)
	f.spread(8, 2)
	f.replicas[0].Signal(syscall.SIGCONT)
	if code := f.replicas[0].Wait(); code == 0 {
		t.Error("the forgotten replica ended without an error")
	}
	f.served(4)
	f.end(2)
}
