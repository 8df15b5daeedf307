package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"external-server/internal/car"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/logging"
	"external-server/internal/observe"
	"external-server/internal/session"
)

// restartPause is waited before a car whose goroutine failed is built anew.
const restartPause = time.Second

// roster holds the cars that are served. Cars come from the configuration or,
// with "*", from the first message of their gateway, and go by a reload, by
// idleness or at stop.
type roster struct {
	log       *slog.Logger
	limit     logging.Limiter // of what strangers cause
	libraries *libraries
	link      link.Link    // set before start
	hub       *observe.Hub // sees what happens to the cars; nil: nobody does

	turnover sync.Mutex // one replaces cars at a time; taken before mu

	mu      sync.Mutex
	cfg     *config.Config  // in force
	ctx     context.Context // of start; nil: not running
	entries map[string]*entry
	order   []string // of the configured cars
	any     anyCars
	// replacing names the cars that a reload is about to serve: "*" must not take
	// them in the moment between the old and the new one.
	replacing map[string]bool
	running   sync.WaitGroup
	errs      []error // of cars that did not end cleanly
}

// entry is one car and what it was made from.
type entry struct {
	id     fleet.CarID
	cfg    config.Car
	found  bool // by "*"
	car    *car.Car
	cancel context.CancelCauseFunc
	done   chan struct{}
}

func newRoster(cfg *config.Config, log *slog.Logger, libs *libraries) *roster {
	return &roster{cfg: cfg, log: log, libraries: libs, entries: make(map[string]*entry)}
}

func (r *roster) config() *config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cfg
}

// build opens the modules of a car and makes the car; nothing runs yet.
func (r *roster) build(ctx context.Context, cfg *config.Config, cc config.Car, found bool) (*entry, error) {
	id := fleet.CarID{Company: cfg.Company, Car: cc.Name}
	var bindings []car.Binding
	fail := func(err error) (*entry, error) {
		for _, b := range bindings {
			err = errors.Join(err, b.Instance.Close(ctx))
		}
		return nil, err
	}
	for _, m := range cc.Modules {
		b, err := r.libraries.open(ctx, id, m, found)
		if err != nil {
			return fail(err)
		}
		bindings = append(bindings, b)
	}
	var observer car.Observer
	if r.hub != nil {
		observer = r.hub.Car(id)
	}
	c, err := car.New(car.Options{
		ID:       id,
		Observer: observer,
		Limits:   carLimits(cfg),
		Modules:  bindings,
		Logger:   r.log,
	})
	if err != nil {
		return fail(err)
	}
	return &entry{id: id, cfg: cc, found: found, car: c, done: make(chan struct{})}, nil
}

func carLimits(cfg *config.Config) car.Limits {
	return car.Limits{
		Session: session.Options{
			MessageTimeout:     cfg.MessageTimeout,
			SessionTimeout:     cfg.SessionTimeout,
			SendInvalidCommand: cfg.SendInvalidCommand,
			MaxAhead:           cfg.Limits.StatusesAhead,
			AdmissionTimeout:   cfg.Limits.AdmissionTimeout,
		},
		Payload:        cfg.Limits.Payload,
		MessagesPerSec: cfg.Limits.MessagesPerSec,
		MessageBurst:   cfg.Limits.MessageBurst,
		Queue:          cfg.Limits.ModuleQueue,
		Stop:           cfg.Limits.Stop,
	}
}

// add builds a configured car before start.
func (r *roster) add(ctx context.Context, cc config.Car) error {
	e, err := r.build(ctx, r.cfg, cc, false)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries[cc.Name] = e
	r.order = append(r.order, cc.Name)
	return nil
}

// start attaches and runs all cars; they end with ctx or by stopCar.
func (r *roster) start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ctx = ctx
	for _, name := range r.order {
		if err := r.launch(r.entries[name]); err != nil {
			return err
		}
	}
	return r.startAny()
}

// launch attaches one car and runs it in a goroutine that running waits for. The
// caller holds mu.
func (r *roster) launch(e *entry) error {
	if err := e.car.Attach(r.link); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(r.ctx)
	e.cancel = cancel
	r.running.Go(func() {
		defer close(e.done)
		defer cancel(nil)
		err, failed := runCar(ctx, e.car, r.log)
		if err != nil {
			r.endedBadly(err)
		}
		if failed {
			r.rebuild(e)
		}
	})
	return nil
}

// endedBadly takes what a car could not end cleanly: part of the error of stop, or
// said at once for a car that ends before.
func (r *roster) endedBadly(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		r.errs = append(r.errs, err)
		return
	}
	r.log.Warn("a car did not end cleanly", "error", err)
}

// runCar runs a car and turns a panic into an error: a defect met by one car
// must not end the others (DEF-29).
func runCar(ctx context.Context, c *car.Car, log *slog.Logger) (err error, failed bool) {
	defer func() {
		if p := recover(); p != nil {
			failed = true
			stack := debug.Stack()
			if d, ok := p.(*car.Defect); ok {
				stack = d.Stack
			}
			log.Error("a car failed by a defect of the server and is started anew; please report this",
				"car", c.ID().Car, "defect", fmt.Sprint(p), "where", origin(stack))
		}
	}()
	return c.Run(ctx), false
}

// origin names the function and line that panicked, without a stack trace.
func origin(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "panic(") && i+3 < len(lines) {
			return strings.TrimSpace(lines[i+2]) + " " + strings.TrimSpace(lines[i+3])
		}
	}
	return "unknown"
}

// rebuild replaces a failed car by a fresh one after a pause.
func (r *roster) rebuild(e *entry) {
	r.mu.Lock()
	ctx := r.ctx
	r.mu.Unlock()
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), restartPause)
	if err := e.car.Abandon(bound); err != nil {
		r.log.Warn("what the failed car held did not end cleanly", "car", e.id.Car, "error", err)
	}
	<-bound.Done()
	cancel()
	if ctx.Err() != nil || !r.serves(e) {
		return // stopped or replaced meanwhile
	}
	fresh, err := r.build(ctx, r.config(), e.cfg, e.found) // may take long, so mu is not held
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && (ctx.Err() != nil || r.entries[e.id.Car] != e) {
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		if err := fresh.car.Close(stopped); err != nil {
			r.log.Warn("a car did not end cleanly", "error", err)
		}
		return
	}
	if err == nil {
		fresh.car.Configure(carLimits(r.cfg)) // of a reload meanwhile
		err = r.launch(fresh)
	}
	if err != nil {
		if r.entries[e.id.Car] == e {
			delete(r.entries, e.id.Car)
		}
		r.log.Error("the failed car could not be started anew; reload the configuration to try again", "car", e.id.Car, "error", err)
		return
	}
	r.entries[e.id.Car] = fresh
}

// serves tells whether the entry is still the one of its car.
func (r *roster) serves(e *entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries[e.id.Car] == e
}

// stop waits for all cars after the context of start has ended.
func (r *roster) stop() error {
	r.stopAny()
	r.running.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.errs...)
}

// remove ends the cars together and waits for them.
func (r *roster) remove(names ...string) {
	var ending []*entry
	r.mu.Lock()
	for _, name := range names {
		if e := r.entries[name]; e != nil && e.cancel != nil {
			e.cancel(car.ErrReload)
			ending = append(ending, e)
		}
		delete(r.entries, name)
		r.order = slices.DeleteFunc(r.order, func(n string) bool { return n == name })
	}
	r.mu.Unlock()
	for _, e := range ending {
		<-e.done
	}
}

// forget drops what is remembered of cars that are no longer served.
func (r *roster) forget(names ...string) {
	if r.hub == nil {
		return
	}
	for _, name := range names {
		if _, served := r.find(name); !served {
			r.hub.Forget(name)
		}
	}
}

// discard releases cars that were never started.
func (r *roster) discard(ctx context.Context) error {
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, e := range r.entries {
		if e.cancel == nil {
			errs = append(errs, e.car.Close(stopped))
		}
	}
	clear(r.entries)
	return errors.Join(errs...)
}

// find returns the car of that name.
func (r *roster) find(name string) (*car.Car, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.entries[name]
	if !ok {
		return nil, false
	}
	return e.car, true
}

func (r *roster) snapshots() []car.Snapshot {
	r.mu.Lock()
	cars := make([]*car.Car, 0, len(r.entries))
	for _, name := range r.order {
		if e := r.entries[name]; e != nil {
			cars = append(cars, e.car)
		}
	}
	var found []*entry
	for _, e := range r.entries {
		if e.found {
			found = append(found, e)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(found, func(a, b *entry) int { return strings.Compare(a.id.Car, b.id.Car) })
	for _, e := range found {
		cars = append(cars, e.car)
	}
	out := make([]car.Snapshot, len(cars))
	for i, c := range cars {
		out[i] = c.Snapshot()
	}
	return out
}

// sameCar tells whether a running car needs no change for the configuration. Where
// in the file a module is written makes no difference.
func sameCar(a, b config.Car) bool {
	return a.Name == b.Name && slices.EqualFunc(a.Modules, b.Modules, func(x, y config.Module) bool {
		x.KeyPath = y.KeyPath
		return reflect.DeepEqual(x, y)
	})
}
