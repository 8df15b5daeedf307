package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/httpapi"
	"external-server/internal/httpapi/core"
	"external-server/internal/httpapi/keys"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testwait"
)

// Any replica takes requests for any car; lists are those of all.
func TestClusterServesEveryCarAnywhere(t *testing.T) {
	c := startReplicas(t, nil, 0, 0, 0)
	for n, r := range []*replica{c.all[0], c.all[1], c.all[2], c.all[0]} {
		c.give(r, n)
	}
	for n := range testShards {
		at := c.all[(n+1)%3] // not the owner, except of the last one
		path := fmt.Sprintf("/company/car_%d", n)
		c.mustPost(at, "/status"+path, apitest.Status(1, 1, "a", `{"n":1}`))
		c.mustPost(at, "/command"+path, apitest.Command(1, 1, "a", `"go"`))
		if a := c.post(at, "/command"+path, apitest.Command(2, 1, "a", `"go"`)); a.code != 404 || !strings.Contains(a.body, "module 2") {
			t.Errorf("an unknown module: %+v", a)
		}
		if a := c.post(at, "/status"+path, apitest.Command(1, 1, "a", `{}`)); a.code != 400 || !strings.Contains(a.body, "message_type") {
			t.Errorf("a wrong message: %+v", a)
		}
		for _, r := range c.all {
			if a := c.get(r, "/status"+path); a.code != 200 || len(stamps(t, a.body)) != 1 {
				t.Errorf("statuses of %s at %s: %+v", path, r.name, a)
			}
			if a := c.get(r, "/command"+path+"?since=0"); a.code != 200 || len(stamps(t, a.body)) != 1 {
				t.Errorf("commands of %s at %s: %+v", path, r.name, a)
			}
			if a := c.get(r, "/available-devices"+path); a.code != 200 || !strings.Contains(a.body, `"role":"a"`) {
				t.Errorf("devices of %s at %s: %+v", path, r.name, a)
			}
			if a := c.get(r, "/available-devices"+path+"?module_id=2"); a.code != 404 {
				t.Errorf("devices of an unknown module: %+v", a)
			}
		}
	}
	for _, r := range c.all {
		if a := c.get(r, "/cars"); a.code != 200 || strings.Count(a.body, "car_name") != testShards {
			t.Errorf("cars at %s: %+v", r.name, a)
		}
		if a := c.get(r, "/status/company/unknown"); a.code != 404 || a.body != "[]" {
			t.Errorf("an unknown car at %s: %+v", r.name, a)
		}
		stats := r.server.Stats()
		if stats.PassedOn == 0 || stats.ForOthers == 0 || stats.Shards == 0 {
			t.Errorf("counters of %s: %+v", r.name, stats)
		}
	}
	cars := 0
	for _, r := range c.all {
		cars += r.server.Stats().Cars
	}
	if cars != testShards {
		t.Errorf("the replicas' cars are %d in all, want %d: none twice", cars, testShards)
	}
}

// A long poll at one replica ends with what is posted at another one, and the end of the
// client ends the owner's wait.
func TestClusterLongPolls(t *testing.T) {
	c := startReplicas(t, nil, 0, 0, 0)
	a, b, x := c.all[0], c.all[1], c.all[2]
	c.give(a, 0, 1, 2, 3)
	c.mustPost(x, "/status/company/car_1", apitest.Status(1, 1, "a", `{}`))
	here, there := c.later(a, "/command/company/car_1?wait=true"), c.later(b, "/command/company/car_1?wait=true")
	c.waiting(a, 2)
	c.mustPost(x, "/command/company/car_1", apitest.Command(1, 1, "a", `"go"`))
	for _, answers := range []<-chan reply{here, there} {
		if got := <-answers; got.code != 200 || len(stamps(t, got.body)) != 1 {
			t.Errorf("answer %+v", got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.do(ctx, "GET", b, "/status/company/car_1?wait=true&since=9999999999999", "")
	}()
	c.waiting(a, 1)
	cancel()
	<-ended
	c.waiting(a, 0)

	// A car that becomes known at one replica wakes those who wait for cars at another.
	known := c.later(b, "/cars?wait=true&since=9999999999999")
	c.waiting(b, 1)
	c.mustPost(x, "/status/company/car_2", apitest.Status(1, 1, "a", `{}`))
	if got := <-known; got.code != 200 || !strings.Contains(got.body, "car_2") || strings.Contains(got.body, "car_1") {
		t.Errorf("cars %+v", got)
	}
}

// The time of a poll is the first replica's, whichever replica serves it.
func TestClusterPollsEndInTime(t *testing.T) {
	c := startReplicas(t, func(o *Options) { o.Config.WaitTimeout = 50 * time.Millisecond }, 0, 0)
	c.give(c.all[0], 0, 1, 2, 3)
	c.mustPost(c.all[1], "/status/company/car_1", apitest.Status(1, 1, "a", `{}`))
	for _, r := range c.all {
		for path, want := range map[string]int{"/command/company/car_1": 200, "/command/company/car_2": 404, "/status/company/car_1": 404} {
			if a := c.get(r, path+"?wait=true&since=9999999999999"); a.code != want || a.body != "[]" {
				t.Errorf("%s at %s: %+v, want %d", path, r.name, a, want)
			}
		}
	}
}

// Requests for cars without owner are held; what can be read is read at once.
func TestClusterHoldsRequestsWithoutOwner(t *testing.T) {
	c := startReplicas(t, nil, 0, 0)
	a, b := c.all[0], c.all[1]
	c.give(a, 0, 1, 2, 3)
	c.mustPost(b, "/status/company/car_1", apitest.Status(1, 1, "a", `{}`))
	c.give(nil, 1)
	if got := c.get(b, "/status/company/car_1"); got.code != 200 || len(stamps(t, got.body)) != 1 {
		t.Errorf("read without owner: %+v", got)
	}
	if got := c.get(b, "/status/company/car_1?wait=true"); got.code != 200 || len(stamps(t, got.body)) != 1 {
		t.Errorf("a poll that finds something: %+v", got)
	}
	if got := c.get(b, "/command/company/car_1"); got.code != 200 || got.body != "[]" {
		t.Errorf("no commands: %+v", got)
	}
	if got := c.get(b, "/command/company/car_5"); got.code != 404 || got.body != "[]" {
		t.Errorf("an unknown car: %+v", got)
	}
	posted := make(chan reply, 1)
	go func() { posted <- c.post(b, "/command/company/car_1", apitest.Command(1, 1, "a", `"go"`)) }()
	poll := c.later(b, "/command/company/car_1?wait=true")
	testwait.Until(t, "both are held", func() bool { return b.server.Stats().Held == 2 })
	c.give(b, 1)
	if got := <-posted; got.code != 200 {
		t.Errorf("held post: %+v", got)
	}
	if got := <-poll; got.code != 200 || len(stamps(t, got.body)) != 1 {
		t.Errorf("held poll: %+v", got)
	}
}

// After its time a post without owner is refused with what it is about.
func TestClusterRefusesWhatNobodyTakes(t *testing.T) {
	c := startReplicas(t, func(o *Options) { o.Cluster.Hold, o.Config.WaitTimeout = 20*time.Millisecond, 20*time.Millisecond }, 0)
	answer, got := c.do(t.Context(), "POST", c.all[0], "/status/company/car_1", `[]`)
	if got.code != 503 || answer.Header.Get("Retry-After") == "" || !strings.Contains(got.body, "company/car_1") || !strings.Contains(got.body, "shard 1") {
		t.Errorf("%+v", got)
	}
	if got := c.get(c.all[0], "/command/company/car_1?wait=true"); got.code != 404 || got.body != "[]" {
		t.Errorf("a poll for an unknown car without owner: %+v", got)
	}
}

// The owner ends while a poll waits at it; the first replica goes on at the next owner,
// within the poll's time.
func TestClusterOwnerEndsDuringPoll(t *testing.T) {
	for name, end := range map[string]func(*replicas, *replica){
		"it stops":                   func(_ *replicas, r *replica) { r.stop() },
		"another one takes the cars": func(*replicas, *replica) {},
		"it does not answer any more": func(c *replicas, r *replica) {
			// Its address leads nowhere from now on; the connection of the poll stays.
			c.all[1].owners.set(1, core.Owner{Epoch: c.epoch, Replica: r.name, Address: "127.0.0.1:1"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := startReplicas(t, nil, 0, 0, 0)
			a, b, x := c.all[0], c.all[1], c.all[2]
			c.give(a, 0, 1, 2, 3)
			c.mustPost(b, "/status/company/car_1", apitest.Status(1, 1, "a", `{}`))
			poll := c.later(b, "/command/company/car_1?wait=true")
			own := c.later(a, "/command/company/car_1?wait=true")
			c.waiting(a, 2)
			end(c, a)
			c.give(x, 1)
			c.mustPost(x, "/command/company/car_1", apitest.Command(1, 1, "a", `"go"`))
			if got := <-poll; got.code != 200 || len(stamps(t, got.body)) != 1 {
				t.Errorf("the poll: %+v", got)
			}
			if got := <-own; name != "it stops" && (got.code != 200 || len(stamps(t, got.body)) != 1) {
				t.Errorf("the poll at the old owner: %+v", got)
			}
		})
	}
}

// Two owners whose clocks differ by 500 ms, back and forth: the timestamps of a car rise,
// and one who reads on at newest + 1 misses nothing.
func TestClusterTimestampsRise(t *testing.T) {
	c := startReplicas(t, nil, 0, 500*time.Millisecond)
	a, b := c.all[0], c.all[1]
	var seen []int64
	since, last := int64(0), int64(0)
	for turn := range 20 {
		owner := c.all[turn%2]
		c.give(owner, 1)
		for range 3 {
			c.mustPost(a, "/status/company/car_1", apitest.Status(1, 1, "a", fmt.Sprint("[", turn, "]")))
		}
		got := c.get(b, fmt.Sprint("/status/company/car_1?since=", since))
		for _, at := range stamps(t, got.body) {
			if at <= last {
				t.Fatalf("turn %d: timestamp %d after %d", turn, at, last)
			}
			last = at
			seen = append(seen, at)
		}
		since = last + 1
	}
	if len(seen) != 60 {
		t.Errorf("%d of 60 statuses were read", len(seen))
	}
	// So do the times at which cars become known: none is missed by who reads on.
	c.give(b, 2)
	c.give(a, 3)
	c.mustPost(a, "/status/company/car_2", apitest.Status(1, 1, "a", `{}`)) // by the clock that is ahead
	newest := c.lastKnownAt()
	c.mustPost(b, "/status/company/car_3", apitest.Status(1, 1, "a", `{}`))
	if got := c.get(a, fmt.Sprint("/cars?since=", newest+1)); !strings.Contains(got.body, "car_3") || strings.Contains(got.body, "car_2") {
		t.Errorf("cars since the newest: %+v", got)
	}
}

// An owner that does not know yet that it is none stores nothing: its posts find the new
// owner as soon as it learns.
func TestClusterOldOwnerStoresNothing(t *testing.T) {
	c := startReplicas(t, nil, 0, 0)
	a, b := c.all[0], c.all[1]
	c.give(a, 0, 1)
	c.mustPost(a, "/status/company/car_1", apitest.Status(1, 1, "a", `"1"`))
	newest := c.lastKnownAt()
	poll := c.later(a, fmt.Sprint("/status/company/car_1?wait=true&since=", newest+1))
	c.waiting(a, 1)
	c.epoch++
	b.owners.set(1, core.Owner{Epoch: c.epoch, Replica: "b", Address: b.address}) // a is not told
	c.mustPost(b, "/status/company/car_1", apitest.Status(1, 1, "a", `"2"`))
	posted := make(chan reply, 1)
	go func() { posted <- c.post(a, "/status/company/car_1", apitest.Status(1, 1, "a", `"3"`)) }()
	testwait.Until(t, "the old owner notices", func() bool { return a.log.Has("another replica serves", "shard=1") })
	c.mustPost(a, "/status/company/car_4", apitest.Status(1, 1, "a", `"other"`)) // its other shard is served
	if got := c.get(b, "/status/company/car_1"); strings.Contains(got.body, `"3"`) {
		t.Errorf("the old owner has stored: %+v", got)
	}
	a.owners.set(1, core.Owner{Epoch: c.epoch, Replica: "b", Address: b.address})
	if got := <-posted; got.code != 200 {
		t.Errorf("the post, once a knows: %+v", got)
	}
	if got := <-poll; got.code != 200 || !strings.Contains(got.body, `"2"`) { // "3" may have come by then, or not
		t.Errorf("the poll at the old owner: %+v", got)
	}
	if epoch, name, err := a.server.StoreEpoch(t.Context(), 1); err != nil || epoch != c.epoch || name != "b" {
		t.Errorf("epoch %d of %s (%v)", epoch, name, err)
	}
}

// The API key is checked by the replica that is asked, and goes no further.
func TestClusterKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	key, err := keys.Add(file, "control-room", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := startReplicas(t, func(o *Options) {
		if o.Cluster.Replica == "b" { // the owner has no keys at all
			o.Config.KeysFile = file
		}
	}, 0, 0)
	a, b := c.all[0], c.all[1]
	c.give(a, 0, 1, 2, 3)
	if got := c.post(b, "/status/company/car_1", apitest.Status(1, 1, "a", `{}`)); got.code != 401 {
		t.Errorf("without key: %+v", got)
	}
	c.mustPost(b, "/status/company/car_1?api_key="+key, apitest.Status(1, 1, "a", `{}`))
	if !a.log.Has("another replica", "replica=b", "key=control-room") || strings.Contains(a.log.String(), key) || strings.Contains(b.log.String(), key) {
		t.Errorf("log of the owner:\n%s", a.log.String())
	}
	_ = os.Remove(file)
}

type answer struct {
	messages []httpapi.Message
	err      error
}

// Built-in modules use the API of their own process, whichever replica serves the car.
func TestClusterInProcess(t *testing.T) {
	c := startReplicas(t, nil, 0, 0)
	a, b := c.all[0], c.all[1]
	since := time.Now().Add(time.Hour).UnixMilli() // nothing is there yet
	for _, r := range c.all {
		c.give(a, 0, 1, 2, 3)
		api, other := r.server.API(), b.server.API()
		if err := api.PostStatuses(t.Context(), apitest.Car1, []httpapi.Message{apitest.Status(1, 1, r.name, `{}`)}); err != nil {
			t.Fatal(err)
		}
		answers := make(chan answer, 1)
		poll := func() {
			api.PollCommands(apitest.Car1, since, func(m []httpapi.Message, err error) { answers <- answer{m, err} })
		}
		post := func() {
			t.Helper()
			if err := other.PostCommands(t.Context(), apitest.Car1, []httpapi.Message{apitest.Command(1, 1, r.name, `"go"`)}); err != nil {
				t.Fatal(err)
			}
		}
		poll()
		c.waiting(a, 1)
		post()
		if got := <-answers; got.err != nil || len(got.messages) != 1 {
			t.Fatalf("poll at %s: %+v", r.name, got)
		}
		if messages, err := api.Statuses(t.Context(), apitest.Car1, httpapi.Query{}); err != nil || len(messages) == 0 {
			t.Errorf("statuses at %s: %v %v", r.name, messages, err)
		}
		if messages, err := api.Commands(t.Context(), apitest.Car1, httpapi.Query{}); err != nil || len(messages) == 0 {
			t.Errorf("commands at %s: %v %v", r.name, messages, err)
		}
		if devices, err := api.AvailableDevices(t.Context(), apitest.Car1, nil); err != nil || len(devices) != 1 {
			t.Errorf("devices at %s: %v %v", r.name, devices, err)
		}
		poll()
		c.waiting(a, 1)
		c.give(b, 1)
		if r == a { // in the owner's process: the next poll finds its way
			if got := <-answers; httpapi.StatusOf(got.err) != 503 {
				t.Errorf("a poll whose car moves: %+v", got)
			}
			poll()
		}
		c.waiting(b, 1)
		post()
		if got := <-answers; got.err != nil || len(got.messages) != 1 {
			t.Errorf("poll at %s after the move: %+v", r.name, got)
		}
	}
}

// One replica at a time deletes; what its owner does not know any more is forgotten.
func TestClusterRetention(t *testing.T) {
	c := startReplicas(t, func(o *Options) { o.Config.Retention = time.Second }, 0, 0, 0)
	for n := range testShards {
		c.give(c.all[n%3], n)
		c.mustPost(c.all[0], fmt.Sprintf("/status/company/car_%d", n), apitest.Status(1, 1, "a", `{}`))
	}
	cars, deleted := 0, int64(0)
	testwait.Until(t, "all cars are forgotten everywhere, their messages deleted", func() bool {
		cars, deleted = 0, 0
		for _, r := range c.all {
			stats := r.server.Stats()
			cars, deleted = cars+stats.Cars, deleted+stats.Deleted
		}
		return cars == 0 && deleted >= testShards && c.get(c.all[1], "/cars").body == "[]"
	})
	for _, r := range c.all {
		if r.log.Has("level=ERROR") {
			t.Errorf("log of %s:\n%s", r.name, r.log.String())
		}
	}
	if deleted != testShards {
		t.Errorf("%d messages were deleted in all, want %d", deleted, testShards)
	}
	for _, r := range c.all {
		if got := c.get(r, "/status/company/car_1"); got.code != 404 {
			t.Errorf("at %s: %+v", r.name, got)
		}
	}
}

// A replica and a server without cluster do not share a database, and SQLite is refused.
func TestClusterStoreRefusals(t *testing.T) {
	database := sharedPostgres.Database(t)
	r := startReplica(t, "a", database, 0, nil)
	testwait.Until(t, "the store is open", func() bool { return r.server.Stats().StoreFault != store.FaultLoading })
	if s, err := store.Open(t.Context(), database); err == nil {
		_ = s.Close()
		t.Error("a server without cluster uses the database of one")
	}
	r.stop()
	alone, err := store.Open(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = alone.Close() }()
	sharing := store.Sharing{Replica: "a", Shards: testShards, ShardOf: r.owners.Shard}
	if _, err := store.OpenShared(t.Context(), database, sharing); err == nil || !strings.Contains(err.Error(), "belongs to no cluster") {
		t.Errorf("%v", err)
	}
	if _, err := store.OpenShared(t.Context(), "sqlite:/x", sharing); err == nil || !strings.Contains(err.Error(), "postgres://") {
		t.Errorf("%v", err)
	}
}
