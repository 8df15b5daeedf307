package etcd_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"external-server/internal/cluster"
	"external-server/internal/cluster/etcd"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/testwait"
)

const prefix = "/external-server/c/"

func value(t *testing.T, c *clientv3.Client, key string) string {
	t.Helper()
	got, err := c.Get(t.Context(), prefix+key)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) == 0 {
		return ""
	}
	return string(got.Kvs[0].Value)
}

func put(t *testing.T, c *clientv3.Client, key, value string, opts ...clientv3.OpOption) {
	t.Helper()
	if _, err := c.Put(t.Context(), prefix+key, value, opts...); err != nil {
		t.Fatal(err)
	}
}

// TestSettingsOfARunningFleet: replicas that take part go on when others change or remove the
// settings, write them again and say so; a newcomer with other ones is refused.
func TestSettingsOfARunningFleet(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	c := operator(t, e)
	a, b := run(t, options(e.URL(), "a")), run(t, options(e.URL(), "b"))
	a.member()
	b.member()
	a.claim(0)
	b.Publish(cluster.Member{State: cluster.StateReady}) // it serves nothing
	a.until("b is ready", func(st cluster.Status) bool {
		return len(st.Registry.Members) == 2 && st.Registry.Members[1].State == cluster.StateReady
	})
	const settings = `{"format":1,"shards":4}`
	says := func(text string) {
		t.Helper()
		testwait.Until(t, "the log of a or b says: "+text, func() bool { return strings.Contains(a.log.String()+b.log.String(), text) })
	}
	for _, other := range []string{`{"format":1,"shards":8}`, "garbage", strings.Repeat("x", 10_000), ""} {
		if other == "" {
			if _, err := c.Delete(t.Context(), prefix+"settings"); err != nil {
				t.Fatal(err)
			}
		} else {
			put(t, c, "settings", other)
		}
		testwait.Until(t, "the settings are there again", func() bool { return value(t, c, "settings") == settings })
	}
	says("the settings of the cluster in etcd had been changed while its servers run; this one has written them again")
	says(`key=/external-server/c/settings found="{\"format\":1,\"shards\":8}" expected="{\"format\":1,\"shards\":4}"`)
	says("the settings of the cluster were gone from etcd; this server has written them again")
	b.claim(1)

	// What a later version has written it may need. Nothing is claimed meanwhile.
	put(t, c, "settings", `{"format":2,"shards":4}`)
	for _, r := range []*replica{a, b} {
		r.until("told, and still a member", func(st cluster.Status) bool {
			return st.Up && strings.Contains(st.Notice, `the key /external-server/c/settings in etcd holds {"format":2,"shards":4}, and this cluster was made with {"format":1,"shards":4}`)
		})
	}
	if err := a.Claim(t.Context(), 2, 0); err == nil {
		t.Error("a shard was claimed under other settings")
	}
	put(t, c, "settings", settings)
	for _, r := range []*replica{a, b} {
		r.until("all is well", func(st cluster.Status) bool { return st.Notice == "" && st.Up })
	}
	a.claim(2)
	opts := options(e.URL(), "z")
	opts.Shards = 8
	var refused *etcd.SettingsError
	if err := <-run(t, opts).err; !errors.As(err, &refused) {
		t.Errorf("a newcomer with other settings: %v", err)
	}
	for _, r := range []*replica{a, b} {
		select {
		case err := <-r.err:
			t.Errorf("%s has ended: %v", r.name, err)
		default:
		}
	}
}

// TestNewcomerAfterAWipe: etcd has lost everything, and a newcomer with another number of shards is the
// first to write its settings. Those of the replicas that take part prevail.
func TestNewcomerAfterAWipe(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	p := newProxy(t, e.Address())
	before := options("http://"+p.address(), "a")
	before.Lease = shortLease
	a := run(t, before)
	a.member()
	a.claim(0)
	p.cut()
	a.until("etcd is away", func(st cluster.Status) bool { return !st.Up })
	c := operator(t, e)
	if _, err := c.Delete(t.Context(), prefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	opts := options(e.URL(), "z")
	opts.Shards = 8
	z := run(t, opts)
	z.member()
	p.heal()
	var refused *etcd.SettingsError
	if err := <-z.err; !errors.As(err, &refused) || refused.Shards != 4 || refused.Own != 8 {
		t.Errorf("the newcomer: %v", err)
	}
	a.member()
	a.claim(1)
	a.until("alone", func(st cluster.Status) bool { return len(st.Registry.Members) == 1 && st.Notice == "" })
}

// TestKeysInTheWay: what others put in place of a claim, of the scout's and of a member's key is
// removed when no server can have written it, however much more there is; what may be of another
// version is named.
func TestKeysInTheWay(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	c := operator(t, e)
	for i := range 50 {
		put(t, c, fmt.Sprint("junk/", i), "x")
	}
	strange, err := c.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, "shards/0000", "garbage")
	put(t, c, "shards/0001", "garbage", clientv3.WithLease(strange.ID))
	put(t, c, "scout", "no name!", clientv3.WithLease(strange.ID))
	put(t, c, "members/a", `{"state":"ready"}`)
	a := run(t, options(e.URL(), "a"))
	a.member()
	for n := range 2 {
		a.claim(n)
		a.says(fmt.Sprintf(`key=/external-server/c/shards/%04d`, n))
	}
	a.says("it keeps shard 1 without a claim")
	a.scout()

	// The claim of an owner is overwritten: the next one has a higher epoch.
	before := a.Status().Registry.Claims[0]
	put(t, c, "shards/0000", "garbage")
	a.owner(0, "")
	if after := a.claim(0); after.Epoch() <= before.Epoch() {
		t.Errorf("%+v after %+v", after, before)
	}
	// The member's own key is removed, and replaced: it is written again.
	if _, err := c.Delete(t.Context(), prefix+"members/a"); err != nil {
		t.Fatal(err)
	}
	member := func() bool { return strings.Contains(value(t, c, "members/a"), `"dir-a"`) }
	testwait.Until(t, "a member again", member)
	put(t, c, "members/a", "garbage")
	testwait.Until(t, "a member again", member)

	b := run(t, options(e.URL(), "b"))
	b.member()
	own, err := c.Get(t.Context(), prefix+"members/b")
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, "shards/0003", `["of another version"]`, clientv3.WithLease(clientv3.LeaseID(own.Kvs[0].Lease)))
	for _, r := range []*replica{a, b} {
		r.until("told", func(st cluster.Status) bool {
			return strings.Contains(st.Notice, "the key /external-server/c/shards/0003 in etcd is not as servers write it (no claim: ") &&
				strings.Contains(st.Notice, "and it keeps shard 3 without a claim: delete it")
		})
	}
	if got := value(t, c, "shards/0003"); got != `["of another version"]` {
		t.Errorf("what a server has written was removed: %q", got)
	}
	if _, err := c.Delete(t.Context(), prefix+"shards/0003"); err != nil {
		t.Fatal(err)
	}
	a.until("all is well", func(st cluster.Status) bool { return st.Notice == "" })
	if lines := strings.Count(a.log.String(), "\n"); lines > 40 {
		t.Errorf("%d lines of log", lines)
	}
}

// TestCrowd: a server is a member, and the others see it, though strangers have written more names in front of its
// own than are read at once.
func TestCrowd(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	c := operator(t, e)
	for i := range 300 {
		put(t, c, fmt.Sprintf("members/a%03d", i), `{"state":"ready"}`)
	}
	a, z := run(t, options(e.URL(), "a")), run(t, options(e.URL(), "z"))
	z.member()
	z.claim(0)
	a.member()
	a.owner(0, "z")
	a.until("sees z", func(st cluster.Status) bool { return len(st.Registry.Members) == 2 })
	z.until("sees itself", func(st cluster.Status) bool { return len(st.Registry.Members) == 2 })
}
