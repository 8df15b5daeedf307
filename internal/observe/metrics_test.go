package observe

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"external-server/internal/broker"
	"external-server/internal/car"
	"external-server/internal/cluster"
	"external-server/internal/fleet"
	"external-server/internal/httpapi/server"
	"external-server/internal/link"
	"external-server/internal/module"
	"external-server/internal/session"
)

var update = flag.Bool("update", false, "rewrite the table of docs/metrics.md")

// gathered returns the value of every series, of histograms the count.
func gathered(t *testing.T, h *Hub) map[string]float64 {
	t.Helper()
	families, err := h.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			out[name] = value(m)
		}
	}
	return out
}

func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return float64(m.GetHistogram().GetSampleCount())
}

// full is a hub whose sources have everything.
func full(t *testing.T) *Hub {
	return newHub(t, Options{Version: "1.2.3", PerCar: true, Sources: Sources{
		Cars: func() []car.Snapshot {
			return []car.Snapshot{
				{ID: carID, Phase: session.PhaseRunning, Statuses: 3, Sessions: 1, LastSeen: time.Now(), Modules: []car.ModuleSnapshot{
					{Number: 2, WorkerStats: module.WorkerStats{Queued: 3, OldestQueued: time.Now().Add(-2 * time.Minute), Lost: 1}}}},
				{ID: fleet.CarID{Company: "acme", Car: "car2"}, Modules: []car.ModuleSnapshot{{Number: 2, WorkerStats: module.WorkerStats{Queued: 5}}}},
			}
		},
		Link: func() link.State {
			return link.State{Up: true, Since: time.Now(), Connections: []link.ConnectionState{{Up: true, MessagesIn: 4, Kept: true, Backlog: 2, TakenOver: 1}, {MessagesIn: 5, Backlog: 3, FlushFailed: 1}}, Declined: "why"}
		},
		Processes: func() []module.ProcessState {
			return []module.ProcessState{{Number: 2, Name: "lib.so", Ready: true, Restarts: 2}}
		},
		Broker: func() (broker.Stats, bool) { return broker.Stats{Clients: 7}, true },
		HTTPAPI: func() (server.Stats, bool) {
			return server.Stats{Requests: map[server.RequestKey]int64{{Route: "GET /status", Code: 200}: 5}}, true
		},
		LogLost: func() (uint64, uint64) { return 1, 2 },
		Cluster: func() (ClusterState, bool) {
			return ClusterState{
				View: &cluster.View{
					Self: "a", Connected: true, Since: time.Now().Add(-time.Minute), Scout: "a", Orphaned: time.Now().Add(-time.Minute),
					Members: []cluster.Member{{Name: "a", State: cluster.StateReady, Fingerprint: "1"}, {Name: "b", State: cluster.StateReady, Fingerprint: "2"}},
					Shards: []cluster.Owner{{Replica: "a", Epoch: 7, State: cluster.ClaimServing}, {Replica: "b", Epoch: 8, State: cluster.ClaimServing}, {},
						{Replica: "a", Epoch: 9, State: cluster.ClaimOpening}},
				},
				Counts: cluster.Counts{Claims: 1, Received: 2, Given: 3, Renewed: 4, Lost: 5, Failed: 6}, Discarded: 7,
			}, true
		},
	}})
}

func TestScrape(t *testing.T) {
	h := full(t)
	h.Car(carID)
	h.Reloaded("", nil)
	got := gathered(t, h)
	for name, want := range map[string]float64{
		`external_server_cars{state="waiting"}`:                                   1,
		`external_server_car_state{car="car1",state="running"}`:                   1,
		`external_server_car_state{car="car2",state="running"}`:                   0,
		`external_server_module_queue_length{module="2"}`:                         8,
		`external_server_module_queue_longest{module="2"}`:                        5,
		`external_server_module_cars{module="2"}`:                                 2,
		`external_server_module_statuses_lost_total{module="2"}`:                  1,
		`external_server_link_up`:                                                 1,
		`external_server_link_connections{state="up"}`:                            1,
		`external_server_link_messages_total{direction="in"}`:                     9,
		`external_server_link_sessions_kept`:                                      1,
		`external_server_link_sessions_declined`:                                  1,
		`external_server_cluster_etcd_up`:                                         1,
		`external_server_cluster_members{state="ready"}`:                          2,
		`external_server_cluster_members{state="unhealthy"}`:                      0,
		`external_server_cluster_members_differ`:                                  1,
		`external_server_cluster_scout`:                                           1,
		`external_server_cluster_shards{state="serving"}`:                         1,
		`external_server_cluster_shards{state="opening"}`:                         1,
		`external_server_cluster_shard_epoch{shard="0"}`:                          7,
		`external_server_cluster_shards_taken_total{how="taken over"}`:            1,
		`external_server_cluster_shards_taken_total{how="handed over"}`:           2,
		`external_server_cluster_shards_taken_total{how="claimed again"}`:         4,
		`external_server_cluster_shards_given_total{how="handed over"}`:           3,
		`external_server_cluster_shards_given_total{how="lost"}`:                  5,
		`external_server_cluster_shards_failed_total`:                             6,
		`external_server_cluster_shards_without_owner`:                            1,
		`external_server_cluster_statuses_discarded_total`:                        7,
		`external_server_link_stopped`:                                            0,
		`external_server_link_backlog_messages_total`:                             5,
		`external_server_link_taken_over_total`:                                   1,
		`external_server_link_unrecorded_total`:                                   1,
		`external_server_module_process_restarts_total{module="2",name="lib.so"}`: 2,
		`external_server_broker_clients`:                                          7,
		`external_server_http_api_requests_total{code="200",route="GET /status"}`: 5,
		`external_server_log_lines_lost_total{destination="file"}`:                2,
		`external_server_config_reloads_total{result="ok"}`:                       1,
		`external_server_events_total`:                                            1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	if age := got[`external_server_module_queue_oldest_seconds{module="2"}`]; age < 60 {
		t.Errorf("age of the queue is %v", age)
	}
	h.SetPerCar(false)
	for name := range gathered(t, h) {
		if strings.Contains(name, `car="`) {
			t.Errorf("%s without per_car_metrics", name)
		}
	}
}

// Whatever cars do, the number of series does not grow with their number or with
// what they send.
func TestCardinality(t *testing.T) {
	h := newHub(t, Options{})
	run := func(cars, inventions int) int {
		for i := range cars {
			c := h.Car(fleet.CarID{Company: "acme", Car: fmt.Sprint("car", i)})
			connect(c, "s", at(0), lamp)
			for n := range inventions {
				d := fleet.Device{Module: 2, Role: fmt.Sprint(n), Type: uint32(n)}
				c.Observe(status(d, uint32(n), "x", at(0)))
				c.Observe(&car.Event{Kind: car.CommandAnswered, At: at(0), Since: at(0), Module: 2, Response: fleet.ResponseType(10 + n), Command: fleet.Command{Device: d, Fetched: at(0)}})
			}
		}
		return len(gathered(t, h))
	}
	if few, many := run(1, 1), run(50, 50); many != few {
		t.Errorf("%d series of one car, %d of many", few, many)
	}
}

const document = "../../docs/metrics.md"

var row = regexp.MustCompile("(?m)^\\| `(external_server_[a-z_]+)` .*$")

func describe(m Metric) string {
	labels := "–"
	if len(m.Labels) > 0 {
		labels = "`" + strings.Join(m.Labels, "`, `") + "`"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |", m.Name, m.Type, labels, m.Help)
}

// updateRows puts rows in the place of those of the same metric. A new one goes below
// the metric that its name has most in common with.
func updateRows(text string, rows []string) string {
	name := func(line string) string { return row.FindStringSubmatch(line)[1] }
	lines := strings.Split(text, "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool {
		return row.MatchString(l) && !slices.ContainsFunc(rows, func(r string) bool { return name(r) == name(l) })
	})
	for _, r := range rows {
		best, at := -1, len(lines)
		for i, l := range lines {
			if !row.MatchString(l) {
				continue
			}
			n := 0
			for n < min(len(name(l)), len(name(r))) && name(l)[n] == name(r)[n] {
				n++
			}
			if name(l) == name(r) {
				n, lines[i] = 1<<20, r
			}
			if n > best {
				best, at = n, i+1
			}
		}
		if best < 1<<20 {
			lines = slices.Insert(lines, at, r)
		}
	}
	return strings.Join(lines, "\n")
}

func TestUpdateRows(t *testing.T) {
	line := func(name, text string) string { return "| `external_server_" + name + "` " + text }
	text := strings.Join([]string{"# A", line("cars", "old"), line("gone", ""), "# B", line("link_up", "same"), ""}, "\n")
	got := updateRows(text, []string{line("cars", "new"), line("link_bytes", "x"), line("link_up", "same")})
	want := strings.Join([]string{"# A", line("cars", "new"), "# B", line("link_up", "same"), line("link_bytes", "x"), ""}, "\n")
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// docs/metrics.md lists exactly the metrics there are. -update rewrites its rows.
func TestDocument(t *testing.T) {
	h := full(t)
	var want []string
	for _, m := range h.Metrics() {
		want = append(want, describe(m))
	}
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		raw = []byte(updateRows(string(raw), want))
		if err := os.WriteFile(document, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := row.FindAllString(string(raw), -1)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("docs/metrics.md lacks\n%s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("docs/metrics.md has what the server has not:\n%s", line)
		}
	}
	// And what a scrape brings is among them.
	for name := range gathered(t, h) {
		name, _, _ = strings.Cut(name, "{")
		if strings.HasPrefix(name, namespace) && !slices.ContainsFunc(h.Metrics(), func(m Metric) bool { return m.Name == name }) {
			t.Errorf("%s is not in the catalogue", name)
		}
	}
}
