package observe

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"external-server/internal/observe/alerts"
	"external-server/internal/observe/history"
)

// recorder reads the metrics every history.Step. What happens to cars costs nothing more
// by that: the counters are there anyway.
type recorder struct {
	hub      *Hub
	registry *prometheus.Registry // the metrics that are read
	wanted   map[string]bool      // their names

	mu     sync.Mutex
	window *history.Window
	points history.Points
	state  *alerts.State
	on     []alerts.Alert // replaced, never changed
	at     time.Time      // of the last reading
}

// withoutCars is a collector that leaves out the series of single cars.
type withoutCars struct{ *collector }

func (c withoutCars) Collect(to chan<- prometheus.Metric) { c.collect(to, false) }

func newRecorder(h *Hub, k *collector, m *metrics) *recorder {
	r := &recorder{hub: h, registry: prometheus.NewRegistry(), wanted: make(map[string]bool), window: history.NewWindow(), state: alerts.New(), on: []alerts.Alert{}}
	r.registry.MustRegister(withoutCars{k}, m.started, m.established, m.ended, m.answer, m.unanswered, m.drops, m.notes, m.forwarded, m.calls, m.reloads)
	for _, name := range slices.Concat(alerts.Metrics(), history.Names()) {
		r.wanted[name] = true
	}
	return r
}

// record reads until ctx ends: at once, and then whenever the clock reaches a multiple of
// the step, so that the points of several servers fall together.
func (r *recorder) record(ctx context.Context) {
	last := time.Now()
	r.read(last, 0)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(last.Truncate(history.Step).Add(history.Step)))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		now := time.Now()
		r.read(now, now.Sub(last))
		last = now
	}
}

// read takes one reading; since is how long ago the one before was, 0 for the first.
func (r *recorder) read(now time.Time, since time.Duration) {
	samples := r.samples()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = now
	if since > 0 {
		r.at = now.Truncate(history.Step)
	}
	r.window.Add(r.at, samples)
	if since >= time.Second { // a shorter one says nothing
		r.points.Add(r.window, since)
	}
	on := r.state.Evaluate(r.window)
	for i := range on {
		r.hub.carsOf(&on[i], now)
	}
	r.on = on
}

// samples are the values of the metrics that are wanted.
func (r *recorder) samples() (out []history.Sample) {
	families, err := r.registry.Gather()
	if err != nil { // what could be read is there
		r.hub.logger.Debug("metrics cannot be read for the history", "error", err)
	}
	for _, f := range families {
		if !r.wanted[f.GetName()] {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []history.Label
			for _, l := range m.GetLabel() {
				labels = append(labels, history.Label{Name: l.GetName(), Value: l.GetValue()})
			}
			if h := m.GetHistogram(); h != nil {
				add := func(le string, n uint64) {
					out = append(out, history.Sample{Name: f.GetName() + "_bucket", Labels: append(slices.Clone(labels), history.Label{Name: "le", Value: le}), Value: float64(n)})
				}
				for _, b := range h.GetBucket() {
					add(strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64), b.GetCumulativeCount())
				}
				add("+Inf", h.GetSampleCount())
				continue
			}
			out = append(out, history.Sample{Name: f.GetName(), Labels: labels, Value: m.GetCounter().GetValue() + m.GetGauge().GetValue()})
		}
	}
	return out
}

// History returns the points of the last hour, the oldest first.
func (h *Hub) History() []history.Point {
	h.recorder.mu.Lock()
	defer h.recorder.mu.Unlock()
	return h.recorder.points.All()
}

// Alerts returns the alerts that are on, and when that was judged; zero: not yet.
func (h *Hub) Alerts() (on []alerts.Alert, at time.Time) {
	h.recorder.mu.Lock()
	defer h.recorder.mu.Unlock()
	return slices.Clone(h.recorder.on), h.recorder.at
}

const (
	alertCars = 5                // names in one alert
	alertPast = 10 * time.Minute // of events that are looked at
)

// carsOf names the cars that an alert is about, from the events of the last minutes.
func (h *Hub) carsOf(a *alerts.Alert, now time.Time) {
	about := alertEvents(a)
	if about == nil {
		return
	}
	seen := make(map[string]bool)
	events, _, _ := h.Events.Read(h.Events.Oldest(), h.Events.ring.limit, nil)
	for _, ev := range slices.Backward(events) {
		if now.Sub(ev.At) > alertPast {
			break
		}
		if ev.Car == "" || seen[ev.Car] || !about(&ev) {
			continue
		}
		seen[ev.Car] = true
		if len(a.Cars) < alertCars {
			a.Cars = append(a.Cars, ev.Car)
		}
	}
	a.CarsTotal = len(seen)
}

// alertEvents tells which events belong to an alert; nil: none do.
func alertEvents(a *alerts.Alert) func(*Event) bool {
	switch a.Name {
	case "ExternalServerCarsContended", "ExternalServerMessagesDropped":
		return func(ev *Event) bool { return ev.Kind == KindFault && ev.Reason == a.Reason }
	case "ExternalServerSessionsFail", "ExternalServerConnectSequencesFail":
		return func(ev *Event) bool {
			return ev.Kind == KindDisconnect && !slices.Contains(alerts.Ordinary(), ev.Reason)
		}
	case "ExternalServerCommandsUnanswered":
		return func(ev *Event) bool { return ev.Kind == KindDisconnect && ev.Count > 0 }
	case "ExternalServerStatusesLost", "ExternalServerStatusesAtRisk", "ExternalServerModuleErrors":
		return func(ev *Event) bool { return ev.Kind == KindFault && a.Module != nil && int(ev.Module) == *a.Module }
	}
	return nil
}
