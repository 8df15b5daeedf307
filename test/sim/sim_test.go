package sim

import (
	"flag"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds  = flag.Int("seeds", 0, "play this many histories; 0: a fixed number and some fresh ones")
	seed   = flag.Uint64("seed", 1, "the first seed")
	shrink = flag.Bool("shrink", true, "look for the smallest history that fails")
)

// TestHistories plays the histories of -seeds seeds, or a fixed number and some
// that were never played before.
func TestHistories(t *testing.T) {
	if *seeds > 0 {
		playAll(t, *seed, *seeds)
		return
	}
	fixed, fresh := 300, 100 // the race detector makes each several times slower
	if testing.Short() {
		fixed, fresh = 100, 50
	}
	playAll(t, 1, fixed)
	base := rand.Uint64N(1 << 40)
	t.Logf("fresh seeds from %d", base)
	playAll(t, base, fresh)
}

func playAll(t *testing.T, from uint64, n int) {
	t.Helper()
	var next, steps, answered atomic.Uint64
	var failed atomic.Pointer[Result]
	var wg sync.WaitGroup
	began := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for failed.Load() == nil {
				i := next.Add(1) - 1
				if i >= uint64(n) {
					return
				}
				r := Play(New(from + i))
				steps.Add(uint64(r.Steps))
				answered.Add(r.Answered)
				if r.Err != nil {
					failed.CompareAndSwap(nil, &r)
				}
			}
		})
	}
	wg.Wait()
	if r := failed.Load(); r != nil {
		report(t, *r)
	}
	took := time.Since(began)
	t.Logf("seeds %d to %d: %d steps of the core, %d statuses answered, in %v, %.1f million steps a minute",
		from, from+uint64(n)-1, steps.Load(), answered.Load(), took.Round(time.Millisecond), float64(steps.Load())/took.Minutes()/1e6)
}

// report prints the seed, the smallest history that fails, and its end.
func report(t *testing.T, r Result) {
	t.Helper()
	smallest := r
	if *shrink {
		smallest = Shrink(r, 400)
	}
	lines := strings.Split(strings.TrimSpace(PlayTraced(smallest.Scenario).Trace), "\n")
	t.Fatalf("seed %d: %v\nshrunk: %v\n%vit ends with\n%s\nplay it again: go -C test test ./sim -run TestHistories -seeds 1 -seed %d",
		r.Scenario.Seed, r.Err, smallest.Err, smallest.Scenario, strings.Join(lines[max(0, len(lines)-60):], "\n"), r.Scenario.Seed)
}

// The same seed plays the same history.
func TestSameSeedSameHistory(t *testing.T) {
	for s := uint64(1); s <= 12; s++ {
		a, b := PlayTraced(New(s)), PlayTraced(New(s))
		if a.Trace != b.Trace || a.Steps != b.Steps {
			t.Fatalf("seed %d plays differently the second time", s)
		}
	}
}
