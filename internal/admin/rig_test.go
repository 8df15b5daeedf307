package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"external-server/internal/app"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/logging"
	"external-server/internal/module/host"
	"external-server/internal/support/testleak"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) {
	host.RunIfHost() // the children that run module libraries are this program too
	// The client of the SQL driver keeps a goroutine for the life of the process.
	driver := goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener")
	goleak.VerifyTestMain(testleak.Settled(m, driver), driver)
}

var teleop = fleet.Device{Module: 3, Type: 7, Role: "teleop", Name: "Teleop"}

// quick are gateways that lose no time.
var quick = gateway.Timing{RetryPause: 50 * time.Millisecond, QueuePoll: 20 * time.Millisecond, LeaveStall: 100 * time.Millisecond,
	LinkTimeout: testwait.Patience, MessageTimeout: testwait.Patience}

// settings are a configuration file as a test writes it.
type settings map[string]any

func tokens(list ...string) []any {
	var out []any
	for _, t := range list { // name:role:token
		p := strings.Split(t, ":")
		out = append(out, settings{"name": p[0], "role": p[1], "token": p[2]})
	}
	return out
}

// rig is the real server with broker, HTTP API, a built-in module and the admin
// endpoint, and gateways.
type rig struct {
	t    *testing.T
	dir  string
	file string
	app  *app.App
	base string
	http *http.Client
	log  *testlog.Buffer
	logs *logging.Logs
}

// defaults are the settings of a rig that serves the cars.
func defaults(dir string, cars ...string) settings {
	served := settings{}
	for _, c := range cars {
		served[c] = settings{}
	}
	return settings{
		"company_name":           "acme",
		"embedded_broker":        settings{"listen": "127.0.0.1:0"},
		"external_communication": settings{"server_address": "", "timeout_ms": 30000},
		"timeout":                25,
		"sleep_duration_after_connection_refused": 1,
		"http_api":       settings{"listen": "127.0.0.1:0", "store": "sqlite:" + filepath.Join(dir, "store.db")},
		"common_modules": settings{"3": settings{"builtin": "transparent"}},
		"cars":           served,
		"admin":          settings{"listen": "127.0.0.1:0"},
		"logging":        settings{"console": settings{"use": true, "level": "INFO"}},
	}
}

func newRig(t *testing.T, edit func(settings), cars ...string) *rig {
	t.Helper()
	return newRigWithLog(t, edit, logging.Sink{}, cars...)
}

// newRigWithLog is newRig with a log file besides.
func newRigWithLog(t *testing.T, edit func(settings), file logging.Sink, cars ...string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), log: &testlog.Buffer{}, http: &http.Client{Transport: &http.Transport{}}}
	r.file = filepath.Join(r.dir, "config.json")
	s := defaults(r.dir, cars...)
	if edit != nil {
		edit(s)
	}
	r.write(s)
	load := func() (*config.Config, []config.Problem, error) { return config.Load(r.file, os.LookupEnv) }
	cfg, _, err := load()
	if err != nil {
		t.Fatal(err)
	}
	r.logs, err = logging.New(logging.Options{Console: logging.Sink{Use: true, Level: slog.LevelInfo}, File: file, Stderr: r.log, Component: "test"})
	if err != nil {
		t.Fatal(err)
	}
	r.app, err = app.New(t.Context(), app.Options{Config: cfg, Logger: r.logs.Logger(), Logs: r.logs, Version: "test", Load: load})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.app.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		r.http.CloseIdleConnections()
		if err := r.logs.Close(); err != nil {
			t.Error(err)
		}
	})
	r.base = "http://" + r.app.AdminAddr().String()
	if s["embedded_broker"] != nil {
		r.wait("the broker connection", r.app.LinkUp)
	}
	return r
}

func (r *rig) write(s settings) {
	r.t.Helper()
	raw, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.file, raw, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// wait waits until a condition holds.
func (r *rig) wait(what string, holds func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(testwait.Patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			r.t.Fatalf("waited in vain for %s; log:\n%s", what, r.log.String())
		}
	}
}

// car starts the gateway of a car and waits until its session runs.
func (r *rig) car(name string) *gateway.Gateway {
	r.t.Helper()
	return r.carAs(name, "", "")
}

// carAs is car for a user of the broker.
func (r *rig) carAs(name, user, password string) *gateway.Gateway {
	r.t.Helper()
	g := r.gateway(name, gateway.Broker{Username: user, Password: password})
	g.Status(teleop, []byte(`{"hello":1}`), time.Time{})
	r.wait("the session of "+name, func() bool { return r.state(name) == "running" })
	return g
}

func (r *rig) gateway(name string, b gateway.Broker) *gateway.Gateway {
	r.t.Helper()
	b.Address = r.app.BrokerAddr().String()
	g, err := gateway.Start(gateway.Settings{
		Car: fleet.CarID{Company: "acme", Car: name}, Broker: b,
		Core: gateway.Options{Timing: quick, Steady: true},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(g.Close)
	return g
}

func (r *rig) state(name string) string {
	var c struct {
		State string `json:"state"`
	}
	r.get("/api/v1/cars/"+name, &c)
	return c.State
}

// answer is what a request brought.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) text() string { return strings.TrimSpace(string(a.body)) }

// do makes a request; header pairs are key, value, …
func (r *rig) do(method, path, body string, header ...string) answer {
	r.t.Helper()
	req, err := http.NewRequest(method, r.base+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, raw}
}

// operate makes a request without token that changes something.
func (r *rig) operate(method, path, body string) answer {
	r.t.Helper()
	return r.do(method, path, body, "X-External-Server", "test")
}

func (r *rig) get(path string, into any) {
	r.t.Helper()
	a := r.do(http.MethodGet, path, "")
	if a.status != http.StatusOK {
		r.t.Fatalf("GET %s: %d %s", path, a.status, a.text())
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		r.t.Fatalf("GET %s: %v in %s", path, err, a.body)
	}
}

// sse is an event stream that is read.
type sse struct {
	t      *testing.T
	resp   *http.Response
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

type sent struct {
	id, kind string
	data     map[string]any
}

func (r *rig) stream(path string, header ...string) *sse {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testwait.Patience)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		r.t.Fatalf("GET %s: %d", path, resp.StatusCode)
	}
	s := &sse{t: r.t, resp: resp, lines: bufio.NewScanner(resp.Body), cancel: cancel}
	r.t.Cleanup(s.close)
	return s
}

func (s *sse) close() { s.cancel(); s.resp.Body.Close() }

// next returns the next event for which want holds; nil wants any.
func (s *sse) next(want func(sent) bool) sent {
	s.t.Helper()
	var ev sent
	for s.lines.Scan() {
		key, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch key {
		case "id":
			ev.id = value
		case "event":
			ev.kind = value
		case "data":
			if err := json.Unmarshal([]byte(value), &ev.data); err != nil {
				s.t.Fatalf("%v in %s", err, value)
			}
		case "":
			if ev.kind != "" && (want == nil || want(ev)) {
				return ev
			}
			ev = sent{}
		}
	}
	s.t.Fatalf("the stream ended: %v", s.lines.Err())
	return ev
}

func kind(k, car string) func(sent) bool {
	return func(ev sent) bool { return ev.kind == k && fmt.Sprint(ev.data["car"]) == car }
}
