package app

import (
	"errors"
	"testing"

	"external-server/internal/cluster"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/testwait"
)

// An etcd that was restored gives lower epochs than before. A shard that is served keeps
// the epoch that it has, and the caller is told which one to exceed.
func TestEpochNeverFalls(t *testing.T) {
	t.Parallel()
	_, cars := carsOfEach(1)
	c := newCrowd(t, cars)
	a := c.start("a")
	low := c.table.next()
	c.open(a, 0)
	high := c.table.view.Shards[0].Epoch
	for _, epoch := range []int64{low, high - 1} {
		err := a.cluster.replica.Open(t.Context(), 0, epoch)
		stale, ok := errors.AsType[*cluster.StaleError](err)
		if !ok || stale.Known != high || stale.Epoch != epoch || stale.Shard != 0 {
			t.Errorf("Open under %d while %d is in force: %v", epoch, high, err)
		}
	}
	if got := a.peers.owners.Owner(0).Epoch; got != high {
		t.Errorf("the epoch went from %d to %d", high, got)
	}
	if err := a.cluster.replica.Open(t.Context(), 0, high+10); err != nil {
		t.Error(err)
	}
}

// A replica that cannot serve does not say that it does: otherwise the others would leave
// a shard to it whose claim has vanished.
func TestIllReplicaLeavesItsShardsToOthers(t *testing.T) {
	t.Parallel()
	_, cars := carsOfEach(1)
	c := newCrowd(t, cars)
	c.edges("a")
	a, b := c.start("a"), c.start("b")
	c.open(a, 0)
	if answer, err := b.cluster.replica.Ask(t.Context(), 0); err != nil || !answer.Serving {
		t.Fatalf("%+v, %v", answer, err)
	}
	c.relays["a"].Set(badnetwork.Faults{Silent: true})
	testwait.Until(t, "the replica notices", a.silent)
	if answer, err := b.cluster.replica.Ask(t.Context(), 0); err != nil || answer.Serving {
		t.Errorf("%+v, %v", answer, err)
	}
}
