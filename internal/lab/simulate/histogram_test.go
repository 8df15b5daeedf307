package simulate

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The quantiles of a histogram are those of the sorted values, but for the width
// of a bucket.
func TestQuantilesAreThoseOfTheValues(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	for _, shape := range []func() float64{
		func() float64 { return chance.Float64() * 1e6 },
		func() float64 { return math.Exp(chance.NormFloat64()*3 + 12) },
		func() float64 { return float64(chance.IntN(100)) },
	} {
		var h Histogram
		var values []time.Duration
		for range 20_000 {
			v := time.Duration(shape())
			values = append(values, v)
			h.Add(v)
		}
		slices.Sort(values)
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
			want := values[max(0, int(math.Ceil(q*float64(len(values))))-1)]
			got := h.Quantile(q)
			if got < want || float64(got-want) > float64(want)/64+1 {
				t.Errorf("quantile %v is %v, expected %v to 1.6 %% more", q, got, want)
			}
		}
		if h.Max() != values[len(values)-1] || h.Count() != uint64(len(values)) {
			t.Errorf("max %v, count %d", h.Max(), h.Count())
		}
	}
}

// Every value has a bucket whose limits enclose it.
func TestBucketsEncloseTheirValues(t *testing.T) {
	for shift := range 63 {
		for _, d := range []int64{-1, 0, 1} {
			v := uint64(max(0, int64(1)<<shift+d))
			i := bucket(v)
			if v > upper(i) || i > 0 && v <= upper(i-1) {
				t.Errorf("value %d in bucket %d of %d to %d", v, i, upper(max(0, i-1)), upper(i))
			}
		}
	}
	if i := bucket(math.MaxInt64); i >= buckets {
		t.Errorf("the largest duration has bucket %d of %d", i, buckets)
	}
}

func TestHistogramEmptyAndReset(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 || h.Max() != 0 {
		t.Error("an empty histogram has values")
	}
	h.Add(-time.Second)
	h.Add(2 * time.Second)
	if h.Quantile(0.5) != 0 || h.Mean() != time.Second {
		t.Errorf("median %v, mean %v", h.Quantile(0.5), h.Mean())
	}
	h.Reset()
	if h.Count() != 0 || h.Quantile(1) != 0 {
		t.Error("not empty after Reset")
	}
}
