package observe

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"

	"external-server/internal/support/testneed"
)

const (
	alertRules = "../../deploy/prometheus/alerts.yml"
	scrape     = "../../deploy/prometheus/prometheus.yml"
	dashboard  = "../../deploy/grafana/external-server.json"
)

var named = regexp.MustCompile(`external_server_[a-z_]+`)

// Every metric that the alert rules, the dashboard and the operator's guide name
// exists.
func TestDeployedNamesExist(t *testing.T) {
	known := map[string]bool{}
	for _, m := range full(t).Metrics() {
		known[m.Name] = true
		if m.Type == "histogram" {
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				known[m.Name+suffix] = true
			}
		}
	}
	for _, file := range []string{alertRules, dashboard, "../../docs/operations.md"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := named.FindAllString(string(raw), -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range names {
			if !known[name] && !strings.HasSuffix(name, "_") {
				t.Errorf("%s names %s, which does not exist", file, name)
			}
		}
	}
}

// Every alert is explained to who is woken by it.
func TestAlertsAreExplained(t *testing.T) {
	rules, err := os.ReadFile(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(rules), -1)
	if len(found) < 10 {
		t.Fatalf("%d alerts", len(found))
	}
	for _, m := range found {
		if !strings.Contains(string(guide), "`"+m[1]+"`") {
			t.Errorf("docs/operations.md does not explain %s", m[1])
		}
	}
}

// The dashboard is what Grafana reads, and no panel lies over another one.
func TestDashboard(t *testing.T) {
	raw, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title  string
		Panels []struct {
			ID      int
			Type    string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	taken := map[[2]int]int{}
	var ids []int
	for _, p := range d.Panels {
		if slices.Contains(ids, p.ID) {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids = append(ids, p.ID)
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d shows nothing", p.ID)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != 0 || at[0] >= 24 {
					t.Fatalf("panels %d and %d are both at %v", p.ID, other, at)
				}
				taken[at] = p.ID
			}
		}
	}
}

// promtool, which checks the rules as Prometheus reads them.
func promtool(t *testing.T) string {
	t.Helper()
	return testneed.Tool(t, "prometheus", "promtool")
}

func TestRules(t *testing.T) {
	tool := promtool(t)
	if out, err := exec.Command(tool, "check", "rules", alertRules).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	// The token file is the operator's to make.
	dir := t.TempDir()
	for _, f := range []string{scrape, alertRules} {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokens", "external_server"), []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "check", "config", filepath.Join(dir, "prometheus.yml")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	// The queries of the dashboard, as rules.
	raw, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(q.Expr)
			rules = append(rules, rule{Record: "panel:query", Expr: expr})
		}
	}
	file := filepath.Join(dir, "queries.yml") // JSON is YAML
	raw, err = json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "check", "rules", "--lint=none", file).CombinedOutput(); err != nil {
		t.Errorf("queries of the dashboard: %v: %s", err, out)
	}
	// And what the server serves is what Prometheus reads.
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = strings.NewReader(exposition(t))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("exposition: %v: %s", err, out)
	}
}

// exposition is what /metrics serves.
func exposition(t *testing.T) string {
	t.Helper()
	families, err := full(t).Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// TestClusterAlerts plays series of replicas: what promtool finds in
// testdata/cluster_alerts_test.yml, alerts that come and alerts that must not.
func TestClusterAlerts(t *testing.T) {
	tool := promtool(t)
	dir := t.TempDir() // rules are found beside the test
	for _, f := range []string{alertRules, "testdata/cluster_alerts_test.yml"} {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tool, "test", "rules", "cluster_alerts_test.yml")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
