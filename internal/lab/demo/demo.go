package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"external-server/internal/module/check"
)

// Options of Run.
type Options struct {
	Cars int // 1 to 500; those beyond the first three drive tours of their own and are not narrated
	// Port is that of the broker; the HTTP API and the dashboard have the next two. All
	// must be free. 0: 1883, 8080 and 8090, or others, which are said, when they are taken.
	Port     int
	Module   *Module       // one more module; nil: none
	Replicas int           // servers that share the cars, 1 to 5
	Etcd     string        // path of etcd, for several replicas
	Duration time.Duration // 0: until the context ends
	Out      io.Writer     // what the person reads
	Err      io.Writer     // what broker and server have to say: errors
	// Program is the external-server: it is run as demo-part broker and demo-part server.
	Program string
	// FinalStop is the signal that stops a server for good.
	FinalStop os.Signal
	Pace      int // how many seconds pass in the simulated town per second; 0: 8
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

// Run starts a broker, the server and three simulated cars, tells on Out what happens,
// restarts the server once, and returns when the context or the duration ends. Then none
// of its processes is left.
func Run(ctx context.Context, opts Options) error {
	if opts.Pace <= 0 {
		opts.Pace = 8
	}
	if err := opts.checkReplicas(); err != nil {
		return fmt.Errorf("demo: %w", err)
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
	show := run
	if opts.Replicas > 1 {
		show = runReplicas
	}
	if err := show(ctx, &opts, dir); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

func run(ctx context.Context, opts *Options, dir string) (err error) {
	ctx, failed := context.WithCancelCause(ctx) // without server or broker there is nothing to show
	defer failed(nil)
	n := newNarrator(opts.Out)
	at, broker, server, err := startParts(ctx, opts, dir, &ward{opts: opts, narrator: n, failed: failed})
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	defer func() { err = errors.Join(err, broker.stop(nil)) }()
	go func() {
		select {
		case <-broker.done:
			failed(broker.ended())
		case <-ctx.Done():
		}
	}()
	// The cars go home before the server stops, so that it can be seen stopping.
	stopServer := sync.OnceValue(server.stop)
	defer func() { err = errors.Join(err, stopServer()) }()
	n.welcome(opts, at)
	if opts.Open != nil && ctx.Err() == nil {
		opts.Open("http://" + at.admin + "/")
	}
	running := ctx
	if opts.Duration > 0 {
		var cancel context.CancelFunc
		running, cancel = context.WithTimeout(ctx, opts.Duration)
		defer cancel()
	}
	var restart sync.WaitGroup
	restart.Go(func() {
		if err := server.restartOnce(running); err != nil {
			failed(err)
		}
	})
	f := &fleetOfCars{narrator: n, at: at, server: server, pace: opts.Pace, module: opts.Module, names: carNames(opts.Cars)}
	err = f.run(running, func() {
		restart.Wait()
		n.ends("stopping: every car is told, every module sees its devices leave")
		_ = stopServer() // its error is returned below
	})
	n.summary()
	return errors.Join(err, unlessInterrupted(ctx, context.Cause(ctx)))
}

// attempts is how often broker and server are started when other programs take the ports
// that were free before.
const attempts = 5

// startParts starts the broker and the server, which is connected when it returns: a
// gateway whose Connect is not heard tries again only after 15 s.
func startParts(ctx context.Context, opts *Options, dir string, server *ward) (at addresses, broker *part, _ *ward, err error) {
	for attempt := 1; ; attempt++ {
		if at, err = chooseAddresses(opts.Port); err != nil {
			return at, nil, nil, err
		}
		if server.config, err = configuration(dir, opts, at); err != nil {
			return at, nil, nil, err
		}
		server.admin = at.admin
		if broker, err = startPart(opts, "broker", "--listen", at.broker); err != nil {
			return at, nil, nil, err
		}
		failed := broker
		if err = broker.wait(ctx, func(context.Context) bool { return true }); err == nil {
			if failed, err = server.start(ctx); err == nil {
				return at, broker, server, nil
			}
		}
		if !errors.Is(err, errEnded) || opts.Port > 0 || attempt == attempts {
			if failed != nil && ctx.Err() == nil {
				failed.said.pass()
			}
			_, _ = server.stop(), broker.stop(nil)
			return at, nil, nil, err
		}
		server.take()
		_ = broker.stop(nil) // the next one may be luckier
	}
}

// unlessInterrupted returns what has ended the demo, nil if a person has.
func unlessInterrupted(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) || ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return nil
	}
	return err
}

// configuration writes the file a user would write.
func configuration(dir string, opts *Options, at addresses) (path string, err error) {
	file, err := settings(dir, "server", opts, at)
	if err != nil {
		return "", err
	}
	return write(dir, "config", file)
}

// settings are what is in the file of a server of that name.
func settings(dir, name string, opts *Options, at addresses) (file map[string]any, err error) {
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
	host, text, err := net.SplitHostPort(at.broker)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"company_name":           company,
		"external_communication": map[string]any{"protocol": "MQTT", "server_address": host, "server_port": port},
		"state_directory":        filepath.Join(dir, "state-"+name),
		"http_api":               map[string]any{"listen": at.api, "store": "sqlite:" + filepath.Join(dir, "fleet.db")},
		"admin":                  map[string]any{"listen": at.admin},
		"common_modules":         modules,
		"cars":                   cars,
		"logging":                map[string]any{"console": map[string]any{"use": true, "level": "ERROR"}, "file": map[string]any{"use": false, "level": "INFO"}},
	}, nil
}

// exampleModule is the number of the example module (MM-50), which sends a command
// every second unless told otherwise.
const exampleModule = 1000
