package alerts

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"external-server/internal/observe/history"
)

// Severities, as the rules have them.
const (
	Page   = "page"   // takes cars or commands away
	Ticket = "ticket" // will do so if it is left alone
)

// Alert is one that is on.
type Alert struct {
	Name     string    `json:"name"` // as in deploy/prometheus/alerts.yml
	Severity string    `json:"severity"`
	Summary  string    `json:"summary"`
	Since    time.Time `json:"since"` // when its condition began to hold
	// Module is the module that it is about, and Reason what was counted.
	Module *int   `json:"module,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Cars are those that it is about, as far as that is known: the first few of all.
	Cars      []string `json:"cars,omitempty"`
	CarsTotal int      `json:"cars_total,omitempty"`
	// Replica is the server that says so, in a cluster.
	Replica string `json:"replica,omitempty"`
}

// finding is one thing for which the condition of a rule holds.
type finding struct {
	labels  []history.Label
	summary string
}

func (f *finding) label(name string) string {
	for _, l := range f.labels {
		if l.Name == name {
			return l.Value
		}
	}
	return ""
}

// rule is one condition. find looks at the readings.
type rule struct {
	name, severity string
	hold           time.Duration // for how long the condition must hold
	find           func(w *history.Window) []finding
}

// State remembers since when conditions hold. It is not for concurrent use.
type State struct {
	rules []rule
	since map[string]time.Time
}

// New returns a State in which nothing holds.
func New() *State { return &State{rules: rules(), since: make(map[string]time.Time)} }

// maxOn bounds the alerts that are on at a time.
const maxOn = 200

// Evaluate judges the last reading and returns the alerts that are on: those to page for
// first, then the oldest.
func (s *State) Evaluate(w *history.Window) []Alert {
	now := w.At()
	holds := make(map[string]time.Time)
	on := []Alert{}
	for i := range s.rules {
		r := &s.rules[i]
		for _, f := range r.find(w) {
			var key strings.Builder
			key.WriteString(r.name)
			for _, l := range f.labels {
				key.WriteString("\xff" + l.Name + "\xfe" + l.Value)
			}
			since, known := s.since[key.String()]
			if !known {
				since = now
			}
			holds[key.String()] = since
			if now.Sub(since) < r.hold || len(on) >= maxOn {
				continue
			}
			a := Alert{Name: r.name, Severity: r.severity, Summary: f.summary, Since: since, Reason: cmp.Or(f.label("reason"), f.label("note"))}
			if n, err := strconv.Atoi(f.label("module")); err == nil {
				a.Module = &n
			}
			on = append(on, a)
		}
	}
	s.since = holds
	Sort(on)
	return on
}

// Sort puts those to page for first, then the oldest.
func Sort(on []Alert) {
	slices.SortStableFunc(on, func(a, b Alert) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name)) // page, ticket
	})
}

// Names returns the names of the rules.
func Names() (names []string) {
	for _, r := range rules() {
		names = append(names, r.name)
	}
	return names
}
