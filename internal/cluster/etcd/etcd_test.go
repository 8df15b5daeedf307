package etcd_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"external-server/internal/cluster"
	"external-server/internal/cluster/etcd"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/testwait"
)

// TestTwoReplicas: each sees the other, a shard is claimed once, what the owner writes of
// it keeps the revision, and what one gives up the other can claim under a higher one.
func TestTwoReplicas(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	a, b := run(t, options(e.URL(), "a")), run(t, options(e.URL(), "b"))
	a.member()
	b.member()
	for _, r := range []*replica{a, b} {
		r.until("both are members", func(st cluster.Status) bool { return len(st.Registry.Members) == 2 })
	}
	first := a.claim(1)
	if err := b.Claim(t.Context(), 1, 0); err == nil {
		t.Error("a shard was claimed twice")
	}
	if c := b.Status().Registry.Claims[1]; c != first {
		t.Errorf("after a claim that failed the registry says %+v", c)
	}
	if err := a.Mark(t.Context(), 1, first.Revision, cluster.ClaimLeaving, "b"); err != nil {
		t.Fatal(err)
	}
	b.until("marked", func(st cluster.Status) bool {
		c := st.Registry.Claims[1]
		return c.State == cluster.ClaimLeaving && c.To == "b" && c.Revision == first.Revision
	})
	if err := a.Raise(t.Context(), 1, first.Revision, 1000); err != nil {
		t.Fatal(err)
	}
	b.until("raised", func(st cluster.Status) bool { return st.Registry.Claims[1].Epoch() == first.Revision+1000 })
	if err := b.Release(t.Context(), 1, first.Revision+1); err != nil {
		t.Fatal(err)
	}
	if err := a.Release(t.Context(), 1, first.Revision); err != nil {
		t.Fatal(err)
	}
	b.owner(1, "")
	if second := b.claim(1); second.Revision <= first.Revision || second.Base != 0 {
		t.Errorf("the second claim is %+v, the first one was %+v", second, first)
	}
	if err := a.Mark(t.Context(), 1, first.Revision, cluster.ClaimServing, ""); err == nil {
		t.Error("the owner before changed a claim")
	}
	a.owner(1, "b")

	a.Publish(cluster.Member{State: cluster.StateUnhealthy, Reason: "no broker", Refuses: []int{2}})
	b.until("a is unhealthy", func(st cluster.Status) bool {
		m := st.Registry.Members[0]
		return m.Name == "a" && m.State == cluster.StateUnhealthy && m.Reason == "no broker" && len(m.Refuses) == 1 && m.Address == "a:8070"
	})

	a.scout()
	if err := b.Scout(t.Context(), true); err == nil {
		t.Error("two scouts")
	}
	b.until("a is the scout", func(st cluster.Status) bool { return st.Registry.Scout == "a" })

	// The end of one is seen at once, not when its lease ends.
	b.stop()
	if err := <-b.err; err != nil {
		t.Error(err)
	}
	a.owner(1, "")
	a.until("alone", func(st cluster.Status) bool { return len(st.Registry.Members) == 1 })
	if err := a.Scout(t.Context(), false); err != nil {
		t.Fatal(err)
	}
}

// TestKilledReplica: what a process had claimed is free when its lease has ended, and not
// before.
func TestKilledReplica(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	p := newProxy(t, e.Address())
	killed := options("http://"+p.address(), "a")
	killed.Lease = shortLease
	a, b := run(t, killed), run(t, options(e.URL(), "b"))
	a.member()
	b.member()
	a.claim(0)
	b.owner(0, "a")
	p.cut()
	b.owner(0, "")
	if left := time.Until(a.Status().Deadline); left > 0 {
		t.Errorf("the claim is free %v before the lease of its owner has ended by its own clock", left)
	}
	a.until("knows that etcd is away", func(st cluster.Status) bool { return !st.Up && st.Problem != "" })
	p.heal()
	a.member()
	a.owner(0, "") // nothing is claimed by itself
	a.says("etcd is away; this server goes on serving")
}

// TestRevokedLeases: all leases are gone at once; every replica is a member again within
// a second or so, and can claim.
func TestRevokedLeases(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	a, b := run(t, options(e.URL(), "a")), run(t, options(e.URL(), "b"))
	a.member()
	b.member()
	before := a.claim(0)
	c := operator(t, e)
	leases, err := c.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(leases.Leases) != 2 {
		t.Fatalf("%d leases for two replicas", len(leases.Leases))
	}
	for _, l := range leases.Leases {
		if _, err := c.Revoke(t.Context(), l.ID); err != nil {
			t.Fatal(err)
		}
	}
	b.owner(0, "")
	a.owner(0, "")
	if after := a.claim(0); after.Revision <= before.Revision {
		t.Errorf("%+v after %+v", after, before)
	}
	b.owner(0, "a")
	b.until("both are members again", func(st cluster.Status) bool { return len(st.Registry.Members) == 2 && st.Up })
}

// TestEtcdAway: killed and started again, not there at the start.
func TestEtcdAway(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	a := run(t, options(e.URL(), "a"))
	a.member()
	a.claim(0)
	e.Kill()
	a.until("down", func(st cluster.Status) bool { return !st.Up })
	if err := a.Claim(t.Context(), 1, 0); err == nil {
		t.Error("a claim without etcd")
	}
	b := run(t, options(e.URL(), "b"))
	b.until("not a member", func(st cluster.Status) bool {
		return strings.Contains(st.Problem, "etcd cannot be reached") || strings.Contains(st.Problem, "does not answer")
	})
	e.Restart()
	a.member()
	b.member()
	b.owner(0, "a") // the lease has outlived the restart
}

// TestEtcdFrozen: etcd stands still for longer than a lease.
func TestEtcdFrozen(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	short := func(name string) etcd.Options {
		opts := options(e.URL(), name)
		opts.Lease = shortLease
		return opts
	}
	a, b := run(t, short("a")), run(t, short("b"))
	a.member()
	b.member()
	e.Freeze()
	a.until("down", func(st cluster.Status) bool { return !st.Up && time.Now().After(st.Deadline) })
	e.Thaw()
	a.member()
	b.member()
	a.until("two members", func(st cluster.Status) bool { return len(st.Registry.Members) == 2 })
}

// TestRestoredEtcd: etcd begins again with an earlier state and lower revisions; what was
// newer is not believed any more, and what is claimed can be raised above it.
func TestRestoredEtcd(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	a := run(t, options(e.URL(), "a"))
	a.member()
	e.Backup()
	a.member()
	c := operator(t, e)
	for range 50 {
		if _, err := c.Put(t.Context(), "/elsewhere", "x"); err != nil {
			t.Fatal(err)
		}
	}
	before := a.claim(0)
	a.claim(1)
	e.Restore()
	a.until("read anew", func(st cluster.Status) bool {
		return st.Up && st.Registry.Claims[0].Owner == "" && st.Registry.Claims[1].Owner == ""
	})
	after := a.claim(0)
	if after.Revision >= before.Revision {
		t.Fatalf("this test shows nothing: %+v after %+v", after, before)
	}
	if err := a.Raise(t.Context(), 0, after.Revision, before.Epoch()); err != nil {
		t.Fatal(err)
	}
	if c := a.Status().Registry.Claims[0]; c.Epoch() <= before.Epoch() || c.Revision != after.Revision {
		t.Errorf("%+v", c)
	}
	b := run(t, options(e.URL(), "b"))
	b.member()
	b.owner(0, "a")
	if err := a.Release(t.Context(), 0, after.Revision); err != nil {
		t.Fatal(err)
	}
	b.owner(0, "") // the watch is where etcd is now
	a.says("it was restored")
}

// TestTwoWithOneName: the second waits and says why; it is a member when the first has
// ended. A process with the same state directory need not wait, and has what was claimed.
func TestTwoWithOneName(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	first := run(t, options(e.URL(), "a"))
	first.member()
	opts := options(e.URL(), "a")
	opts.Self.Identity, opts.Lease = "another directory", shortLease
	second := run(t, opts)
	st := second.until("told why it waits", func(st cluster.Status) bool { return strings.Contains(st.Problem, "has the name") && !st.Up })
	if st.Registry != nil {
		t.Error("one that is no member sees the claims of its namesake, and would take them for its own")
	}
	contains(t, st.Problem, `another server of the cluster has the name "a": process`)
	contains(t, st.Problem, `a "cluster.replica" of its own`)
	if err := second.Claim(t.Context(), 0, 0); err == nil {
		t.Error("one that is no member has claimed a shard")
	}
	testwait.Until(t, "an error in the log", func() bool { return strings.Contains(second.log.String(), "level=ERROR") })
	first.claim(0)
	first.stop()
	<-first.err
	second.member()
	second.owner(0, "")
	second.stop()
	<-second.err

	// Killed, and started again at once: the claims are still there.
	p := newProxy(t, e.Address())
	opts.Endpoints = []string{"http://" + p.address()}
	opts.Self.Instance, opts.Lease = "third", time.Minute
	third := run(t, opts)
	third.member()
	before := third.claim(0)
	p.cut()
	opts.Endpoints, opts.Self.Instance = []string{e.URL()}, "fourth"
	fourth := run(t, opts)
	fourth.member()
	if c := fourth.owner(0, "a"); c != before {
		t.Errorf("%+v, want %+v", c, before)
	}
}

// TestSettings: a replica with another number of shards is told what to do, and is no
// member.
func TestSettings(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	a := run(t, options(e.URL(), "a"))
	a.member()
	opts := options(e.URL(), "b")
	opts.Shards = 8
	b := run(t, opts)
	err := <-b.err
	var settings *etcd.SettingsError
	if !errors.As(err, &settings) || settings.Shards != 4 || settings.Own != 8 {
		t.Fatalf("%v", err)
	}
	contains(t, err.Error(), "the number of shards is 8, and the cluster was made with 4, which is fixed; set cluster.shards to 4. To change it, end all servers of the cluster, delete the key /external-server/c/settings in etcd")
	if err := etcd.Check(t.Context(), opts); !errors.As(err, &settings) {
		t.Errorf("the check says %v", err)
	}
	if err := etcd.Check(t.Context(), options(e.URL(), "b")); err != nil {
		t.Errorf("the check says %v", err)
	}
	a.until("alone", func(st cluster.Status) bool { return len(st.Registry.Members) == 1 })
}

// TestStrangers: what others write below the prefix is told of, harms nothing and takes
// no memory.
func TestStrangers(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	c := operator(t, e)
	put := func(key, value string) {
		t.Helper()
		if _, err := c.Put(t.Context(), "/external-server/c/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("members/x y", "{}")
	put("members/stranger", `{"state":"king"}`)
	put("shards/0003", "[]")
	put("shards/3", "[]")
	put("shards/9999", `{"owner":"z","state":"serving"}`)
	put("notes", strings.Repeat("x", 100_000))
	a := run(t, options(e.URL(), "a"))
	a.member()
	a.claim(0)
	for i := range 300 {
		put("members/m"+strings.Repeat("x", i%20)+string(rune('a'+i%26)), `{"state":"ready","name":"other"}`)
	}
	lease, err := c.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 { // some that look like servers
		if _, err := c.Put(t.Context(), fmt.Sprintf("/external-server/c/members/z%d", i), `{"state":"joining"}`, clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
	}
	put("shards/0001", `{"owner":"`+strings.Repeat("z", 5000)+`","state":"serving"}`)
	put("scout", strings.Repeat("s", 1000))
	b := run(t, options(e.URL(), "b"))
	b.member()
	b.claim(2)
	a.owner(2, "b")
	for _, r := range []*replica{a, b} {
		st := r.Status()
		if n := len(st.Registry.Members); n > 65 {
			t.Errorf("%d members", n)
		}
		if c := st.Registry.Claims; c[3].Owner != "" || c[1].Owner != "" || c[0].Owner != "a" {
			t.Errorf("%+v", c)
		}
		if st.Registry.Scout != "" {
			t.Errorf("the scout is %.20q", st.Registry.Scout)
		}
		if lines := strings.Count(r.log.String(), "\n"); lines > 30 {
			t.Errorf("%d lines of log", lines)
		}
		r.says("it is ignored, delete it")
	}
}

// TestCompaction: a watch that etcd cannot serve any more begins anew.
func TestCompaction(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	p := newProxy(t, e.Address())
	a, b := run(t, options("http://"+p.address(), "a")), run(t, options(e.URL(), "b"))
	a.member()
	b.member()
	p.cut()
	b.claim(2)
	c := operator(t, e)
	got, err := c.Put(t.Context(), "/elsewhere", "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(t.Context(), got.Header.Revision); err != nil {
		t.Fatal(err)
	}
	p.heal()
	a.owner(2, "b")
}

// TestPassword: with a wrong one the reason is told and no secret; with the right one a
// replica needs no more than the rights on its prefix.
func TestPassword(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	e.Secure(nil, "c", "es", "planted-es")
	for name, set := range map[string]struct {
		change func(*etcd.Options)
		want   string
	}{
		"nobody":          {func(*etcd.Options) {}, "etcd demands a user name and a password"},
		"wrong password":  {func(o *etcd.Options) { o.Username, o.Password = "es", "planted-wrong" }, "etcd refuses the user name or the password"},
		"another cluster": {func(o *etcd.Options) { o.Username, o.Password, o.Cluster = "es", "planted-es", "d" }, "may not read and write below"},
	} {
		opts := options(e.URL(), "a")
		set.change(&opts)
		r := run(t, opts)
		st := r.until(name, func(st cluster.Status) bool { return strings.Contains(st.Problem, set.want) })
		if text := st.Problem + r.log.String(); strings.Contains(text, "planted") {
			t.Errorf("%s: a secret is told: %s", name, text)
		}
		r.stop()
	}
	opts := options(e.URL(), "a")
	opts.Username, opts.Password = "es", "planted-es"
	r := run(t, opts)
	r.member()
	r.claim(0)
}
