package sim

import (
	"flag"
	"testing"
)

var durableSeeds = flag.Int("durable-seeds", 120, "histories in which the server goes on from its journal")

// TestDurableHistories: the server is killed, stopped and cut off at any moment, and the
// gateway notices nothing but silence.
func TestDurableHistories(t *testing.T) {
	n := *durableSeeds
	if testing.Short() {
		n = min(n, 200)
	}
	for s := *seed; s < *seed+uint64(n); s++ {
		if r := PlayDurable(s, false); r.Err != nil {
			traced := PlayDurable(s, true)
			if len(traced.Trace) > 20_000 {
				traced.Trace = traced.Trace[len(traced.Trace)-20_000:]
			}
			t.Fatalf("seed %d, play it again with -seed %d -durable-seeds 1: %v\n%v%s", s, s, r.Err, r.Scenario, traced.Trace)
		}
	}
}
