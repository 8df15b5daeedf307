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
	fixed, fresh := 1000, 300
	switch {
	case detected:
		fixed, fresh = 30, 10
	case testing.Short():
		fixed, fresh = 100, 50
	}
	playAll(t, 1, fixed)
	base := rand.Uint64N(1 << 40)
	t.Logf("fresh seeds from %d", base)
	playAll(t, base, fresh)
}

func playAll(t *testing.T, from uint64, n int) {
	t.Helper()
	var steps, answered atomic.Uint64
	var failed atomic.Pointer[Result]
	began := time.Now()
	spread(n, func(i uint64) bool {
		r := Play(New(from + i))
		steps.Add(uint64(r.Steps))
		answered.Add(r.Answered)
		if r.Err != nil {
			failed.CompareAndSwap(nil, &r)
		}
		return r.Err == nil
	})
	if r := failed.Load(); r != nil {
		report(t, *r)
	}
	took := time.Since(began)
	t.Logf("seeds %d to %d: %d steps of the core, %d statuses answered, in %v, %.1f million steps a minute",
		from, from+uint64(n)-1, steps.Load(), answered.Load(), took.Round(time.Millisecond), float64(steps.Load())/took.Minutes()/1e6)
}

// spread calls play with 0 to n-1, on all processors, until one call returns false.
func spread(n int, play func(i uint64) bool) {
	var next atomic.Uint64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !failed.Load() {
				i := next.Add(1) - 1
				if i >= uint64(n) {
					return
				}
				if !play(i) {
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
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
	for s := uint64(1); s <= uint64(few(12, 2)); s++ {
		a, b := PlayTraced(New(s)), PlayTraced(New(s))
		if a.Trace != b.Trace || a.Steps != b.Steps {
			t.Fatalf("seed %d plays differently the second time", s)
		}
	}
}
