package bench

import (
	"fmt"
	"math"
	"slices"
)

// Stat is one figure of several runs.
type Stat struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Runs   []float64 `json:"runs"`
}

func statOf(runs []float64) *Stat {
	if len(runs) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(runs))
	m := sorted[len(sorted)/2]
	if len(sorted)%2 == 0 {
		m = (m + sorted[len(sorted)/2-1]) / 2
	}
	return &Stat{Median: m, Min: sorted[0], Max: sorted[len(sorted)-1], Runs: runs}
}

// Spread is the quartiles of some figures.
type Spread struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Result is one row of the table.
type Result struct {
	Row    string   `json:"row"` // the name that Options.Rows chooses by
	Title  string   `json:"title"`
	Unit   string   `json:"unit"`
	Server *Stat    `json:"server,omitempty"`
	Echo   *Stat    `json:"echo,omitempty"`
	Ratio  *float64 `json:"ratio,omitempty"`  // median of the ratios of the pairs of runs
	Ratios *Spread  `json:"ratios,omitempty"` // of the pairs
	Target string   `json:"target,omitempty"`
	Met    *bool    `json:"met,omitempty"`

	key string // of the metric
}

// target is what a figure should reach.
type target struct {
	kind  byte // '>' and '<': ratio to echo, '+': at most echo and so much more, '=': absolute, at most
	limit float64
	more  float64 // '<': also met within so much more than echo, for figures near the resolution
}

func (t target) String() string {
	switch t.kind {
	case '>':
		return fmt.Sprintf("≥ %.2g × echo", t.limit)
	case '<':
		return fmt.Sprintf("≤ %.3g × echo", t.limit)
	case '+':
		return fmt.Sprintf("≤ echo + %.3g", t.limit)
	case '=':
		return fmt.Sprintf("≤ %.4g", t.limit)
	}
	return ""
}

// judge completes a result.
func (r *Result) judge(t target) {
	if r.Server != nil && r.Echo != nil {
		var pairs []float64
		for i := range min(len(r.Server.Runs), len(r.Echo.Runs)) {
			if r.Echo.Runs[i] > 0 {
				pairs = append(pairs, r.Server.Runs[i]/r.Echo.Runs[i])
			}
		}
		if s := statOf(pairs); s != nil && !math.IsInf(s.Median, 0) {
			r.Ratio = &s.Median
			sorted := slices.Sorted(slices.Values(pairs))
			r.Ratios = &Spread{Low: sorted[len(sorted)/4], High: sorted[3*len(sorted)/4]}
		}
	}
	if t.kind == 0 || r.Server == nil {
		return
	}
	r.Target = t.String()
	met := false
	switch t.kind {
	case '>':
		met = r.Ratio != nil && *r.Ratio >= t.limit
	case '<':
		met = r.Ratio != nil && *r.Ratio <= t.limit || r.Echo != nil && t.more > 0 && r.Server.Median <= r.Echo.Median+t.more
	case '+':
		met = r.Echo != nil && r.Server.Median <= r.Echo.Median+t.limit
	case '=':
		met = r.Server.Median <= t.limit
	}
	r.Met = &met
}
