package history

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"
)

var begin = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// played returns a window after readings of one counter; NaN: it is not in the reading.
func played(values ...float64) (*Window, *Series) {
	w := NewWindow()
	for i, v := range values {
		var reading []Sample
		if !math.IsNaN(v) {
			reading = []Sample{{Name: "counter", Labels: []Label{{"module", "7"}}, Value: v}}
		}
		w.Add(begin.Add(time.Duration(i)*Step), reading)
	}
	all := w.All("counter")
	if len(all) == 0 {
		return w, nil
	}
	return w, all[0]
}

func TestIncrease(t *testing.T) {
	none := math.NaN()
	for _, c := range []struct {
		what   string
		values []float64
		within time.Duration
		want   float64
	}{
		{"one reading", []float64{5}, time.Minute, 0},
		{"grows", []float64{5, 6, 9}, time.Minute, 4},
		{"only the last step", []float64{5, 6, 9}, Step, 3},
		{"what lies before does not count", []float64{0, 100, 101, 102}, 2 * Step, 2},
		{"appears", []float64{none, none, 3}, time.Minute, 3},
		{"appears and grows", []float64{none, 3, 5}, time.Minute, 5},
		{"was there before the time", []float64{none, 3, 5, 6}, Step, 1},
		{"begins anew", []float64{50, 60, 2, 3}, time.Minute, 13},
		{"is away for a while", []float64{5, none, none, 7}, time.Minute, 2},
		{"has gone", []float64{5, 6, none}, time.Minute, 1},
	} {
		w, s := played(c.values...)
		if got := w.Increase(s, c.within); got != c.want {
			t.Errorf("%s: %v, expected %v", c.what, got, c.want)
		}
	}
}

func TestWindowNow(t *testing.T) {
	w, s := played(3, 9, 4)
	if v, ok := w.Now(s); !ok || v != 4 || w.Max(s, time.Hour) != 9 || w.Max(s, 0) != 4 || !w.Has("counter") || w.Has("other") || w.Sum("counter", nil) != 4 || s.Label("module") != "7" {
		t.Errorf("now %v %v", v, ok)
	}
	w, s = played(3, math.NaN())
	if _, ok := w.Now(s); ok || w.Has("counter") || w.Sum("counter", nil) != 0 {
		t.Error("a series that has gone has a value")
	}
	if at := NewWindow().At(); !at.IsZero() {
		t.Errorf("without reading the time is %v", at)
	}
}

// The memory is that of an hour and of so many series.
func TestWindowIsBounded(t *testing.T) {
	w := NewWindow()
	for n := range 3 * ring {
		var reading []Sample
		for i := range MaxSeries / 2 {
			reading = append(reading, Sample{Name: "old", Labels: []Label{{"n", strconv.Itoa(i + n/ring*MaxSeries)}}, Value: float64(n)})
		}
		if n == ring-1 { // more than there is room for
			for i := range MaxSeries {
				reading = append(reading, Sample{Name: "flood", Labels: []Label{{"n", strconv.Itoa(i)}}})
			}
		}
		w.Add(begin.Add(time.Duration(n)*Step), reading)
		if len(w.series) > MaxSeries {
			t.Fatalf("%d series after %d readings", len(w.series), n)
		}
	}
	if n := len(w.All("old")); n != MaxSeries/2 || len(w.All("flood")) != 0 {
		t.Errorf("%d series of one name and %d of the other are kept", n, len(w.All("flood")))
	}
	s := w.All("old")[0]
	if got, want := w.Increase(s, 10*time.Hour), float64(ring-1); len(s.values) != ring || got != want+float64(2*ring) && got != want {
		t.Errorf("the increase of an hour is %v", got)
	}
}

func TestQuantile(t *testing.T) {
	counts := func(n ...float64) *Window {
		w := NewWindow()
		for i := range 2 {
			var reading []Sample
			for b, le := range []string{"0.1", "1", "+Inf"} {
				reading = append(reading, Sample{Name: "h_bucket", Labels: []Label{{"le", le}}, Value: n[b] * float64(i)})
			}
			w.Add(begin.Add(time.Duration(i)*Step), reading)
		}
		return w
	}
	for _, c := range []struct {
		w       *Window
		q, want float64
	}{
		{counts(100, 100, 100), 0.5, 0.05},
		{counts(50, 100, 100), 0.99, 0.982},
		{counts(0, 100, 100), 0.5, 0.55},
		{counts(0, 0, 100), 0.5, 1}, // beyond the largest bound
	} {
		if got, n, ok := c.w.Quantile("h", c.q, time.Minute); !ok || math.Abs(got-c.want) > 1e-9 || n != 100 {
			t.Errorf("%v of %v, expected %v", got, n, c.want)
		}
	}
	if _, _, ok := counts(0, 0, 0).Quantile("h", 0.5, time.Minute); ok {
		t.Error("nothing has a quantile")
	}
	if _, _, ok := NewWindow().Quantile("h", 0.5, time.Minute); ok {
		t.Error("no histogram has a quantile")
	}
}

// Before the first step there is an empty list, which JSON writes as one.
func TestNoPoints(t *testing.T) {
	for what, got := range map[string][]Point{"all": new(Points).All(), "merged": Merge(nil, nil)} {
		if text, err := json.Marshal(got); err != nil || string(text) != "[]" {
			t.Errorf("%s: %s %v", what, text, err)
		}
	}
}

func TestPointsFoldReasons(t *testing.T) {
	w := NewWindow()
	for n := range 2 {
		var reading []Sample
		for i := range 2 * maxReasons {
			for _, established := range []string{"false", "true"} {
				reading = append(reading, Sample{Name: ends, Labels: []Label{{"established", established}, {"reason", fmt.Sprint("reason ", i)}}, Value: float64(n * (i + 1))})
			}
		}
		w.Add(begin.Add(time.Duration(n)*Step), reading)
	}
	var p Points
	p.Add(w, Step)
	got := p.All()[0].Ends
	if len(got) != maxReasons+1 || got["reason 23"] != 48 || got[otherReasons] != 2*12*13/2 {
		t.Errorf("ends %v", got)
	}
}

// Points of several servers are put together step by step, also when their clocks differ
// by less than a step and when one began later.
func TestMerge(t *testing.T) {
	f := func(v float64) *float64 { return &v }
	a := []Point{
		{At: begin, Statuses: 1, Answers: 10, P50: f(.1), P99: f(.2), Cars: map[string]float64{"running": 2}, Replicas: 1},
		{At: begin.Add(Step), Statuses: 2, Ends: map[string]float64{"x": 1}, Queues: map[string]float64{"7": 3}, Cars: map[string]float64{"running": 2}, Replicas: 1},
	}
	b := []Point{{At: begin.Add(Step + 3*time.Second), Statuses: 5, Answers: 4, P50: f(.3), P99: f(.4), Ends: map[string]float64{"x": 2, "y": 1}, Queues: map[string]float64{"7": 1, "8": 9},
		Cars: map[string]float64{"running": 1, "waiting": 1}, Replicas: 1}}
	got := Merge(a, b)
	if len(got) != 2 || got[0].Replicas != 1 || got[0].Statuses != 1 || *got[0].P99 != .2 {
		t.Fatalf("points %+v", got)
	}
	p := got[1]
	if p.Replicas != 2 || p.Statuses != 7 || p.Answers != 4 || *p.P50 != .3 || p.Ends["x"] != 3 || p.Ends["y"] != 1 || p.Queues["7"] != 3 || p.Queues["8"] != 9 || p.Cars["running"] != 3 || p.Cars["waiting"] != 1 || !p.At.Equal(begin.Add(Step)) {
		t.Errorf("point %+v", p)
	}
	if a[1].Ends["x"] != 1 || a[1].Cars["running"] != 2 {
		t.Error("the points that were merged have changed")
	}
	var long []Point
	for i := range 2 * Kept {
		long = append(long, Point{At: begin.Add(time.Duration(i) * Step)})
	}
	if got := Merge(long); len(got) != Kept || !got[Kept-1].At.Equal(long[2*Kept-1].At) {
		t.Errorf("%d points of a server that sends too many", len(got))
	}
}
