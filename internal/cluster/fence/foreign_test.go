package fence_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"external-server/internal/cluster/fence"
	"external-server/internal/fleet"
	"external-server/internal/support/brokertest"
)

// The owners of a cluster with another number of shards are found, and silenced for good.
func TestOwnersWithOtherShardsAreRetired(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	b := brokerAt(address, "b")
	foreign := func(own int) (found map[int]fence.Epoch, numbers []int) {
		t.Helper()
		found, err := fence.Foreign(t.Context(), b, cluster, own)
		if err != nil {
			t.Fatal(err)
		}
		return found, slices.Sorted(maps.Keys(found))
	}
	if _, got := foreign(8); len(got) != 0 {
		t.Errorf("a broker that knows none: %v", got)
	}
	stranger := dial(t, address)
	for topic, payload := range map[string]string{
		cluster + "/x/epoch":   `{"epoch":1,"replica":"z","shards":4}`,
		cluster + "/007/epoch": `{"epoch":1,"replica":"z","shards":4}`,
		cluster + "/3/epoch":   `garbage`,
		cluster + "/5/epoch":   `{"epoch":1,"replica":"earlier"}`,
		cluster + "/7/epoch":   `{"epoch":1,"replica":"z","shards":8}`,
		cluster + "/9/epoch":   `{"epoch":1,"replica":"earlier"}`,
		cluster + "/10/epoch":  `{"epoch":1152921504606846976,"replica":"z","shards":16}`,
		"another/1/epoch":      `{"epoch":1,"replica":"z","shards":4}`,
	} {
		if err := stranger.Retain(fleet.TopicsOfClusters+topic, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	old := serve(t, brokerAt(address, "old"), 11, nil)
	old.waitUp(1)
	found, numbers := foreign(8)
	if !slices.Equal(numbers, []int{shard(), 9, 10}) || found[shard()] != old.epoch {
		t.Fatalf("found %+v", found)
	}
	own := fence.Epoch{Replica: "b", Shards: 8}
	for _, n := range []int{shard(), 9} {
		if err := fence.Retire(t.Context(), b, cluster, n, found[n], own); err != nil {
			t.Fatal(err)
		}
	}
	old.waitFenced()
	if why := (*fence.ShardsError)(nil); !errors.As(old.err, &why) || *why != (fence.ShardsError{Replica: "b", Shards: 8, Own: shards}) {
		t.Errorf("it ended with %v", old.err)
	}
	if err := fence.Retire(t.Context(), b, cluster, 10, found[10], own); err == nil || !strings.Contains(err.Error(), "publishing an empty retained message") {
		t.Errorf("an epoch of nobody: %v", err)
	}
	if _, got := foreign(8); !slices.Equal(got, []int{10}) {
		t.Errorf("%v are still there", got)
	}
	if e, _, err := fence.Read(t.Context(), b, cluster, shard()); err != nil || e != (fence.Epoch{Epoch: 12, Replica: "b", Shards: 8}) {
		t.Errorf("the broker has %+v, %v", e, err)
	}
}
