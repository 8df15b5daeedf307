package vigil

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// rig is a vigil in virtual time whose naps are counted.
type rig struct {
	*Vigil
	naps   atomic.Int64
	spared atomic.Bool // there is a processor to spare
}

func newRig() *rig {
	r := &rig{}
	r.spared.Store(true)
	r.Vigil = start(func() { r.naps.Add(1); time.Sleep(nap) }, r.spared.Load)
	return r
}

// calls makes calls at that rate and returns how many naps there were meanwhile.
func (r *rig) at(perSecond int, d time.Duration) int64 {
	before := r.naps.Load()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Second / time.Duration(perSecond))
		r.Called()
	}
	return r.naps.Load() - before
}

func TestNapsWhileCallsAreFrequent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		defer r.Close()
		if n := r.at(90, 10*time.Second); n > 0 {
			t.Errorf("%d naps at 90 calls per second", n)
		}
		if n := r.at(1000, 10*time.Second); n < 4500 || n > 5000 {
			t.Errorf("%d naps in 10 s at 1000 calls per second, expected about 5000", n)
		}
		r.at(50, time.Second) // it needs a moment to see
		if n := r.at(50, 10*time.Second); n > 0 {
			t.Errorf("%d naps at 50 calls per second", n)
		}
		if n := r.at(10_000, time.Second); n < 400 {
			t.Errorf("%d naps in a second at 10 000 calls per second, expected about 500", n)
		}
		r.at(20_000, time.Second)
		if n := r.at(20_000, time.Second); n > 0 {
			t.Errorf("%d naps in a second at 20 000 calls per second", n)
		}
		r.at(1000, time.Second)
		if n := r.at(1000, time.Second); n < 400 {
			t.Errorf("%d naps in a second at 1000 calls per second after more, expected about 500", n)
		}
		time.Sleep(time.Second)
		before := r.naps.Load()
		time.Sleep(time.Hour)
		if n := r.naps.Load() - before; n > 0 {
			t.Errorf("%d naps in an hour without calls", n)
		}
		r.Called() // the first after a long time, and many before it
		time.Sleep(time.Second)
		if n := r.naps.Load() - before; n > 0 {
			t.Errorf("%d naps after one call", n)
		}
	})
}

// A process that has one processor does not nap, also when it had two before.
func TestNeedsAProcessorToSpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		defer r.Close()
		r.at(1000, time.Second)
		r.spared.Store(false)
		r.at(1000, time.Second)
		if n := r.at(1000, 10*time.Second); n > 0 {
			t.Errorf("%d naps", n)
		}
		r.spared.Store(true)
		if n := r.at(1000, 10*time.Second); n < 4500 {
			t.Errorf("%d naps in 10 s", n)
		}
	})
}

func TestCloseWhileItNaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		if r.at(1000, time.Second) == 0 {
			t.Error("no naps")
		}
		r.Close()
		r.Close()
		r.Called()
	})
}

// A vigil that leaves a busy process alone ends within a nap, too.
func TestCloseWhileItPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		r.at(20_000, time.Second)
		r.at(20_000, 15*time.Millisecond)
		begun := time.Now()
		r.Close()
		if took := time.Since(begun); took > nap {
			t.Errorf("the end took %v", took)
		}
	})
}
