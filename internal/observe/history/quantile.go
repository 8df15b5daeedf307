package history

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"
)

// bucket is one of a histogram: how many were at most that long.
type bucket struct{ le, count float64 }

// Quantile is the q-th quantile, from 0 to 1, of what a histogram has counted within the
// time, estimated within its bucket; false: it has counted nothing. What is longer than the
// largest bound counts as that long. count is how many there were.
func (w *Window) Quantile(histogram string, q float64, within time.Duration) (value, count float64, ok bool) {
	var buckets []bucket
	for _, s := range w.names[histogram+"_bucket"] {
		le, err := strconv.ParseFloat(s.Label("le"), 64)
		if err != nil {
			continue
		}
		buckets = append(buckets, bucket{le, w.Increase(s, within)})
	}
	slices.SortFunc(buckets, func(a, b bucket) int { return cmp.Compare(a.le, b.le) })
	if len(buckets) == 0 || buckets[len(buckets)-1].count <= 0 {
		return 0, 0, false
	}
	count = buckets[len(buckets)-1].count
	rank := q * count
	at := slices.IndexFunc(buckets, func(b bucket) bool { return b.count >= rank })
	if at < 0 || math.IsInf(buckets[at].le, 1) {
		for _, b := range slices.Backward(buckets) {
			if !math.IsInf(b.le, 1) {
				return b.le, count, true
			}
		}
		return 0, count, false
	}
	low, below := 0.0, 0.0
	if at > 0 {
		low, below = buckets[at-1].le, buckets[at-1].count
	}
	in := buckets[at].count - below
	if in <= 0 {
		return buckets[at].le, count, true
	}
	return low + (buckets[at].le-low)*(rank-below)/in, count, true
}
