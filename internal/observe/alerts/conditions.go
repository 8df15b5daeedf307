package alerts

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"external-server/internal/observe/history"
)

// prefix is what the names of all metrics begin with.
const prefix = "external_server_"

// text makes the words of a finding from its value and its series.
type text func(v float64, s *history.Series) string

// words are the same whatever the value is.
func words(t string) text { return func(float64, *history.Series) string { return t } }

// gauge finds the series of a metric whose value is wanted.
func gauge(name string, want func(float64) bool, say text) func(*history.Window) []finding {
	return func(w *history.Window) (found []finding) {
		for _, s := range w.All(prefix + name) {
			if v, ok := w.Now(s); ok && want(v) {
				found = append(found, finding{s.Labels, say(v, s)})
			}
		}
		return found
	}
}

func over(limit float64) func(float64) bool { return func(v float64) bool { return v > limit } }

func is(wanted float64) func(float64) bool { return func(v float64) bool { return v == wanted } }

// grown finds the counters that have grown by more than a number within the time. by are
// the labels that tell findings apart, nil: all; want: the series that count.
func grown(name string, within time.Duration, by []string, than float64, want func(*history.Series) bool, say text) func(*history.Window) []finding {
	return func(w *history.Window) (found []finding) {
		sums, first := make(map[string]float64), make(map[string]*history.Series)
		var order []string
		for _, s := range w.All(prefix + name) {
			if want != nil && !want(s) {
				continue
			}
			key := ""
			for _, l := range labels(s, by) {
				key += l.Name + "\xfe" + l.Value + "\xff"
			}
			if first[key] == nil {
				first[key] = s
				order = append(order, key)
			}
			sums[key] += w.Increase(s, within)
		}
		slices.Sort(order)
		for _, key := range order {
			if sums[key] > than {
				found = append(found, finding{labels(first[key], by), say(sums[key], first[key])})
			}
		}
		return found
	}
}

// labels returns those of a series that are named, or all.
func labels(s *history.Series, names []string) []history.Label {
	if names == nil {
		return s.Labels
	}
	out := []history.Label{} // not nil: none
	for _, l := range s.Labels {
		if slices.Contains(names, l.Name) {
			out = append(out, l)
		}
	}
	return out
}

// number writes a value for people.
func number(v float64) string {
	if v >= 10 || v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func plural(v float64, one string) string {
	if number(v) == "1" {
		return "1 " + one
	}
	return number(v) + " " + one + "s"
}

// module names the module of a series, with its process when that has a name.
func module(s *history.Series) string {
	if name := s.Label("name"); name != "" {
		return s.Label("module") + " (" + name + ")"
	}
	return s.Label("module")
}

func labelled(name, value string) func(*history.Series) bool {
	return func(s *history.Series) bool { return s.Label(name) == value }
}

// one makes a finding without labels when there is something to say.
func one(say string) []finding {
	if say == "" {
		return nil
	}
	return []finding{{summary: say}}
}

const (
	sessionsEnded = prefix + "sessions_ended_total"
	moduleCalls   = prefix + "module_calls_total"
	carsMetric    = prefix + "cars"
	etcdUp        = prefix + "cluster_etcd_up"
)

// Ordinary are the reasons for which sessions end without a fault.
func Ordinary() []string {
	return []string{"server stopped", "car changed or removed by a reload", "gateway started a new session", "disconnected by an operator", "no connected device left"}
}

func linkDown(w *history.Window) []finding {
	up, known := w.Value(prefix + "link_up")
	refused, _ := w.Value(prefix + "link_subscriptions_refused")
	if !known || up != 0 || refused > 0 {
		return nil
	}
	return one("No connection to the MQTT broker: no car can be served.")
}

func carsLost(w *history.Window) []finding {
	if w.Has(etcdUp) { // the cars of a replica move
		return nil
	}
	for _, s := range w.All(carsMetric) {
		if s.Label("state") != "running" {
			continue
		}
		now, ok := w.Now(s)
		if most := w.Max(s, time.Hour); ok && now < 0.5*most && most >= 4 {
			return one(fmt.Sprintf("Only %s running, fewer than half of the last hour's most, which was %s.", are(now), number(most)))
		}
	}
	return nil
}

func are(cars float64) string {
	if cars == 1 {
		return "1 car is"
	}
	return number(cars) + " cars are"
}

func sessionsFail(w *history.Window) []finding {
	fault := func(s *history.Series) bool { return !slices.Contains(Ordinary(), s.Label("reason")) }
	ended := w.IncreaseAll(sessionsEnded, 10*time.Minute, fault)
	if ended <= 0.1*max(w.Sum(carsMetric, nil), 10) {
		return nil
	}
	return one(fmt.Sprintf("Sessions keep ending: %s in ten minutes, which is more than one in ten cars.", number(ended)))
}

func connectSequencesFail(w *history.Window) []finding {
	const within = 10 * time.Minute
	failed := w.IncreaseAll(sessionsEnded, within, labelled("established", "false"))
	established := w.IncreaseAll(prefix+"sessions_established_total", within, nil)
	if failed <= established || w.IncreaseAll(prefix+"sessions_started_total", within, nil) <= 0 {
		return nil
	}
	return one(fmt.Sprintf("More connect sequences fail than succeed: %s against %s in ten minutes.", number(failed), number(established)))
}

func contended(s *history.Series) bool {
	for _, begin := range []string{"gateway begins session after session", "two gateways use the name", "another server serves this car", "gateway has kept an unknown session"} {
		if strings.HasPrefix(s.Label("note"), begin) {
			return true
		}
	}
	return false
}

// statusesLost joins the two counters of one module.
func statusesLost(w *history.Window) (found []finding) {
	const within = 10 * time.Minute
	sums := make(map[string]float64)
	for _, s := range w.All(prefix + "module_statuses_lost_total") {
		sums[s.Label("module")] += w.Increase(s, within)
	}
	for _, s := range w.All(moduleCalls) {
		if s.Label("call") == "forward_status" && s.Label("result") == "lost" {
			sums[s.Label("module")] = max(sums[s.Label("module")], w.Increase(s, within))
		}
	}
	return perModule(sums, func(m string, n float64) string {
		if n <= 0 {
			return ""
		}
		if number(n) == "1" {
			return "1 answered status of module " + m + " was lost in ten minutes."
		}
		return fmt.Sprintf("%s answered statuses of module %s were lost in ten minutes.", number(n), m)
	})
}

func moduleErrors(w *history.Window) []finding {
	const within = 5 * time.Minute
	failed, all := make(map[string]float64), make(map[string]float64)
	for _, s := range w.All(moduleCalls) {
		n := w.Increase(s, within)
		all[s.Label("module")] += n
		if s.Label("result") == "error" {
			failed[s.Label("module")] += n
		}
	}
	return perModule(failed, func(m string, n float64) string {
		if n <= 0.05*all[m] {
			return ""
		}
		return fmt.Sprintf("%s of %s calls of module %s have failed in five minutes.", number(n), number(all[m]), m)
	})
}

// perModule makes a finding of each module about which there is something to say.
func perModule(values map[string]float64, say func(module string, v float64) string) (found []finding) {
	for m, v := range values {
		if summary := say(m, v); summary != "" {
			found = append(found, finding{[]history.Label{{Name: "module", Value: m}}, summary})
		}
	}
	slices.SortFunc(found, func(a, b finding) int { return strings.Compare(a.label("module"), b.label("module")) })
	return found
}

func answersSlow(w *history.Window) []finding {
	p99, _, ok := w.Quantile(prefix+"status_answer_seconds", 0.99, 5*time.Minute)
	if !ok || p99 <= 1 {
		return nil
	}
	return one(fmt.Sprintf("One in a hundred statuses waits %.1f s or more for its answer; gateways give up after 30 s.", p99))
}

func dropped(s *history.Series) bool {
	r := s.Label("reason")
	return strings.HasPrefix(r, "message") || r == "too many messages per second" || r == "answered status could not be queued"
}

// ofProcessBefore finds what a server says of the process before it, in the first ten
// minutes of its life.
func ofProcessBefore(name, one, did string) func(*history.Window) []finding {
	find := gauge(name, over(0), func(v float64, s *history.Series) string {
		return fmt.Sprintf("%s of the process before %s: %s.", plural(v, one), did, s.Label("reason"))
	})
	return func(w *history.Window) []finding {
		if up, ok := w.Value(prefix + "uptime_seconds"); !ok || up >= 600 {
			return nil
		}
		return find(w)
	}
}

func replicaAlone(w *history.Window) []finding {
	for _, s := range w.All(prefix + "cluster_members") {
		if v, ok := w.Now(s); ok && s.Label("state") == "ready" && v < 2 {
			return one("No second replica is ready: the cars of this one would be taken over by none.")
		}
	}
	return nil
}
