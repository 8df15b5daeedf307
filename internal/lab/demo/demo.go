package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"external-server/internal/app"
	"external-server/internal/config"
	"external-server/internal/logging"
	"external-server/internal/module/check"
)

// Options of Run.
type Options struct {
	Cars int // 1 to 500; those beyond the first three drive tours of their own and are not narrated
	// Port is that of the broker; the HTTP API and the dashboard have the next two. All
	// must be free. 0: 1883, 8080 and 8090, or others, which are said, when they are taken.
	Port     int
	Module   *Module       // one more module; nil: none
	Duration time.Duration // 0: until the context ends
	Out      io.Writer     // what the person reads
	Logger   *slog.Logger  // of the server
	Logs     *logging.Logs // what Logger writes to, so that levels can be changed; may be nil
	Version  string        // of the server, as the dashboard shows it
	Pace     int           // how many seconds pass in the simulated town per second; 0: 8
	// Open is called with the address of the dashboard once it answers; nil: it is not called.
	Open func(url string)
}

// Module is a module of the person's own. One device of one car reports to it.
type Module struct {
	Target   check.Target
	Library  string   // path of a shared library, or
	Command  []string // an executable and its arguments
	Statuses [][]byte // reported in turn; none: {"pressed": true} and {"pressed": false}

	number     int32
	deviceType uint32
}

// Bounds of the demo.
const (
	maxCars  = 500
	narrated = 3 // cars whose life is told
)

// probe finds out number and device type of the module.
func (m *Module) probe(ctx context.Context) error {
	number, types, err := m.Target.Probe(ctx)
	switch {
	case err != nil:
		return err
	case number == 1 || number == 2:
		return fmt.Errorf("%s is module %d, which the demo has already (mission is 1, io is 2)", m.Target.Name, number)
	case len(types) == 0:
		return fmt.Errorf("%s serves no device type of 0 to 255", m.Target.Name)
	}
	m.number, m.deviceType = number, types[0]
	if len(m.Statuses) == 0 {
		m.Statuses = [][]byte{[]byte(`{"pressed": true}`), []byte(`{"pressed": false}`)}
	}
	return nil
}

// company of the demo.
const company = "demo"

// carNames are car_a to car_z, then car_27 and so on.
func carNames(n int) (names []string) {
	for i := range n {
		if i < 26 {
			names = append(names, fmt.Sprintf("car_%c", 'a'+i))
		} else {
			names = append(names, fmt.Sprintf("car_%d", i+1))
		}
	}
	return names
}

// Run starts the server with its embedded parts and three simulated cars, tells
// on Out what happens, and returns when the context or the duration ends.
func Run(ctx context.Context, opts Options) error {
	if opts.Pace <= 0 {
		opts.Pace = 8
	}
	if opts.Cars < 1 || opts.Cars > maxCars {
		return fmt.Errorf("demo: %d cars: expected 1 to %d", opts.Cars, maxCars)
	}
	if opts.Module != nil {
		if err := opts.Module.probe(ctx); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "external-server-demo-")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer os.RemoveAll(dir)
	at, err := chooseAddresses(opts.Port)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	cfg, err := configuration(dir, &opts, at)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	server, err := app.New(ctx, app.Options{Config: cfg, Logger: opts.Logger, Logs: opts.Logs, Version: opts.Version})
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
	n.welcome(server, &opts, at.notes)
	// A gateway whose Connect is not heard tries again only after 15 s.
	for !server.LinkUp() && pause(ctx, 10*time.Millisecond) {
	}
	if opts.Open != nil && ctx.Err() == nil {
		opts.Open("http://" + server.AdminAddr().String() + "/")
	}
	f := &fleetOfCars{narrator: n, server: server, pace: opts.Pace, module: opts.Module, names: carNames(opts.Cars)}
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
func configuration(dir string, opts *Options, at addresses) (*config.Config, error) {
	modules := map[string]any{
		"1": map[string]any{"builtin": "mission"},
		"2": map[string]any{"builtin": "io"},
	}
	if m := opts.Module; m != nil {
		entry := map[string]any{"command": m.Command, "config": map[string]any{}}
		if m.Library != "" {
			path, err := filepath.Abs(m.Library)
			if err != nil {
				return nil, err
			}
			entry = map[string]any{"lib_path": path, "config": map[string]any{}}
		}
		if m.number == exampleModule {
			entry["config"] = map[string]any{"command_interval_ms": 4000}
		}
		modules[strconv.Itoa(int(m.number))] = entry
	}
	cars := make(map[string]any)
	for _, name := range carNames(opts.Cars) {
		cars[name] = map[string]any{}
	}
	file := map[string]any{
		"company_name":    company,
		"embedded_broker": map[string]any{"listen": at.broker},
		"http_api":        map[string]any{"listen": at.api, "store": "sqlite:" + filepath.Join(dir, "fleet.db")},
		"admin":           map[string]any{"listen": at.admin},
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

// exampleModule is the number of the example module (MM-50), which sends a command
// every second unless told otherwise.
const exampleModule = 1000
