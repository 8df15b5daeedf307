package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestOperatorsView takes a car through a session and looks at everything the
// interface says, holding each answer against the OpenAPI document.
func TestOperatorsView(t *testing.T) {
	r := newRig(t, nil, "car1", "car2")
	doc := openAPI(t)
	if a := r.do("GET", "/readyz", ""); a.status != 200 || !strings.Contains(a.text(), "broker connection: ready") {
		t.Errorf("readyz: %d %s", a.status, a.text())
	}
	tail := r.stream("/api/v1/cars/car1/messages")
	events := r.stream("/api/v1/events?after=0")
	g := r.car("car1")
	g.Status(teleop, []byte{0xff, 0x00, 0x10}, time.Time{})
	g.Status(teleop, []byte(`{"speed":12.5}`), time.Time{})

	var car struct {
		State   string `json:"state"`
		Devices []struct {
			Role       string `json:"role"`
			Connected  bool   `json:"connected"`
			LastStatus struct {
				Payload struct {
					Encoding string          `json:"encoding"`
					Data     json.RawMessage `json:"data"`
				} `json:"payload"`
			} `json:"last_status"`
		} `json:"devices"`
	}
	r.wait("the last status", func() bool {
		r.get("/api/v1/cars/car1", &car)
		return len(car.Devices) == 1 && string(car.Devices[0].LastStatus.Payload.Data) == `{"speed":12.5}`
	})
	if d := car.Devices[0]; !d.Connected || d.Role != "teleop" || d.LastStatus.Payload.Encoding != "json" {
		t.Errorf("device %+v", d)
	}
	connect := tail.next(func(ev sent) bool { return ev.data["kind"] == "connect" })
	if connect.data["direction"] != "in" {
		t.Errorf("connect %v", connect.data)
	}
	raw := tail.next(func(ev sent) bool {
		p, _ := ev.data["payload"].(map[string]any)
		return ev.data["kind"] == "status" && p["encoding"] == "hex"
	})
	if p := raw.data["payload"].(map[string]any); p["data"] != "ff0010" {
		t.Errorf("hex payload %v", p)
	}
	doc.check("Message", raw.data)
	first := events.next(kind("connect", "car1"))
	doc.check("Event", first.data)
	events.next(kind("device_joined", "car1"))
	events.next(kind("running", "car1"))

	if a := r.operate("POST", "/api/v1/cars/car1/disconnect", ""); a.status != http.StatusAccepted {
		t.Errorf("disconnect: %d %s", a.status, a.text())
	}
	end := events.next(kind("disconnect", "car1"))
	if end.data["reason"] != "disconnected by an operator" {
		t.Errorf("end %v", end.data)
	}
	// The gateway comes back with its next status; a resumed stream shows it.
	r.wait("the session after the disconnect", func() bool {
		g.Status(teleop, []byte(`{"speed":0}`), time.Time{}) // one may be on its way when the gateway is told
		return r.state("car1") == "running"
	})
	again := r.stream("/api/v1/events", "Last-Event-ID", end.id)
	again.next(kind("running", "car1"))

	before, _ := r.session("car1")
	if a := r.operate("POST", "/api/v1/cars/car1/reannounce", ""); a.status != http.StatusAccepted {
		t.Errorf("reannounce: %d %s", a.status, a.text())
	}
	r.wait("the session after the reannouncement", func() bool {
		g.Status(teleop, []byte(`{"speed":1}`), time.Time{})
		id, _ := r.session("car1")
		return id != before && r.state("car1") == "running"
	})
	replaced := again.next(kind("disconnect", "car1"))
	if replaced.data["reason"] != "gateway started a new session" {
		t.Errorf("end after the reannouncement %v", replaced.data)
	}

	for path, schema := range map[string]string{
		"/api/v1/server": "Server", "/api/v1/cars": "CarList", "/api/v1/cars/car1": "Car", "/api/v1/cars/car2": "Car",
		"/api/v1/modules": "Modules", "/api/v1/log-levels": "LogLevels",
	} {
		var v any
		r.get(path, &v)
		doc.check(schema, v)
	}
	a := r.do("GET", "/readyz", "", "Accept", "application/json")
	doc.check("Readiness", decode(t, a.body))
	if a := r.do("GET", "/metrics", ""); a.status != 200 || !strings.Contains(string(a.body), `external_server_cars{state="running"} `) {
		t.Errorf("metrics: %d", a.status)
	}
	if a := r.do("GET", "/healthz", ""); a.status != 200 || a.text() != "alive" {
		t.Errorf("healthz: %d %s", a.status, a.text())
	}
}

func decode(t *testing.T, raw []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return v
}

func TestCarList(t *testing.T) {
	var names []string
	for i := range 30 {
		names = append(names, fmt.Sprintf("car%02d", i))
	}
	r := newRig(t, nil, names...)
	r.car("car07")
	var list struct {
		Total, Matched int
		States         map[string]int
		Cars           []struct{ Name, State, Why string }
	}
	get := func(query string) []string {
		t.Helper()
		r.get("/api/v1/cars?"+query, &list)
		var out []string
		for _, c := range list.Cars {
			out = append(out, c.Name)
		}
		return out
	}
	for query, want := range map[string][]string{
		"state=running":                        {"car07"},
		"q=CAR1&limit=2":                       {"car10", "car11"},
		"q=car1&limit=2&offset=8":              {"car18", "car19"},
		"sort=name&order=desc&limit=1":         {"car29"},
		"sort=statuses&order=desc&limit=1":     {"car07"},
		"offset=1000":                          nil,
		"reason=never+heard":                   nil,
		"module=3&state=running":               {"car07"},
		"module=4":                             nil,
		"reason=has+not+been+heard&limit=1":    {"car00"},
		"sort=last_seen&order=desc&limit=1":    {"car07"},
		"sort=state&limit=1":                   {"car07"},
		"sort=why&limit=1":                     {"car07"},
		"sort=devices&order=desc&limit=1":      {"car07"},
		"sort=sessions&order=desc&limit=1":     {"car07"},
		"sort=ends&limit=1&q=car05":            {"car05"},
		"sort=since&order=desc&limit=1":        {"car07"},
		"state=connecting":                     nil,
		"q=" + url.QueryEscape("x' OR 1=1 --"): nil,
	} {
		if got := get(query); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	get("q=car1")
	if list.Total != 30 || list.Matched != 10 || list.States["running"] != 1 || list.States["waiting"] != 29 {
		t.Errorf("counts %+v", list)
	}
	for _, bad := range []string{"limit=0", "limit=10001", "limit=x", "offset=-1", "sort=colour", "state=sleeping", "order=up", "module=-1", "colour=red", "q=a&q=b", "%zz", "module=99999999999"} {
		a := r.do("GET", "/api/v1/cars?"+bad, "")
		if a.status != http.StatusBadRequest || a.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.text(), "detail") {
			t.Errorf("%s: %d %s", bad, a.status, a.text())
		}
	}
}

func TestLogLevels(t *testing.T) {
	r := newRig(t, nil, "car1")
	level := func() string {
		var levels map[string]struct {
			Level, Configured string
			Overridden        bool
		}
		r.get("/api/v1/log-levels", &levels)
		l := levels["car"]
		if l.Configured != "INFO" || l.Overridden != (l.Level != "INFO") {
			t.Errorf("level %+v", l)
		}
		return l.Level
	}
	if l := level(); l != "INFO" {
		t.Errorf("level %s", l)
	}
	if a := r.operate("PUT", "/api/v1/log-levels/car", `{"level":"debug"}`); a.status != 200 || level() != "DEBUG" {
		t.Errorf("%d %s, level %s", a.status, a.text(), level())
	}
	if a := r.operate("DELETE", "/api/v1/log-levels/car", ""); a.status != 200 || level() != "INFO" {
		t.Errorf("%d %s, level %s", a.status, a.text(), level())
	}
	for body, status := range map[string]int{
		``: 400, `{}`: 400, `{"level":"LOUD"}`: 400, `{"level":"DEBUG","x":1}`: 400, `{"level":"DEBUG"} trailing`: 400,
		`[]`: 400, `{"level":"` + strings.Repeat("x", 70_000) + `"}`: 400,
	} {
		if a := r.operate("PUT", "/api/v1/log-levels/car", body); a.status != status {
			t.Errorf("%.40q: %d %s", body, a.status, a.text())
		}
	}
	if a := r.operate("PUT", "/api/v1/log-levels/engine", `{"level":"DEBUG"}`); a.status != 404 {
		t.Errorf("unknown component: %d %s", a.status, a.text())
	}
}

// Without broker the server is alive and not ready, and says why everywhere.
func TestNotReady(t *testing.T) {
	r := newRig(t, func(s settings) {
		delete(s, "embedded_broker")
		s["external_communication"] = settings{"server_address": "127.0.0.1", "server_port": 1, "timeout_ms": 30000}
	}, "car1")
	r.wait("the first failure", func() bool { return strings.Contains(r.do("GET", "/readyz", "").text(), "refused") })
	a := r.do("GET", "/readyz", "")
	if a.status != http.StatusServiceUnavailable || !strings.Contains(a.text(), "broker connection: not ready: not connected") {
		t.Errorf("readyz: %d %s", a.status, a.text())
	}
	a = r.do("GET", "/readyz", "", "Accept", "application/json")
	openAPI(t).check("Readiness", decode(t, a.body))
	if a.status != http.StatusServiceUnavailable || !strings.Contains(a.text(), `"ready":false`) {
		t.Errorf("readyz: %d %s", a.status, a.text())
	}
	if a := r.do("GET", "/healthz", ""); a.status != 200 {
		t.Errorf("healthz: %d", a.status)
	}
	if a := r.do("GET", "/api/v1/cars", ""); !strings.Contains(a.text(), "no connection to the broker: ") {
		t.Errorf("cars: %s", a.text())
	}
	if a := r.do("GET", "/metrics", ""); !strings.Contains(a.text(), "external_server_link_up 0") {
		t.Error("metrics do not say that the broker is gone")
	}
}

// Errors are problem details that say what there is.
func TestProblems(t *testing.T) {
	r := newRig(t, nil, "car1")
	if a := r.do("GET", "/api/v1/nothing", ""); a.status != 404 || !strings.Contains(a.text(), "openapi.json") {
		t.Errorf("%d %s", a.status, a.text())
	}
	if a := r.do("DELETE", "/api/v1/cars", "", "X-External-Server", "1"); a.status != 405 || !strings.Contains(a.text(), "allowed: GET, HEAD") {
		t.Errorf("%d %s", a.status, a.text())
	}
	if a := r.do("GET", "/api/v1/cars/nobody", ""); a.status != 404 || !strings.Contains(a.text(), "nobody") {
		t.Errorf("%d %s", a.status, a.text())
	}
	for _, path := range []string{"disconnect", "reannounce"} {
		if a := r.operate("POST", "/api/v1/cars/nobody/"+path, ""); a.status != 404 {
			t.Errorf("%d %s", a.status, a.text())
		}
	}
}

// document is the OpenAPI document.
type document struct {
	t        *testing.T
	raw      map[string]any
	compiler *jsonschema.Compiler
}

func openAPI(t *testing.T) *document {
	t.Helper()
	file, err := os.Open("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	raw, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	d := &document{t: t, raw: raw.(map[string]any), compiler: jsonschema.NewCompiler()}
	if err := d.compiler.AddResource("openapi.json", raw); err != nil {
		t.Fatal(err)
	}
	return d
}

// check holds a value against a schema of the document.
func (d *document) check(schema string, v any) {
	d.t.Helper()
	s, err := d.compiler.Compile("openapi.json#/components/schemas/" + schema)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := s.Validate(v); err != nil {
		d.t.Errorf("%s: %v", schema, err)
	}
}

var pattern = regexp.MustCompile(`(?:read|operate|HandleFunc)\("(GET|POST|PUT|DELETE) (/[^"]*)"`)

// Every route is in the document with its role, and nothing else.
func TestDocumentNamesEveryRoute(t *testing.T) {
	raw, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, m := range pattern.FindAllStringSubmatch(string(raw), -1) {
		served[strings.ToLower(m[1])+" "+m[2]] = true
	}
	documented := map[string]bool{}
	for path, item := range openAPI(t).raw["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			documented[method+" "+path] = true
			changes := method != "get"
			if role := op.(map[string]any)["x-role"]; changes != (role == "operate") {
				t.Errorf("%s %s has the role %v", method, path, role)
			}
		}
	}
	for route := range served {
		if !documented[route] {
			t.Errorf("%s is not in the document", route)
		}
	}
	for route := range documented {
		if !served[route] {
			t.Errorf("%s is in the document and not served", route)
		}
	}
}
