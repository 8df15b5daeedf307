package simulate

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// subBits is the precision of a Histogram: every power of two is cut into
// 2^subBits equal parts, so that a value is off by 1/64 (1.6 %) at most.
const subBits = 6

const (
	subCount = 1 << subBits
	buckets  = (64 - subBits) * subCount
)

// Histogram counts durations in buckets whose width grows with the value. Adding
// neither allocates nor locks; all methods may be called from any goroutine. The
// zero value is empty.
type Histogram struct {
	counts [buckets]atomic.Uint64
	total  atomic.Uint64
	sum    atomic.Int64 // nanoseconds
	max    atomic.Int64 // nanoseconds
}

// bucket returns the bucket of a value: those below 2^subBits have one each,
// above it the leading bits choose.
func bucket(v uint64) int {
	if v < subCount {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*subCount + int(v>>shift)
}

// upper returns the largest value of a bucket.
func upper(i int) uint64 {
	if i < 2*subCount {
		return uint64(i)
	}
	shift := i/subCount - 1
	return uint64(i-shift*subCount+1)<<shift - 1
}

// Add counts one duration; a negative one counts as zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))].Add(1)
	h.total.Add(1)
	h.sum.Add(int64(d))
	for old := h.max.Load(); int64(d) > old && !h.max.CompareAndSwap(old, int64(d)); old = h.max.Load() {
	}
}

// Count returns how many durations were added.
func (h *Histogram) Count() uint64 { return h.total.Load() }

// Max returns the longest duration.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max.Load()) }

// Mean returns the arithmetic mean, or 0.
func (h *Histogram) Mean() time.Duration {
	n := h.total.Load()
	if n == 0 {
		return 0
	}
	return time.Duration(h.sum.Load() / int64(n))
}

// Quantile returns the duration that the given share, 0 to 1, of all does not
// exceed; 0 when there is none.
func (h *Histogram) Quantile(q float64) time.Duration {
	n := h.total.Load()
	if n == 0 {
		return 0
	}
	wanted := uint64(q*float64(n) + 0.999999)
	wanted = min(max(wanted, 1), n)
	var seen uint64
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= wanted {
			return min(time.Duration(upper(i)), h.Max())
		}
	}
	return h.Max()
}

// Reset empties the histogram. Durations added meanwhile may be lost.
func (h *Histogram) Reset() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
	h.total.Store(0)
	h.sum.Store(0)
	h.max.Store(0)
}
