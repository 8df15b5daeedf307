package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi/store"
	"external-server/internal/link"
	"external-server/internal/module"
	"external-server/internal/support/testwait"
)

// refusingLink refuses one car.
type refusingLink struct {
	link.Link
	car string
}

var errRefusedCar = errors.New("refused")

func (l refusingLink) Attach(id fleet.CarID, r link.Receiver) (link.Port, error) {
	if id.Car == l.car {
		return nil, errRefusedCar
	}
	return l.Link.Attach(id, r)
}

// TestFailedStartEndsTheCars: when one car cannot be started, those started before it
// have ended before what they use is closed.
func TestFailedStartEndsTheCars(t *testing.T) {
	m := idleModule{held: "a", closing: make(chan struct{}), release: make(chan struct{}), once: new(sync.Once)}
	close(m.release) // its end is noted, and not held up
	s := newServerAt(t, m, func(l link.Link) link.Link { return refusingLink{l, "b"} })
	if err := s.Run(t.Context()); !errors.Is(err, errRefusedCar) {
		t.Errorf("Run returned %v", err)
	}
	select {
	case <-m.closing:
	default:
		t.Error("a car still runs")
	}
}

// TestBrokenModulePreventsTheStart: also one of "*", whose cars come later.
func TestBrokenModulePreventsTheStart(t *testing.T) {
	for _, car := range []string{"a", "*"} {
		path := filepath.Join(t.TempDir(), "config.json")
		text := `{"company_name": "company", "embedded_broker": {"listen": "127.0.0.1:0"},
			"common_modules": {"1": {"builtin": "mission"}}, "cars": {"` + car + `": {}}}`
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := config.Load(path, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		a, err := New(t.Context(), Options{Config: cfg, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Errorf("car %q: the server starts although its module has no api_url", car)
			if err := a.Close(t.Context()); err != nil {
				t.Error(err)
			}
		} else if !strings.Contains(err.Error(), "api_url") {
			t.Errorf("car %q: %v", car, err)
		}
	}
}

// TestCarsAreServedWithoutTheStore: the database of the HTTP API does not answer at the
// start. Cars are served, the HTTP API says 503 and why, and so does the readiness.
func TestCarsAreServedWithoutTheStore(t *testing.T) {
	s := &server{path: filepath.Join(t.TempDir(), "config.json"), t: t}
	text := `{"company_name": "company", "embedded_broker": {"listen": "127.0.0.1:0"}, "common_modules": {"5": {"command": ["true"]}}, "cars": {"a": {}},
		"http_api": {"listen": "127.0.0.1:0", "store": "postgres://user@127.0.0.1:1/fleet"}}`
	if err := os.WriteFile(s.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(s.path, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	s.App, err = New(t.Context(), Options{Config: cfg, Logger: slog.New(slog.DiscardHandler),
		Module: func(config.Module) (module.Module, error) { return idleModule{}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	if err := s.peer.Subscribe(1, "company/a/external_server"); err != nil {
		t.Fatal(err)
	}
	s.connect("a", "session1")
	s.answered("session1")
	// The start waits for the first attempt for 2 s only.
	testwait.Until(t, "the server has tried to reach the database", func() bool { return s.api.Stats().StoreFault != store.FaultLoading })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + s.HTTPAPIAddr().String() + "/v2/protocol/cars")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "not reachable") {
		t.Errorf("the HTTP API: %d %s, %v", response.StatusCode, body, err)
	}
	var reasons []string
	for _, c := range (operator{s.App}).Components() {
		if !c.Ready {
			reasons = append(reasons, c.Name+": "+c.Reason)
		}
	}
	if got := strings.Join(reasons, "; "); got != "http api: message store: unavailable" {
		t.Errorf("not ready: %q", got)
	}
}

// TestStopOfAServerThatStops: a stop that comes when the server ends already does not claim
// to decide how.
func TestStopOfAServerThatStops(t *testing.T) {
	m := idleModule{held: "a", closing: make(chan struct{}), release: make(chan struct{}), once: new(sync.Once)}
	s := newServer(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	testwait.Until(t, "the broker is reached", s.LinkUp)
	cancel()
	<-m.closing
	if s.Stop(true) || s.Stop(false) {
		t.Error("a stop claims to be the one that ends the server")
	}
	close(m.release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
