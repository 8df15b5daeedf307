package sim

import (
	"cmp"
	"flag"
	"sync/atomic"
	"testing"
)

var durableSeeds = flag.Int("durable-seeds", 0, "histories in which the server goes on from its journal; 0: a fixed number")

// TestDurableHistories: the server is killed, stopped and cut off at any moment, and the
// gateway notices nothing but silence.
func TestDurableHistories(t *testing.T) {
	playServers(t, cmp.Or(*durableSeeds, brief(200, 8)), "-durable-seeds", PlayDurable)
}

// few is how many there are of something when nothing else is asked for: the usual number, or,
// with the race detector, the other one.
func few(usual, withDetector int) int {
	if detected {
		return withDetector
	}
	return usual
}

// brief is few when tests are not to be short, else a quarter.
func brief(usual, withDetector int) int {
	if testing.Short() {
		usual /= 4
	}
	return few(usual, withDetector)
}

// playServers plays histories from -seed on, of which name is the flag that says how many.
func playServers(t *testing.T, n int, name string, play func(seed uint64, traced bool) Result) {
	t.Helper()
	var failed atomic.Uint64
	spread(n, func(i uint64) bool {
		ok := play(*seed+i, false).Err == nil
		if !ok {
			failed.CompareAndSwap(0, *seed+i)
		}
		return ok
	})
	if s := failed.Load(); s != 0 {
		traced := play(s, true)
		if len(traced.Trace) > 20_000 {
			traced.Trace = traced.Trace[len(traced.Trace)-20_000:]
		}
		t.Fatalf("seed %d, play it again with -seed %d %s 1: %v\n%v%s", s, s, name, traced.Err, traced.Scenario, traced.Trace)
	}
}
