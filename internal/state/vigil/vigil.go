// Package vigil makes system calls that may wait cheaper, in a process that is idle between them.
//
// The Go runtime has a thread, its monitor, that takes the processor away from a goroutine whose
// system call takes long. The monitor sleeps while no processor is in use, and the next ordinary
// system call wakes it. It then looks several times and falls asleep again, which costs several times
// what an append to a journal costs. It stays awake, and looks ever more seldom, while a processor
// is in use. So where such calls come often, a goroutine naps: it is in a system call, uses a
// processor and no CPU. docs/performance.md has the figures.
package vigil

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// each is after how many calls the vigil looks how often they come.
	each = 64
	// begins and ends are rates of calls in 1/s. A nap and the monitor's looks cost
	// about 6 µs, and a call without a vigil about 35 µs more: below 100 calls
	// per second the vigil is the dearer one.
	begins, ends = 200, 100
	// most is the rate from which the process is hardly ever idle between two calls: there is nothing to keep awake, and
	// others want the processor.
	most = 12_000
	// nap bounds how long another goroutine may have to wait for the processor that the vigil
	// uses, while all others are busy.
	nap = 2 * time.Millisecond
	// look is after how many naps the vigil looks whether it is still worth it.
	look = 50
)

// Vigil keeps the monitor awake while calls come often. Its methods may be called from several
// goroutines.
type Vigil struct {
	calls atomic.Uint64
	due   chan struct{} // one more time each calls were made
	ended chan struct{}
	done  sync.WaitGroup
	once  sync.Once

	rest    func()      // one nap
	allowed func() bool // whether a processor can be spared
}

// New returns a vigil. It must be closed.
func New() *Vigil {
	// The vigil must not use the only processor that there is. The number may change
	// while the process runs.
	return start(rest, func() bool { return runtime.GOMAXPROCS(0) > 1 })
}

func start(rest func(), allowed func() bool) *Vigil {
	v := &Vigil{due: make(chan struct{}, 1), ended: make(chan struct{}), rest: rest, allowed: allowed}
	v.done.Go(v.run)
	return v
}

// Called counts a system call that was made. It does not wait.
func (v *Vigil) Called() {
	if v.calls.Add(1)%each == 0 {
		select {
		case v.due <- struct{}{}:
		default:
		}
	}
}

// Close ends the vigil and waits for its goroutine. It may be called again.
func (v *Vigil) Close() {
	v.once.Do(func() { close(v.ended) })
	v.done.Wait()
}

func (v *Vigil) run() {
	var last time.Time
	for {
		select {
		case <-v.due:
		case <-v.ended:
			return
		}
		now := time.Now()
		if now.Sub(last) <= each*time.Second/begins {
			v.watch()
			now = time.Now()
		}
		last = now
	}
}

// watch naps until calls have become rare, or the vigil ends.
func (v *Vigil) watch() {
	for rate := 0.0; v.allowed(); {
		before, since := v.calls.Load(), time.Now()
		if rate > most {
			select {
			case <-v.ended:
				return
			case <-time.After(look * nap):
			}
		} else if !v.doze() {
			return
		}
		rate = float64(v.calls.Load()-before) / time.Since(since).Seconds()
		if rate < ends {
			return
		}
	}
}

// doze naps until it is time to look at the calls; false: the vigil ends.
func (v *Vigil) doze() bool {
	for range look {
		select {
		case <-v.ended:
			return false
		default:
		}
		v.rest()
		// The monitor takes the processor of a goroutine that was not scheduled for 10 ms.
		runtime.Gosched()
	}
	return true
}

// rest is an ordinary system call: the runtime's own sleep would give the processor back.
func rest() {
	t := unix.NsecToTimespec(int64(nap))
	_ = unix.Nanosleep(&t, nil) // a signal ends it early, which does no harm
}
