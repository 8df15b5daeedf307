package history

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Names of the metrics that points are made of.
const (
	statuses = "external_server_statuses_accepted_total"
	answers  = "external_server_status_answer_seconds"
	ends     = "external_server_sessions_ended_total"
	cars     = "external_server_cars"
	queue    = "external_server_module_queue_oldest_seconds"
	posts    = "external_server_builtin_queue_oldest_seconds"
)

// Names returns the metrics that points are made of, a histogram by its own name.
func Names() []string { return []string{statuses, answers, ends, cars, queue, posts} }

// maxReasons bounds the reasons of ends that a point tells apart.
const maxReasons = 12

// otherReasons stands for those that are left out.
const otherReasons = "other reasons"

// Point is what happened during one step, and how it was at its end.
type Point struct {
	At       time.Time `json:"at"`                     // its end
	Statuses float64   `json:"statuses_per_second"`    // accepted for a module
	Answers  float64   `json:"answers"`                // to statuses
	P50      *float64  `json:"answer_p50_s,omitempty"` // seconds; none: no answers
	P99      *float64  `json:"answer_p99_s,omitempty"`
	// Ends counts those of sessions and connect sequences, by reason.
	Ends map[string]float64 `json:"ends,omitempty"`
	// Cars counts them by state.
	Cars map[string]float64 `json:"cars"`
	// Queues is how long the oldest call or status waits, by module, in seconds.
	Queues map[string]float64 `json:"queues_s,omitempty"`
	// Replicas is how many servers the point is of.
	Replicas int `json:"replicas"`
}

// point makes the point of the last reading; since is how long ago the one before was.
func (w *Window) point(since time.Duration) Point {
	p := Point{At: w.At(), Cars: make(map[string]float64), Replicas: 1}
	p.Statuses = w.IncreaseAll(statuses, since, nil) / since.Seconds()
	if v, n, ok := w.Quantile(answers, 0.5, since); ok {
		p.Answers, p.P50 = n, &v
	}
	if v, _, ok := w.Quantile(answers, 0.99, since); ok {
		p.P99 = &v
	}
	for _, s := range w.names[ends] {
		if n := w.Increase(s, since); n > 0 {
			p.end(s.Label("reason"), n)
		}
	}
	p.fold()
	for _, s := range w.names[cars] {
		if v, ok := w.Now(s); ok {
			p.Cars[s.Label("state")] = v
		}
	}
	for _, name := range []string{queue, posts} {
		for _, s := range w.names[name] {
			if v, ok := w.Now(s); ok {
				p.waits(s.Label("module"), v)
			}
		}
	}
	return p
}

func (p *Point) end(reason string, n float64) {
	if p.Ends == nil {
		p.Ends = make(map[string]float64)
	}
	p.Ends[reason] += n
}

func (p *Point) waits(module string, seconds float64) {
	if p.Queues == nil {
		p.Queues = make(map[string]float64)
	}
	p.Queues[module] = max(p.Queues[module], seconds)
}

// fold keeps the most frequent reasons.
func (p *Point) fold() {
	if len(p.Ends) <= maxReasons {
		return
	}
	reasons := slices.SortedFunc(maps.Keys(p.Ends), func(a, b string) int { return cmp.Or(cmp.Compare(p.Ends[b], p.Ends[a]), cmp.Compare(a, b)) })
	for _, r := range reasons[maxReasons:] {
		n := p.Ends[r]
		delete(p.Ends, r)
		p.Ends[otherReasons] += n
	}
}

// Points keeps the newest Kept points. It is not for concurrent use.
type Points struct{ kept []Point }

// Add makes the point of the last reading of a window; since is how long ago the reading
// before was.
func (p *Points) Add(w *Window, since time.Duration) {
	if len(p.kept) >= Kept {
		p.kept = append(p.kept[:0], p.kept[len(p.kept)-Kept+1:]...)
	}
	p.kept = append(p.kept, w.point(since))
}

// All returns them, the oldest first; none is an empty list. They are not changed any more.
func (p *Points) All() []Point { return append([]Point{}, p.kept...) }

// Merge puts the points of several servers together, step by step: statuses, answers, ends
// and cars are sums, what waits longest and the slowest answers are those of the server
// that has it worst.
func Merge(of ...[]Point) []Point {
	steps := make(map[int64]*Point)
	for _, points := range of {
		for _, p := range points {
			at := p.At.Truncate(Step)
			sum := steps[at.Unix()]
			if sum == nil {
				sum = &Point{At: at, Cars: make(map[string]float64)}
				steps[at.Unix()] = sum
			}
			sum.add(&p)
		}
	}
	out := make([]Point, 0, min(len(steps), Kept))
	for _, p := range steps {
		p.fold()
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b Point) int { return a.At.Compare(b.At) })
	return out[max(0, len(out)-Kept):]
}

func (p *Point) add(o *Point) {
	p.Replicas += o.Replicas
	p.Statuses += o.Statuses
	p.Answers += o.Answers
	p.P50, p.P99 = worse(p.P50, o.P50), worse(p.P99, o.P99)
	for reason, n := range o.Ends {
		p.end(reason, n)
	}
	for state, n := range o.Cars {
		p.Cars[state] += n
	}
	for module, s := range o.Queues {
		p.waits(module, s)
	}
}

func worse(a, b *float64) *float64 {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}
