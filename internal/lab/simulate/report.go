package simulate

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
)

// tally counts what happens to the cars.
type tally struct {
	planned, sessions, bytes           atomic.Uint64
	connected, everConnected           atomic.Int64
	lastFirst, lastConnect, start, end atomic.Int64 // Unix ns
	restarts, silences, flaps          atomic.Uint64
	commands                           atomic.Uint64
	allConnected                       chan struct{}

	mu                          sync.Mutex
	dropped, failed, violations map[gateway.Reason]uint64
	responses                   map[fleet.ResponseType]uint64
}

func (t *tally) init() {
	t.allConnected = make(chan struct{})
	t.dropped = make(map[gateway.Reason]uint64)
	t.failed = make(map[gateway.Reason]uint64)
	t.violations = make(map[gateway.Reason]uint64)
	t.responses = make(map[fleet.ResponseType]uint64)
}

func (t *tally) count(in map[gateway.Reason]uint64, r gateway.Reason) {
	t.mu.Lock()
	in[r]++
	t.mu.Unlock()
}

func (t *tally) command(e *gateway.Effect) {
	t.commands.Add(1)
	t.mu.Lock()
	t.responses[e.Response]++
	t.mu.Unlock()
}

// sized counts the bytes of a status.
func (t *tally) sized(n int) { t.bytes.Add(uint64(n)) }

func (t *tally) mostFailed() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if all := reasons(t.failed); len(all) > 0 {
		return all[0].Reason
	}
	return ""
}

// Reason is a reason with the rule of the protocol behind it (docs/protocol.md),
// what it means for a person, and how often it came.
type Reason struct {
	Reason  string `json:"reason"`
	Rule    string `json:"rule,omitempty"`
	Meaning string `json:"meaning,omitempty"`
	Count   uint64 `json:"count"`
}

func reasons(counts map[gateway.Reason]uint64) []Reason {
	out := []Reason{}
	for r, n := range counts {
		out = append(out, Reason{Reason: r.String(), Rule: r.Rule(), Meaning: r.Meaning(), Count: n})
	}
	slices.SortFunc(out, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// Latency is a distribution in milliseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// Of reads a histogram.
func Of(h *Histogram) Latency {
	ms := func(d time.Duration) float64 { return float64(d.Round(time.Microsecond)) / float64(time.Millisecond) }
	return Latency{ms(h.Mean()), ms(h.Quantile(0.5)), ms(h.Quantile(0.95)), ms(h.Quantile(0.99)), ms(h.Quantile(0.999)), ms(h.Max())}
}

// Report is what the cars saw.
type Report struct {
	Company        string  `json:"company"`
	Cars           int     `json:"cars"`
	Devices        int     `json:"devices_per_car"`
	Module         int32   `json:"module"`
	Payload        int     `json:"payload_bytes"` // of a status on average
	Seed           uint64  `json:"seed"`
	Closed         bool    `json:"closed_loop"`
	Rate           float64 `json:"rate_per_car,omitempty"`
	Seconds        float64 `json:"seconds"`
	ConnectSeconds float64 `json:"connect_seconds"` // first start to last car connected; 0: not all were

	EverConnected int `json:"cars_ever_connected"`
	Connected     int `json:"cars_connected_at_end"`
	// Unserved are the cars that are not connected because no server answers them: the
	// operator has removed them, or the server is away.
	Unserved int    `json:"cars_unserved_at_end"`
	Sessions uint64 `json:"sessions"`
	// Dropped are the sessions that ended, Failed the connect sequences that did.
	Dropped []Reason `json:"sessions_dropped"`
	Failed  []Reason `json:"attempts_failed"`
	// Violations are what the server did that the protocol does not allow, as far as
	// a car can tell: lost messages make an innocent server look guilty.
	Violations []Reason `json:"violations"`

	Planned    uint64            `json:"statuses_planned"`
	Answered   uint64            `json:"statuses_answered"`
	PerSecond  float64           `json:"round_trips_per_second"`
	Latency    Latency           `json:"latency_ms"`
	Commands   uint64            `json:"commands"`
	Responses  map[string]uint64 `json:"command_responses"`
	FaultyCars int               `json:"faulty_cars"`
	Injected   map[string]uint64 `json:"faults_injected,omitempty"`
}

// Report returns what the cars have seen since the last Drive began.
func (f *Fleet) Report() Report {
	t := &f.tally
	o := &f.opts
	r := Report{
		Company: o.Company, Cars: o.Cars, Devices: o.Devices, Module: o.Module, Payload: int(t.bytes.Load() / max(1, t.planned.Load())), Seed: o.Seed,
		Closed: o.Closed, Rate: o.Rate, EverConnected: int(t.everConnected.Load()), Connected: int(t.connected.Load()),
		Sessions: t.sessions.Load(), Planned: t.planned.Load(), Answered: f.latency.Count(), Latency: Of(&f.latency),
		Commands: t.commands.Load(), Responses: make(map[string]uint64),
	}
	if start := t.start.Load(); start > 0 {
		end := t.end.Load()
		if end == 0 {
			end = time.Now().UnixNano()
		}
		r.Seconds = time.Duration(end - start).Seconds()
		r.PerSecond = float64(r.Answered) / r.Seconds
	}
	if o.Faults.any() {
		for _, c := range f.cars {
			if c.faulty {
				r.FaultyCars++
			}
		}
		r.Injected = map[string]uint64{"restarts": t.restarts.Load(), "silences": t.silences.Load(), "flaps": t.flaps.Load()}
	}
	r.Unserved = f.unserved()
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Dropped, r.Failed, r.Violations = reasons(t.dropped), reasons(t.failed), reasons(t.violations)
	for k, n := range t.responses {
		r.Responses[k.String()] = n
	}
	return r
}

// unserved counts the cars that no server answers.
func (f *Fleet) unserved() (n int) {
	for _, c := range f.cars {
		if c.unserved.Load() && !c.connected.Load() {
			n++
		}
	}
	return n
}

// Lost returns how many sessions were dropped.
func (r *Report) Lost() uint64 {
	var n uint64
	for _, d := range r.Dropped {
		n += d.Count
	}
	return n
}

// Guilty returns how many violations were seen.
func (r *Report) Guilty() uint64 {
	var n uint64
	for _, v := range r.Violations {
		n += v.Count
	}
	return n
}

// Figures are what a display shows while the fleet runs.
type Figures struct {
	Cars, Connected     int
	Planned, Answered   uint64
	P50, P99            time.Duration
	Dropped, Violations uint64
	Unserved            int
}

// Figures returns the present ones.
func (f *Fleet) Figures() Figures {
	t := &f.tally
	g := Figures{
		Cars: f.opts.Cars, Connected: int(t.connected.Load()), Planned: t.planned.Load(), Answered: f.latency.Count(),
		P50: f.latency.Quantile(0.5), P99: f.latency.Quantile(0.99), Unserved: f.unserved(),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.dropped {
		g.Dropped += n
	}
	for _, n := range t.violations {
		g.Violations += n
	}
	return g
}
