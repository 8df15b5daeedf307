package app

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"external-server/internal/cluster"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// edges are the networks of two replicas to their broker.
func (c *crowd) edges(names ...string) {
	c.relays = make(map[string]*brokertest.Relay)
	for _, name := range names {
		c.relays[name] = brokertest.NewRelay(c.t, c.broker.Address())
	}
}

// closeAll gives all shards of a replica to another one, as the planner does when the broker
// is gone: all at once.
func closeAll(r *replica, to cluster.Member) []error {
	errs := make([]error, crowdShards)
	var work sync.WaitGroup
	for n := range crowdShards {
		work.Go(func() { errs[n] = r.cluster.Close(context.Background(), n, to, false) })
	}
	work.Wait()
	return errs
}

// A network between a replica and the broker that swallows everything, or one direction, is
// noticed by what the broker does not answer. The shards go to another replica with their
// sessions, without the broker: no gateway notices, modules get each status once and in order.
func TestShardLeavesSilentBroker(t *testing.T) {
	for _, tt := range []struct {
		name     string
		up, down bool
	}{{"silent", true, true}, {"mute", true, false}, {"deaf", false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			names, cars := carsOfEach(2)
			c := newCrowd(t, cars)
			c.edges("a")
			a, b := c.start("a"), c.start("b")
			c.open(a, 0, 1, 2, 3)
			c.drive(names...)
			c.relays["a"].Hold(tt.up, tt.down)
			testwait.Until(t, "the replica notices", a.cluster.silent)
			for n, err := range closeAll(a, b.member()) {
				if err != nil {
					t.Errorf("shard %d: %v", n, err)
				}
			}
			if len(a.Cars()) != 0 {
				t.Errorf("a serves %d cars", len(a.Cars()))
			}
			c.open(b, 0, 1, 2, 3)
			c.served(5)
			c.relays["a"].Hold(false, false)
			testwait.Until(t, "the replica is well again", func() bool { return a.cluster.Health() == nil })
			c.served(5)
			c.unnoticed()
			c.account.exact(t)
		})
	}
}

// The broker answers no replica: none takes a shard of another one, all go on when it is back.
func TestNoBrokerForAny(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	c.edges("a", "b")
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	c.relays["a"].Hold(true, true)
	c.relays["b"].Hold(true, true)
	testwait.Until(t, "both notice", func() bool { return a.cluster.silent() && b.cluster.silent() })
	for n, err := range closeAll(a, b.member()) {
		if err == nil || !strings.Contains(err.Error(), "the broker does not answer it either") {
			t.Errorf("shard %d: %v", n, err)
		}
	}
	if len(a.Cars()) != len(names) {
		t.Errorf("a serves %d cars", len(a.Cars()))
	}
	c.relays["a"].Hold(false, false)
	c.relays["b"].Hold(false, false)
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}

// A next owner that does not take what it is handed leaves a replica without broker nothing to
// go on with: it gives the shard up, and whoever claims it goes on from the broker's records.
func TestShardLeavesWithoutTaker(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	c.edges("a")
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	full := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.Error(w, "the disk is full", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, `{"replica": "full", "state": "not served"}`)
	}))
	full.Config.Protocols = new(http.Protocols)
	full.Config.Protocols.SetUnencryptedHTTP2(true) // as between replicas
	full.Start()
	defer full.Close()
	c.relays["a"].Hold(true, true)
	testwait.Until(t, "the replica notices", a.cluster.silent)
	for n, err := range closeAll(a, cluster.Member{Name: "full", Address: full.Listener.Addr().String()}) {
		if err != nil {
			t.Errorf("shard %d: %v", n, err)
		}
	}
	if len(a.Cars()) != 0 {
		t.Errorf("a serves %d cars", len(a.Cars()))
	}
	c.open(b, 0, 1, 2, 3)
	c.served(5)
	c.unnoticed()
}
