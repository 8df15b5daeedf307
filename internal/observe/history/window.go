package history

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Sample is the value of one metric at the time of a reading. A histogram is its buckets,
// named NAME_bucket with the label le, as Prometheus has it.
type Sample struct {
	Name   string
	Labels []Label // sorted by name
	Value  float64
}

// Label is one label of a sample.
type Label struct{ Name, Value string }

// Series is what one metric with its labels has said in the readings that are kept.
type Series struct {
	Name   string
	Labels []Label
	values []float64 // a ring, as Window.times; NaN: it was not there
	seen   int       // the number of the last reading that it was in
}

// Label returns the value of a label, "" without it.
func (s *Series) Label(name string) string {
	for _, l := range s.Labels {
		if l.Name == name {
			return l.Value
		}
	}
	return ""
}

// Window is the readings of the last hour. It is not for concurrent use.
type Window struct {
	times  []time.Time // a ring of Kept+1 readings
	count  int         // readings so far
	series map[string]*Series
	names  map[string][]*Series
	last   map[string]bool // names in the last reading
}

const ring = Kept + 1 // an hour lies between the first and the last

// NewWindow returns a window without readings.
func NewWindow() *Window {
	return &Window{times: make([]time.Time, ring), series: make(map[string]*Series), names: make(map[string][]*Series)}
}

// Add takes a reading.
func (w *Window) Add(at time.Time, samples []Sample) {
	slot := w.count % ring
	w.times[slot] = at
	w.count++
	for _, s := range w.series {
		s.values[slot] = math.NaN()
	}
	w.last = make(map[string]bool)
	var key strings.Builder
	for i := range samples {
		sample := &samples[i]
		key.Reset()
		key.WriteString(sample.Name)
		for _, l := range sample.Labels {
			key.WriteString("\xff" + l.Name + "\xfe" + l.Value)
		}
		s := w.series[key.String()]
		if s == nil {
			if len(w.series) >= MaxSeries {
				continue
			}
			s = &Series{Name: sample.Name, Labels: slices.Clone(sample.Labels), values: slices.Repeat([]float64{math.NaN()}, ring)}
			w.series[key.String()] = s
			w.names[s.Name] = append(w.names[s.Name], s)
		}
		s.values[slot], s.seen = sample.Value, w.count
		w.last[s.Name] = true
	}
	for k, s := range w.series { // of a module that was removed, an hour ago
		if w.count-s.seen >= ring {
			delete(w.series, k)
			w.names[s.Name] = slices.DeleteFunc(w.names[s.Name], func(o *Series) bool { return o == s })
		}
	}
}

// At is the time of the last reading.
func (w *Window) At() time.Time {
	if w.count == 0 {
		return time.Time{}
	}
	return w.times[(w.count-1)%ring]
}

// Has tells whether the last reading had the metric.
func (w *Window) Has(name string) bool { return w.last[name] }

// All returns the series of a metric that are in the last reading or were within the hour.
func (w *Window) All(name string) []*Series { return w.names[name] }

// Now is the value of a series in the last reading; false: it is not in it.
func (w *Window) Now(s *Series) (float64, bool) {
	if s.seen != w.count || w.count == 0 {
		return 0, false
	}
	return s.values[(w.count-1)%ring], true
}

// Value is Now of the only series of a metric.
func (w *Window) Value(name string) (float64, bool) {
	for _, s := range w.names[name] {
		if v, ok := w.Now(s); ok {
			return v, true
		}
	}
	return 0, false
}

// Sum adds the values of a metric in the last reading.
func (w *Window) Sum(name string, want func(*Series) bool) (sum float64) {
	for _, s := range w.names[name] {
		if v, ok := w.Now(s); ok && (want == nil || want(s)) {
			sum += v
		}
	}
	return sum
}

// back calls visit with the slots of the readings, the newest first, until it returns
// false.
func (w *Window) back(visit func(slot int) bool) {
	for n := w.count - 1; n >= max(0, w.count-ring); n-- {
		if !visit(n % ring) {
			return
		}
	}
}

// Max is the largest value of a series within the time.
func (w *Window) Max(s *Series, within time.Duration) float64 {
	most := math.Inf(-1)
	from := w.At().Add(-within)
	w.back(func(slot int) bool {
		if w.times[slot].Before(from) {
			return false
		}
		if v := s.values[slot]; v > most {
			most = v
		}
		return true
	})
	return most
}

// Increase is by how much a counter has grown within the time. A counter that was not
// there before has begun at zero, and so has one that is less than before.
func (w *Window) Increase(s *Series, within time.Duration) (sum float64) {
	from := w.At().Add(-within)
	later := math.NaN() // the value of the reading after the one that is looked at
	began := false      // the oldest reading lies within the time
	w.back(func(slot int) bool {
		v := s.values[slot]
		switch {
		case math.IsNaN(v):
		case math.IsNaN(later):
			later = v
		default:
			if later < v {
				sum += later
			} else {
				sum += later - v
			}
			later = v
		}
		began = math.IsNaN(v) && !math.IsNaN(later)
		return w.times[slot].After(from)
	})
	if began {
		sum += later
	}
	return sum
}

// IncreaseAll adds the increases of the series of a metric.
func (w *Window) IncreaseAll(name string, within time.Duration, want func(*Series) bool) (sum float64) {
	for _, s := range w.names[name] {
		if want == nil || want(s) {
			sum += w.Increase(s, within)
		}
	}
	return sum
}
