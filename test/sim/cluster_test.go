package sim

import (
	"flag"
	"testing"
)

var clusterSeeds = flag.Int("cluster-seeds", 100, "histories in which several servers hand a car over")

// TestClusterHistories: servers of a cluster die at any byte, are halted and cut off, and hand the
// car over; the gateway notices nothing but silence, and the broker hears no server that has lost the car.
func TestClusterHistories(t *testing.T) {
	n := *clusterSeeds
	if testing.Short() {
		n = min(n, 200)
	}
	for s := *seed; s < *seed+uint64(n); s++ {
		if r := PlayCluster(s, false); r.Err != nil {
			traced := PlayCluster(s, true)
			if len(traced.Trace) > 20_000 {
				traced.Trace = traced.Trace[len(traced.Trace)-20_000:]
			}
			t.Fatalf("seed %d, play it again with -seed %d -cluster-seeds 1: %v\n%v%s", s, s, r.Err, r.Scenario, traced.Trace)
		}
	}
}
