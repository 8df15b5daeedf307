package sim

import (
	"cmp"
	"flag"
	"testing"
)

var clusterSeeds = flag.Int("cluster-seeds", 0, "histories in which several servers hand a car over; 0: a fixed number")

// TestClusterHistories: servers of a cluster die at any byte, are halted and cut off, and hand the
// car over; the gateway notices nothing but silence, and the broker hears no server that has lost the car.
func TestClusterHistories(t *testing.T) {
	playServers(t, cmp.Or(*clusterSeeds, brief(200, 12)), "-cluster-seeds", PlayCluster)
}
