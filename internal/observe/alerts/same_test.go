package alerts

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"external-server/internal/observe/history"
	"external-server/internal/support/testneed"
)

const rulesFile = "../../../deploy/prometheus/alerts.yml"

// scenario is what the counters of a server say, every ten seconds, and which alerts are
// on at which minute.
type scenario struct {
	name   string
	series [][2]string // metric with labels; values as promtool reads them: v, a+bxN, _xN
	alert  string      // that is looked at
	on     map[int]int // minute: how many of that name are on
}

// always is what every server says.
func always() [][2]string {
	return [][2]string{
		{`link_up`, `1x600`}, {`link_subscriptions_refused`, `0x600`}, {`uptime_seconds`, `0+10x600`},
		{`cars{state="running"}`, `20x600`}, {`cars{state="waiting"}`, `0x600`}, {`cars{state="connecting"}`, `0x600`},
	}
}

func scenarios() []scenario {
	gauge := func(alert, metric, bad, good string, at int) []scenario {
		return []scenario{
			{alert + " holds", [][2]string{{metric, bad + "x600"}}, alert, map[int]int{at: 1}},
			{alert + " holds not", [][2]string{{metric, good + "x600"}}, alert, map[int]int{at: 0}},
			{alert + " ends", [][2]string{{metric, bad + "x60 " + good + "x500"}}, alert, map[int]int{9: 1, 11: 0}},
		}
	}
	counter := func(alert, metric string, window int, more string) []scenario {
		return []scenario{
			{alert + " counts", [][2]string{{metric, "0x60 " + more + "x500"}}, alert, map[int]int{9: 0, 12: 1, 11 + window: 0}},
			{alert + " does not count", [][2]string{{metric, "7x600"}}, alert, map[int]int{2: 0, 12: 0, 40: 0}},
		}
	}
	out := slices.Concat(
		gauge("ExternalServerSubscriptionRefused", "link_subscriptions_refused", "3", "0", 2),
		gauge("ExternalServerModuleQueueGrows", `module_queue_oldest_seconds{module="7"}`, "11", "9", 3),
		gauge("ExternalServerModuleProcessDown", `module_process_up{module="7",name="lib.so"}`, "0", "1", 3),
		gauge("ExternalServerModuleOutOfService", `module_process_out_of_service{module="7",name="lib.so"}`, "1", "0", 3),
		gauge("ExternalServerMessageStoreFails", `http_api_store_up`, "0", "1", 3),
		gauge("ExternalServerHttpApiUnreachable", `builtin_api_up{module="1"}`, "0", "1", 4),
		gauge("ExternalServerStoppedServing", `link_stopped`, "1", "0", 1),
		gauge("ExternalServerSessionsNotKept", `link_sessions_declined`, "1", "0", 7),
		gauge("ExternalServerEtcdAway", `cluster_etcd_up`, "0", "1", 3),
		gauge("ExternalServerShardWithoutOwner", `cluster_shards_without_owner_seconds`, "25", "15", 1),
		gauge("ExternalServerReplicaUnhealthy", `cluster_members{state="unhealthy"}`, "1", "0", 3),
		counter("ExternalServerCarsContended", `notes_total{note="two gateways use the name of this car"}`, 10, "2"),
		counter("ExternalServerStatusesLost", `module_statuses_lost_total{module="7"}`, 10, "4"),
		counter("ExternalServerStatusesLost", `module_calls_total{module="7",call="forward_status",result="lost"}`, 10, "4"),
		counter("ExternalServerStatusesAtRisk", `statuses_at_risk_total{module="7"}`, 10, "4"),
		counter("ExternalServerModuleProcessRestarts", `module_process_restarts_total{module="7",name="lib.so"}`, 15, "6"),
		counter("ExternalServerCommandsUnanswered", `commands_unanswered_total{reason="session timeout"}`, 10, "1"),
		counter("ExternalServerMessagesDropped", `drops_total{reason="message too large"}`, 10, "1"),
		counter("ExternalServerReloadFailed", `config_reloads_total{result="failed"}`, 15, "1"),
		counter("ExternalServerLogLost", `log_lines_lost_total{destination="file"}`, 15, "100"),
		counter("ExternalServerConnectionTakenOver", `link_taken_over_total`, 15, "1"),
		counter("ExternalServerJournalFails", `link_unrecorded_total`, 15, "5"),
	)
	return append(out,
		scenario{"broker lost", [][2]string{{`link_up`, `0x600`}}, "ExternalServerBrokerConnectionLost", map[int]int{2: 1}},
		scenario{"broker lost for a moment", [][2]string{{`link_up`, `1x60 0 0 1x500`}}, "ExternalServerBrokerConnectionLost", map[int]int{9: 0, 10: 0, 12: 0}},
		scenario{"broker refuses", [][2]string{{`link_up`, `0x600`}, {`link_subscriptions_refused`, `2x600`}}, "ExternalServerBrokerConnectionLost", map[int]int{5: 0}},
		scenario{"half of the cars", [][2]string{{`cars{state="running"}`, `20x60 9x500`}}, "ExternalServerCarsLost", map[int]int{9: 0, 11: 0, 14: 1, 60: 1, 74: 0}},
		scenario{"a third of the cars", [][2]string{{`cars{state="running"}`, `20x60 13x500`}}, "ExternalServerCarsLost", map[int]int{14: 0}},
		scenario{"three cars", [][2]string{{`cars{state="running"}`, `3x60 0x500`}}, "ExternalServerCarsLost", map[int]int{14: 0}},
		scenario{"cars of a replica", [][2]string{{`cars{state="running"}`, `20x60 0x500`}, {`cluster_etcd_up`, `1x600`}}, "ExternalServerCarsLost", map[int]int{14: 0}},
		scenario{"sessions end", [][2]string{{`sessions_ended_total{reason="session timeout",established="true"}`, `0+1x600`}}, "ExternalServerSessionsFail", map[int]int{5: 0, 25: 1}},
		scenario{"sessions end in order", [][2]string{{`sessions_ended_total{reason="disconnected by an operator",established="true"}`, `0+1x600`}}, "ExternalServerSessionsFail", map[int]int{25: 0}},
		scenario{"few sessions end", [][2]string{{`sessions_ended_total{reason="session timeout",established="true"}`, `0x59 1x500`}}, "ExternalServerSessionsFail", map[int]int{25: 0}},
		scenario{"connects fail", [][2]string{{`sessions_ended_total{reason="session timeout",established="false"}`, `0+2x600`}, {`sessions_established_total`, `0+1x600`}, {`sessions_started_total`, `0+3x600`}},
			"ExternalServerConnectSequencesFail", map[int]int{5: 0, 25: 1}},
		scenario{"connects succeed", [][2]string{{`sessions_ended_total{reason="session timeout",established="false"}`, `0+1x600`}, {`sessions_established_total`, `0+2x600`}, {`sessions_started_total`, `0+3x600`}},
			"ExternalServerConnectSequencesFail", map[int]int{25: 0}},
		scenario{"an ordinary note", [][2]string{{`notes_total{note="status missing, waiting for it"}`, `0+1x600`}}, "ExternalServerCarsContended", map[int]int{12: 0}},
		scenario{"two notes", [][2]string{{`notes_total{note="two gateways use the name of this car"}`, `0+1x600`}, {`notes_total{note="another server serves this car"}`, `0+1x600`}},
			"ExternalServerCarsContended", map[int]int{12: 2}},
		scenario{"modules apart", [][2]string{{`module_queue_oldest_seconds{module="7"}`, `11x600`}, {`module_queue_oldest_seconds{module="8"}`, `12x600`}, {`module_queue_oldest_seconds{module="9"}`, `1x600`}},
			"ExternalServerModuleQueueGrows", map[int]int{3: 2}},
		scenario{"module fails", [][2]string{{`module_calls_total{module="7",call="forward_status",result="error"}`, `0+1x600`}, {`module_calls_total{module="7",call="forward_status",result="ok"}`, `0+9x600`}},
			"ExternalServerModuleErrors", map[int]int{5: 0, 16: 1}},
		scenario{"module fails seldom", [][2]string{{`module_calls_total{module="7",call="forward_status",result="error"}`, `0+1x600`}, {`module_calls_total{module="7",call="forward_status",result="ok"}`, `0+99x600`}},
			"ExternalServerModuleErrors", map[int]int{16: 0}},
		scenario{"a restart or three", [][2]string{{`module_process_restarts_total{module="7",name="lib.so"}`, `0x60 2x500`}}, "ExternalServerModuleProcessRestarts", map[int]int{12: 0}},
		scenario{"counter begins anew", [][2]string{{`module_statuses_lost_total{module="7"}`, `50x60 0x500`}}, "ExternalServerStatusesLost", map[int]int{12: 0}},
		scenario{"ordinary drops", [][2]string{{`drops_total{reason="status of an unknown session"}`, `0+1x600`}}, "ExternalServerMessagesDropped", map[int]int{12: 0}},
		scenario{"slow answers", histogram(`0+50x600`, `0+97x600`, `0+100x600`), "ExternalServerAnswersSlow", map[int]int{2: 0, 12: 1}},
		scenario{"quick answers", histogram(`0+99.5x600`, `0+100x600`, `0+100x600`), "ExternalServerAnswersSlow", map[int]int{12: 0}},
		scenario{"no answers", histogram(`5x600`, `6x600`, `7x600`), "ExternalServerAnswersSlow", map[int]int{12: 0}},
		scenario{"sessions declined", [][2]string{{`sessions_declined_total{reason="away too long"}`, `3x600`}}, "ExternalServerSessionsDeclined", map[int]int{2: 1, 12: 0}},
		scenario{"no sessions declined", [][2]string{{`sessions_declined_total{reason="away too long"}`, `0x600`}}, "ExternalServerSessionsDeclined", map[int]int{2: 0}},
		scenario{"journals set aside", [][2]string{{`journals_set_aside_total{reason="damaged"}`, `1x600`}}, "ExternalServerJournalsSetAside", map[int]int{2: 1, 12: 0}},
		scenario{"no journals set aside", [][2]string{{`journals_set_aside_total{reason="damaged"}`, `0x600`}}, "ExternalServerJournalsSetAside", map[int]int{2: 0}},
		scenario{"alone", [][2]string{{`cluster_members{state="ready"}`, `1x600`}}, "ExternalServerReplicaAlone", map[int]int{8: 0, 12: 1}},
		scenario{"not alone", [][2]string{{`cluster_members{state="ready"}`, `2x600`}}, "ExternalServerReplicaAlone", map[int]int{12: 0}},
		scenario{"replicas differ", [][2]string{{`cluster_members_differ`, `1x600`}}, "ExternalServerReplicasDiffer", map[int]int{8: 0, 12: 1}},
		scenario{"replicas are the same", [][2]string{{`cluster_members_differ`, `0x600`}}, "ExternalServerReplicasDiffer", map[int]int{12: 0}},
	)
}

func histogram(half, one, all string) [][2]string {
	return [][2]string{{`status_answer_seconds_bucket{le="0.5"}`, half}, {`status_answer_seconds_bucket{le="1"}`, one}, {`status_answer_seconds_bucket{le="2.5"}`, all}, {`status_answer_seconds_bucket{le="+Inf"}`, all}}
}

// all are the series of a scenario: its own, and of the rest what every server says.
func (s *scenario) all() [][2]string {
	out := slices.Clone(s.series)
	for _, a := range always() {
		if !slices.ContainsFunc(out, func(o [2]string) bool { return o[0] == a[0] }) {
			out = append(out, a)
		}
	}
	return out
}

var notation = regexp.MustCompile(`^(-?[0-9.]+|_)(?:\+([0-9.]+))?(?:x([0-9]+))?$`)

// values expands the notation of promtool: a+bxN is a and N more.
func values(t *testing.T, text string) (out []float64) {
	t.Helper()
	for word := range strings.FieldsSeq(text) {
		m := notation.FindStringSubmatch(word)
		if m == nil {
			t.Fatalf("values %q", word)
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if m[1] == "_" {
			v, err = math.NaN(), nil
		}
		step, n := 0.0, 0
		if m[2] != "" {
			step, _ = strconv.ParseFloat(m[2], 64)
		}
		if m[3] != "" {
			n, _ = strconv.Atoi(m[3])
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range n + 1 {
			out = append(out, v+step*float64(i))
		}
	}
	return out
}

var labelled1 = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)

// sample returns the name and the labels of a series.
func sample(series string) history.Sample {
	name, rest, _ := strings.Cut(series, "{")
	out := history.Sample{Name: prefix + name}
	for _, m := range labelled1.FindAllStringSubmatch(rest, -1) {
		out.Labels = append(out.Labels, history.Label{Name: m[1], Value: m[2]})
	}
	return out
}

// here plays a scenario with the rules of this package.
func (s *scenario) here(t *testing.T) map[int][]Alert {
	t.Helper()
	begin := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w, state, got := history.NewWindow(), New(), make(map[int][]Alert)
	all := s.all()
	lists := make([][]float64, len(all))
	for i := range all {
		lists[i] = values(t, all[i][1])
	}
	last := slices.Max(slices.Collect(maps.Keys(s.on)))
	for n := range 6*last + 1 {
		var reading []history.Sample
		for i := range all {
			if n < len(lists[i]) && !math.IsNaN(lists[i][n]) {
				one := sample(all[i][0])
				one.Value = lists[i][n]
				reading = append(reading, one)
			}
		}
		w.Add(begin.Add(time.Duration(n)*history.Step), reading)
		on := state.Evaluate(w)
		if n%6 == 0 {
			got[n/6] = on
		}
	}
	return got
}

func TestRules(t *testing.T) {
	tested := make(map[string][2]bool) // on, off
	for _, s := range scenarios() {
		got := s.here(t)
		for minute, want := range s.on {
			n := 0
			for _, a := range got[minute] {
				if a.Name == s.alert {
					n++
					if strings.Contains(a.Summary, "%") || !strings.HasSuffix(a.Summary, ".") && !strings.HasSuffix(a.Summary, "?") {
						t.Errorf("%s: summary %q", s.name, a.Summary)
					}
				}
			}
			if n != want {
				t.Errorf("%s: after %d min %d × %s are on, expected %d", s.name, minute, n, s.alert, want)
			}
			seen := tested[s.alert]
			seen[0], seen[1] = seen[0] || want > 0, seen[1] || want == 0
			tested[s.alert] = seen
		}
	}
	for _, name := range Names() {
		if tested[name] != [2]bool{true, true} {
			t.Errorf("no scenario has %s on, or none has it off", name)
		}
	}
}

// The same scenarios, played by promtool with the rules of the file, one rule at a time:
// that is quicker by far.
func TestRulesAreThoseOfPrometheus(t *testing.T) {
	tool := testneed.Tool(t, "prometheus", "promtool")
	raw, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	const begin = "      - alert: "
	blocks := strings.Split(string(raw), begin)
	byAlert := make(map[string][]scenario)
	for _, s := range scenarios() {
		byAlert[s.alert] = append(byAlert[s.alert], s)
	}
	for _, block := range blocks[1:] {
		name, _, _ := strings.Cut(block, "\n")
		if len(byAlert[name]) == 0 {
			continue // TestRules says so of those that are judged here
		}
		dir := t.TempDir()
		for file, text := range map[string][]byte{"alerts.yml": []byte(blocks[0] + begin + block), "same.yml": promtoolTest(t, byAlert[name])} {
			if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(tool, "test", "rules", "same.yml")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

// promtoolTest writes scenarios as promtool reads them.
func promtoolTest(t *testing.T, scenarios []scenario) []byte {
	t.Helper()
	type m = map[string]any
	var tests []m
	for _, s := range scenarios {
		var series []m
		for _, one := range s.all() {
			name, rest, _ := strings.Cut(one[0], "{")
			series = append(series, m{"series": prefix + name + `{job="external_server",instance="a",` + strings.TrimSuffix(rest, "}") + "}", "values": one[1]})
		}
		var checks []m
		for minute, want := range s.on {
			samples := []m{}
			if want > 0 {
				samples = append(samples, m{"labels": "{}", "value": want})
			}
			checks = append(checks, m{"expr": fmt.Sprintf(`count(ALERTS{alertname=%q,alertstate="firing"})`, s.alert), "eval_time": fmt.Sprintf("%dm", minute), "exp_samples": samples})
		}
		tests = append(tests, m{"name": s.name, "interval": "10s", "input_series": series, "promql_expr_test": checks})
	}
	text, err := json.Marshal(m{"rule_files": []string{"alerts.yml"}, "evaluation_interval": "10s", "tests": tests}) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Names, severities and times are those of the file, and none of its rules is forgotten.
func TestRulesOfTheFile(t *testing.T) {
	raw, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	inFile := make(map[string]string)
	for block := range strings.SplitSeq(string(raw), "- alert: ") {
		name, rest, _ := strings.Cut(block, "\n")
		severity := regexp.MustCompile(`severity: (\w+)`).FindStringSubmatch(rest)
		if severity == nil {
			continue
		}
		hold := time.Duration(0)
		if m := regexp.MustCompile(`\n\s+for: (\w+)`).FindStringSubmatch(rest); m != nil {
			if hold, err = time.ParseDuration(m[1]); err != nil {
				t.Fatal(err)
			}
		}
		inFile[name] = severity[1] + " " + hold.String()
	}
	for _, name := range NeedPrometheus() {
		if _, ok := inFile[name]; !ok {
			t.Errorf("%s is not in the file", name)
		}
		delete(inFile, name)
	}
	for _, r := range rules() {
		if got := r.severity + " " + r.hold.String(); inFile[r.name] != got {
			t.Errorf("%s is %q here and %q in the file", r.name, got, inFile[r.name])
		}
		delete(inFile, r.name)
	}
	for name := range inFile {
		t.Errorf("%s is in the file and not here", name)
	}
}

// Each metric that a rule looks at is one of Metrics, so that it is read at all.
func TestMetricsAreListed(t *testing.T) {
	known := Metrics()
	for _, s := range scenarios() {
		for _, one := range s.series {
			name := strings.TrimSuffix(sample(one[0]).Name, "_bucket")
			if !slices.Contains(known, name) {
				t.Errorf("%s is not among Metrics", name)
			}
		}
	}
}
