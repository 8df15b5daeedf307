package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/support/postgrestest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(killedStore); path != "" {
		fmt.Fprintln(os.Stderr, storeUntilKilled(path))
		os.Exit(1)
	}
	code := m.Run()
	sharedPostgres.Close()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// sharedPostgres starts when the first test wants a database.
var sharedPostgres postgrestest.Server

var car1 = fleet.CarID{Company: "company", Car: "car_1"}

func tempStore(t testing.TB) config.Secret {
	return config.NewSecret("sqlite:" + filepath.Join(t.TempDir(), "fleet.db"))
}

// forEachStore runs a test over SQLite and over a real PostgreSQL.
func forEachStore(t *testing.T, test func(t *testing.T, store string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, tempStore(t).Reveal()) })
	t.Run("postgres", func(t *testing.T) { test(t, sharedPostgres.Database(t)) })
}

func startServer(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Config.Listen == "" {
		o.Config.Listen = "127.0.0.1:0"
	}
	if o.Config.Store.IsZero() {
		o.Config.Store = tempStore(t)
	}
	s, err := New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func testClient(t testing.TB) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func status(module, typ int64, role, data string) Message {
	return Message{DeviceID: DeviceID{ModuleID: module, Type: typ, Role: role, Name: role + " name"},
		Payload: Payload{MessageType: TypeStatus, Encoding: EncodingJSON, Data: []byte(data)}}
}

func command(module, typ int64, role, data string) Message {
	m := status(module, typ, role, data)
	m.Payload.MessageType = TypeCommand
	return m
}

// logLines collects log records.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logLines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func (l *logLines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
