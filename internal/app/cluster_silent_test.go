package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"external-server/internal/cluster"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// edges are the networks of two replicas to their broker.
func (c *crowd) edges(names ...string) {
	c.relays = make(map[string]*badnetwork.Proxy)
	for _, name := range names {
		c.relays[name] = badnetwork.New(c.t, c.broker.Address())
	}
}

// silent tells whether the broker does not answer the replica.
func (r *sharer) silent() bool {
	return errors.As(r.cluster.replica.Health(), new(*cluster.NoBrokerError))
}

// giveAll gives all shards of a replica to another one until that has taken them: on a busy machine
// it may not have an answer of the broker for a moment. The result is nil, or the shards were left.
func (c *crowd) giveAll(r *sharer, to cluster.Member) (err error) {
	c.t.Helper()
	testwait.Until(c.t, "the shards are given away", func() bool {
		if err = errors.Join(closeAll(r, to)...); errors.Is(err, cluster.ErrLeft) {
			return true
		}
		if err != nil && !noTaker(err) {
			c.t.Fatal(err)
		}
		return err == nil
	})
	if len(r.Cars()) != 0 {
		c.t.Errorf("%s serves %d cars", r.name, len(r.Cars()))
	}
	return err
}

// noTaker tells whether a shard was not given away because the next owner has no answer of the broker either.
func noTaker(err error) bool {
	return err != nil && strings.Contains(err.Error(), "does not answer it either")
}

// closeAll tries it once, as the planner does when the broker is gone: all at once.
func closeAll(r *sharer, to cluster.Member) []error {
	errs := make([]error, crowdShards)
	var work sync.WaitGroup
	for n := range crowdShards {
		work.Go(func() { errs[n] = r.cluster.replica.Close(context.Background(), n, to, false) })
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
			c.relays["a"].Set(badnetwork.Faults{Mute: tt.up, Deaf: tt.down})
			testwait.Until(t, "the replica notices", a.silent)
			if err := c.giveAll(a, b.member()); err != nil {
				t.Error(err)
			}
			c.open(b, 0, 1, 2, 3)
			c.served(5)
			c.relays["a"].Set(badnetwork.Faults{})
			testwait.Until(t, "the replica is well again", func() bool { return a.cluster.replica.Health() == nil })
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
	c.relays["a"].Set(badnetwork.Faults{Silent: true})
	c.relays["b"].Set(badnetwork.Faults{Silent: true})
	testwait.Until(t, "both notice", func() bool { return a.silent() && b.silent() })
	for n, err := range closeAll(a, b.member()) {
		if err == nil || !strings.Contains(err.Error(), "the broker does not answer it either") {
			t.Errorf("shard %d: %v", n, err)
		}
	}
	if len(a.Cars()) != len(names) {
		t.Errorf("a serves %d cars", len(a.Cars()))
	}
	c.relays["a"].Set(badnetwork.Faults{})
	c.relays["b"].Set(badnetwork.Faults{})
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}

// A next owner that does not take what it is handed, or that cannot be asked and is well as far as
// etcd knows, leaves a replica without broker nothing to go on with: it gives the shard up, and
// the replica that claims it goes on from the broker's records.
func TestShardIsLeftBehind(t *testing.T) {
	full := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.Error(w, "the disk is full", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, `{"replica": "next", "state": "not served"}`)
	}))
	full.Config.Protocols = new(http.Protocols)
	full.Config.Protocols.SetUnencryptedHTTP2(true) // as between replicas
	full.Start()
	t.Cleanup(full.Close)
	for name, address := range map[string]string{"refused": full.Listener.Addr().String(), "cut off": brokertest.FreeAddress(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			names, cars := carsOfEach(2)
			c := newCrowd(t, cars)
			c.edges("a")
			a, b := c.start("a"), c.start("b")
			c.open(a, 0, 1, 2, 3)
			c.drive(names...)
			c.relays["a"].Set(badnetwork.Faults{Silent: true})
			testwait.Until(t, "the replica notices", a.silent)
			next := cluster.Member{Name: "next", Address: address, State: cluster.StateUnhealthy}
			c.table.change(func(v *cluster.View) { v.Members = []cluster.Member{next} })
			if name == "cut off" { // as far as is known it cannot serve either
				if err := errors.Join(closeAll(a, next)...); err == nil || len(a.Cars()) != len(names) {
					t.Errorf("%v; a serves %d cars", err, len(a.Cars()))
				}
			}
			next.State = cluster.StateReady
			c.table.change(func(v *cluster.View) { v.Members = []cluster.Member{next} })
			if err := c.giveAll(a, next); !errors.Is(err, cluster.ErrLeft) {
				t.Error(err)
			}
			c.open(b, 0, 1, 2, 3)
			c.served(5)
			c.unnoticed()
		})
	}
}

// A shard that is not taken and cannot be served on, because the broker has gone meanwhile, is
// given up: the claim of a shard that is not served would keep the others from it.
func TestShardThatCannotBeTakenBack(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(1)
	c := newCrowd(t, cars)
	a := c.start("a")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	c.broker.Kill()
	testwait.Until(t, "the connections are lost", func() bool { return !a.shards.State().Up })
	err := a.cluster.replica.Close(t.Context(), 0, cluster.Member{Name: "nobody", Address: brokertest.FreeAddress(t), State: cluster.StateReady}, false)
	if served := a.peers.owners.Owner(0).Self; err == nil || served == errors.Is(err, cluster.ErrLeft) {
		t.Errorf("%v; the shard is served: %v", err, served)
	}
}
