package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/logging"
	"external-server/internal/support/testneed"
)

// points is what the tests look at in the history.
type points struct {
	Step   float64 `json:"step_s"`
	Points []struct {
		At       time.Time
		Statuses float64            `json:"statuses_per_second"`
		P99      *float64           `json:"answer_p99_s"`
		Cars     map[string]float64 `json:"cars"`
		Replicas int
	}
	Missing []struct{ Replica, Reason string }
}

// alarms are the alerts that are on.
type alarms struct {
	At     *time.Time
	Rules  int
	Alerts []struct{ Name, Severity, Summary, Replica string }
	// Missing are replicas.
	Missing []struct{ Replica, Reason string }
}

// only leaves the alert of that name, and tells whether it is on: a busy machine may be a reason for others.
func (a *alarms) only(name string) bool {
	a.Alerts = slices.DeleteFunc(a.Alerts, func(on struct{ Name, Severity, Summary, Replica string }) bool { return on.Name != name })
	return len(a.Alerts) > 0
}

func TestHistoryAndAlerts(t *testing.T) {
	testneed.Time(t)
	r := newRig(t, nil, "car1", "car2")
	r.car("car1")
	var h points
	r.wait("a point with statuses", func() bool {
		r.get("/api/v1/history", &h)
		n := len(h.Points) // its statuses may be of the step before the one in which its session ran
		return n > 0 && h.Points[n-1].Cars["running"] == 1 && (h.Points[n-1].Statuses > 0 || n > 1 && h.Points[n-2].Statuses > 0)
	})
	if last := h.Points[len(h.Points)-1]; h.Step != 10 || last.Cars["running"] != 1 || last.Cars["waiting"] != 1 || last.Replicas != 1 {
		t.Errorf("history %+v", h)
	}
	openAPI(t).check("History", decode(t, r.do("GET", "/api/v1/history", "").body))

	r.write(settings{"company_name": "acme"})
	if a := r.operate(http.MethodPost, "/api/v1/reload", ""); a.status < 400 {
		t.Fatalf("a file without cars was put in force: %s", a.text())
	}
	var on alarms
	r.wait("the alert", func() bool { r.get("/api/v1/alerts", &on); return on.only("ExternalServerReloadFailed") })
	if a := on.Alerts[0]; a.Name != "ExternalServerReloadFailed" || a.Severity != "ticket" || a.Summary == "" || a.Replica != "" || on.Rules < 25 {
		t.Errorf("alerts %+v", on)
	}
	openAPI(t).check("Alerts", decode(t, r.do("GET", "/api/v1/alerts", "").body))
}

// Any replica answers for all, and names those that do not answer.
func TestFleetHistoryAndAlerts(t *testing.T) {
	testneed.Time(t)
	all, _ := newFleet(t, nil, []string{"car4"}, []string{"car1"}, []string{"car2"})
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	for _, o := range all {
		watching.Go(func() { o.hub.Watch(ctx) })
	}
	all[0].source.log("first", "car1")
	all[2].source.log("second", "car2")
	all[1].source.log("third", "car1")
	a := all[0]
	var h points
	a.wait("a point of all", func() bool {
		a.get("/api/v1/history", &h)
		return len(h.Points) > 0 && h.Points[len(h.Points)-1].Replicas == 3 && len(h.Missing) == 0
	})
	all[1].hub.Reloaded("", errors.New("a file with an error")) // counted from the reading before on
	var on alarms
	a.wait("the alert of b", func() bool { a.get("/api/v1/alerts", &on); return on.only("ExternalServerReloadFailed") })
	if got := on.Alerts[0]; got.Name != "ExternalServerReloadFailed" || got.Replica != "b" {
		t.Errorf("alerts %+v", on)
	}
	var lines logged
	ofAll := func(path string) {
		t.Helper()
		a.wait("an answer of all", func() bool { lines = logged{}; a.get(path, &lines); return len(lines.Missing) == 0 })
	}
	ofAll("/api/v1/log")
	if got := lines.words(); got != "b third, c second, a first" {
		t.Errorf("lines %q", got)
	}
	ofAll("/api/v1/log?car=car1&limit=1")
	if got := lines.words(); got != "b third" {
		t.Errorf("the newest line of car1 is %q", got)
	}

	all[2].stop()
	a.wait("b to answer, and c not to", func() bool {
		h, on, lines = points{}, alarms{}, logged{}
		a.get("/api/v1/history", &h)
		a.get("/api/v1/alerts", &on)
		a.get("/api/v1/log", &lines)
		return len(h.Missing) == 1 && len(on.Missing) == 1 && len(lines.Missing) == 1
	})
	for _, missing := range [][]struct{ Replica, Reason string }{h.Missing, on.Missing, lines.Missing} {
		if len(missing) != 1 || missing[0].Replica != "c" || missing[0].Reason == "" {
			t.Errorf("missing are %+v", missing)
		}
	}
}

type logged struct {
	Lines   []struct{ At, Level, Component, Car, Text, Source, Replica string }
	Missing []struct{ Replica, Reason string }
}

func (l *logged) words() string {
	var out []string
	for _, line := range l.Lines {
		out = append(out, strings.TrimSpace(line.Replica+" "+line.Text))
	}
	return strings.Join(out, ", ")
}

// log is a line of the log of a replica without one.
func (s *some) log(text, car string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append([]logging.Line{{At: time.Now(), Level: slog.LevelInfo, Car: car, Text: text}}, s.lines...)
}

func (s *some) LogLines(least slog.Level, most int, want func(*logging.Line) bool) (out []logging.Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if l.Level >= least && want(&l) && len(out) < most {
			out = append(out, l)
		}
	}
	return out
}

func TestLogLines(t *testing.T) {
	const read, operate = "read-secret-of-a-test", "operate-secret-of-a-test"
	r := newRig(t, func(s settings) {
		s["admin"] = settings{"listen": "127.0.0.1:0", "tokens": tokens("eve:read:"+read, "ops:operate:"+operate)}
	}, "car1")
	as := func(token string) []string {
		return []string{"Authorization", "Bearer " + token, "X-External-Server", "test"}
	}
	r.do("GET", "/api/v1/cars", "", as("wrong-secret-of-a-test")...)
	if a := r.do("PUT", "/api/v1/log-levels/car", `{"level":"DEBUG"}`, as(operate)...); a.status != 200 {
		t.Fatalf("level: %d %s", a.status, a.text())
	}
	g := r.gateway("car1", gateway.Broker{})
	g.Status(teleop, []byte(`{"hello":1}`), time.Time{})
	get := func(query string) (out logged) {
		t.Helper()
		a := r.do("GET", "/api/v1/log?"+query, "", as(read)...)
		if a.status != 200 {
			t.Fatalf("%s: %d %s", query, a.status, a.text())
		}
		openAPI(t).check("Log", decode(t, a.body))
		if strings.Contains(a.text(), "secret-of-a-test") {
			t.Errorf("the log shows a token: %s", a.text())
		}
		if err := json.Unmarshal(a.body, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	r.wait("a line about the car", func() bool { return len(get("car=car1").Lines) > 3 })
	for _, l := range get("car=car1&limit=1000").Lines {
		if l.Car != "car1" || l.Component != "car" && l.Component != "module" && l.Component != "link" {
			t.Errorf("a line of car1: %+v", l)
		}
	}
	if got := get("q=OPERATOR+"); len(got.Lines) == 0 || !strings.Contains(got.Lines[0].Text, "token=ops") {
		t.Errorf("what the operator did: %+v", got.Lines)
	}
	if got := get("level=ERROR"); len(got.Lines) != 0 {
		t.Errorf("errors: %+v", got.Lines)
	}
	if got := get("limit=2"); len(got.Lines) != 2 || got.Lines[0].At < got.Lines[1].At {
		t.Errorf("two lines: %+v", got.Lines)
	}
	for _, bad := range []string{"level=LOUD", "limit=0", "limit=1001", "limit=x", "nonsense=1", "car=a&car=b", "%zz"} {
		if a := r.do("GET", "/api/v1/log?"+bad, "", as(read)...); a.status != 400 {
			t.Errorf("%s: %d %s", bad, a.status, a.text())
		}
	}
	if a := r.do("GET", "/api/v1/log", ""); a.status != 401 {
		t.Errorf("without token: %d", a.status)
	}
}

// Whom "insecure" lets in sees cars, but not the log.
func TestLogLinesOfStrangers(t *testing.T) {
	r := newRig(t, func(s settings) { s["admin"] = settings{"listen": "0.0.0.0:0", "insecure": true} }, "car1")
	_, port, _ := net.SplitHostPort(r.app.AdminAddr().String())
	r.base = "http://127.0.0.1:" + port
	if a := r.do("GET", "/api/v1/alerts", "", "Host", "server.example"); a.status != 200 {
		t.Errorf("alerts: %d %s", a.status, a.text())
	}
	if a := r.do("GET", "/api/v1/log", "", "Host", "server.example"); a.status != 403 || !strings.Contains(a.text(), "needs a token") {
		t.Errorf("log: %d %s", a.status, a.text())
	}
}
