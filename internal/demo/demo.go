package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"external-server/internal/app"
	"external-server/internal/config"
)

// Options of Run.
type Options struct {
	Library  string        // the example module; empty: without it
	Duration time.Duration // 0: until the context ends
	Out      io.Writer     // what the person reads
	Logger   *slog.Logger  // of the server
	Pace     int           // how many seconds pass in the simulated town per second; 0: 8
}

// company of the demo.
const company = "demo"

func carNames() []string { return []string{"car_a", "car_b", "car_c"} }

// Run starts the server with its embedded parts and three simulated cars, tells
// on Out what happens, and returns when the context or the duration ends.
func Run(ctx context.Context, opts Options) error {
	if opts.Pace <= 0 {
		opts.Pace = 8
	}
	dir, err := os.MkdirTemp("", "external-server-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer os.RemoveAll(dir)
	cfg, err := configuration(dir, opts.Library)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	server, err := app.New(ctx, app.Options{Config: cfg, Logger: opts.Logger})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if opts.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opts.Duration)
		defer cancel()
	}
	ctx, serverEnded := context.WithCancel(ctx) // without the server there is nothing to show
	defer serverEnded()
	// The cars go home before the server stops, so that it can be seen stopping.
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	var serverErr error
	var running sync.WaitGroup
	running.Go(func() {
		serverErr = server.Run(serverCtx)
		serverEnded()
	})

	n := newNarrator(opts.Out)
	n.welcome(server)
	// A gateway whose Connect is not heard tries again only after 15 s.
	for !server.LinkUp() && pause(ctx, 10*time.Millisecond) {
	}
	f := &fleetOfCars{narrator: n, server: server, pace: opts.Pace, example: opts.Library != ""}
	carsErr := f.run(ctx, func() {
		n.say("", "stopping: every car is told, every module sees its devices leave")
		stopServer()
		running.Wait()
	})
	n.summary()
	if carsErr != nil {
		return fmt.Errorf("demo: %w", carsErr)
	}
	if serverErr != nil {
		return fmt.Errorf("demo: %w", serverErr)
	}
	return nil
}

// configuration writes and reads the file a user would write.
func configuration(dir, library string) (*config.Config, error) {
	modules := map[string]any{
		"1": map[string]any{"builtin": "mission"},
		"2": map[string]any{"builtin": "io"},
	}
	if library != "" {
		modules["1000"] = map[string]any{"lib_path": library, "config": map[string]any{"command_interval_ms": 4000}}
	}
	cars := make(map[string]any)
	for _, name := range carNames() {
		cars[name] = map[string]any{}
	}
	file := map[string]any{
		"company_name":    company,
		"embedded_broker": map[string]any{"listen": freeAddress("127.0.0.1:1883")},
		"http_api":        map[string]any{"listen": freeAddress("127.0.0.1:8080"), "store": "sqlite:" + filepath.Join(dir, "fleet.db")},
		"admin":           map[string]any{"listen": freeAddress("127.0.0.1:8090")},
		"common_modules":  modules,
		"cars":            cars,
		"logging":         map[string]any{"console": map[string]any{"use": false, "level": "WARNING"}, "file": map[string]any{"use": false, "level": "INFO"}},
	}
	text, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	cfg, _, err := config.Load(path, func(string) (string, bool) { return "", false })
	return cfg, err
}

// freeAddress returns the address when it is free, else one with a
// port the system chooses.
func freeAddress(preferred string) string {
	l, err := net.Listen("tcp", preferred)
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return preferred // the server will say what is wrong
		}
	}
	defer l.Close()
	return l.Addr().String()
}
