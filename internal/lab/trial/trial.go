// Package trial runs one module with one simulated car, for its author: the real
// server with its embedded broker, the module in a process of its own, a gateway with
// one device, and every status and command in words. `external-server module try` is
// made of it.
//
// It may import app, config, fleet, gateway and module/check.
package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"external-server/internal/app"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/module/check"
)

// Options of Run.
type Options struct {
	Target check.Target
	// Library is the path of a shared library, Command an executable and its
	// arguments: what Target runs.
	Library string
	Command []string
	// Statuses are sent one after the other and then from the start, at least one.
	Statuses [][]byte
	Every    time.Duration // pause between two statuses; 0: a second
	// DeviceType of the simulated device; negative: the first one that the module
	// serves.
	DeviceType int64
	Role       string        // of the device; empty: "device"
	Duration   time.Duration // 0: until the context ends
	Out        io.Writer     // what the author reads
}

// names of the one company and car
const (
	company = "try"
	carName = "car_1"
)

// startTime bounds the time in which the module must be there.
const startTime = 30 * time.Second

// Run runs the module until ctx or the duration ends. An error says that the module
// cannot be run, or that it accepted nothing of what was sent.
func Run(parent context.Context, o Options) error {
	if o.Every <= 0 {
		o.Every = time.Second
	}
	if o.Role == "" {
		o.Role = "device"
	}
	ctx, cancel := context.WithTimeout(parent, startTime)
	number, types, err := o.Target.Probe(ctx)
	cancel()
	if err != nil {
		return err
	}
	if want := o.Target.Number; want != 0 && want != number {
		return fmt.Errorf("%s is module %d, expected %d", o.Target.Name, number, want)
	}
	if len(types) == 0 {
		return fmt.Errorf("%s serves no device type of 0 to 255", o.Target.Name)
	}
	kind := types[0]
	if o.DeviceType >= 0 {
		kind = uint32(o.DeviceType) // what the module does with one that it does not serve can be tried
	}
	t := &trial{opts: o, out: o.Out, start: time.Now(), device: fleet.Device{Module: number, Type: kind, Role: o.Role, Name: "Simulated " + o.Role}}
	t.say("module", "%s is module %d and serves the device types %s", o.Target.Name, number, listed(types))
	if !slices.Contains(types, kind) {
		t.say("module", "the simulated device has the type %d, which is not among them", kind)
	}
	return t.run(parent)
}

// listed shortens a list of types.
func listed(types []uint32) string {
	const most = 8
	if len(types) > most {
		return fmt.Sprintf("%v and %d more", types[:most], len(types)-most)
	}
	return fmt.Sprint(types)
}

// trial is one run.
type trial struct {
	opts   Options
	device fleet.Device

	mu                 sync.Mutex
	out                io.Writer
	start              time.Time
	answered, commands int
	complaints         int // lines of the server about the module
}

func (t *trial) run(parent context.Context) (err error) {
	dir, err := os.MkdirTemp("", "external-server-try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cfg, err := t.configuration(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	server, err := app.New(ctx, app.Options{Config: cfg, Logger: slog.New(&complaints{trial: t})})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var served error
	var running sync.WaitGroup
	running.Go(func() {
		served = server.Run(serving)
		cancel()
	})
	defer func() {
		stop()
		running.Wait()
		err = errors.Join(err, served)
		t.summary()
		if err == nil && t.answered == 0 && parent.Err() == nil {
			err = errors.New("no status was answered")
		}
	}()
	for !server.LinkUp() && pause(ctx, 10*time.Millisecond) {
	}
	if t.opts.Duration > 0 { // from now on: the author waits for the module, not for the start
		defer time.AfterFunc(t.opts.Duration, cancel).Stop()
	}
	g, err := gateway.Start(gateway.Settings{
		Car: fleet.CarID{Company: company, Car: carName}, Broker: gateway.Broker{Address: server.BrokerAddr().String()}, Observe: t.observe,
		Core: gateway.Options{Timing: gateway.Timing{QueuePoll: 50 * time.Millisecond}}, // a real one may take 3 s to react
	})
	if err != nil {
		return err
	}
	defer g.Close()
	for i := 0; ; i++ {
		status := t.opts.Statuses[i%len(t.opts.Statuses)]
		t.say("device", "reports %s", shown(status))
		g.Status(t.device, status, time.Time{})
		if !pause(ctx, t.opts.Every) {
			return nil
		}
	}
}

// configuration writes and reads the file a user would write.
func (t *trial) configuration(dir string) (*config.Config, error) {
	settings := json.RawMessage("{}")
	var err error
	if len(t.opts.Target.Config) > 0 {
		if settings, err = pairs(t.opts.Target); err != nil {
			return nil, err
		}
	}
	module := map[string]any{"config": settings}
	if t.opts.Library != "" {
		path, err := filepath.Abs(t.opts.Library)
		if err != nil {
			return nil, err
		}
		module["lib_path"] = path
	} else {
		module["command"] = t.opts.Command
	}
	off := map[string]any{"use": false, "level": "INFO"}
	text, err := json.Marshal(map[string]any{
		"company_name":    company,
		"embedded_broker": map[string]any{"listen": "127.0.0.1:0"},
		"common_modules":  map[string]any{strconv.Itoa(int(t.device.Module)): module},
		"cars":            map[string]any{carName: map[string]any{}},
		"logging":         map[string]any{"console": off, "file": off},
	})
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

// pairs is the configuration of the module, in order.
func pairs(target check.Target) (json.RawMessage, error) {
	out := []byte("{")
	for i, p := range target.Config {
		if i > 0 {
			out = append(out, ',')
		}
		key, err := json.Marshal(p.Key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(p.Value)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, key...), ':'), value...)
	}
	return append(out, '}'), nil
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
