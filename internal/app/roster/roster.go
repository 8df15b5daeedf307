// Package roster holds the cars that are served: which there are, who sits in their seats,
// and what a reload, an idle gateway, a defect or a shard that moves changes of that.
package roster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"external-server/internal/app/journals"
	"external-server/internal/app/modules"
	"external-server/internal/car"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/logging"
	"external-server/internal/observe"
	"external-server/internal/session"
	"external-server/internal/session/record"
)

// restartPause is waited before a car that met a defect gets a fresh occupant.
// It grows to restartPauseMax while this fails.
const (
	restartPause    = time.Second
	restartPauseMax = time.Minute
)

// Options of New.
type Options struct {
	// Config is in force at the start. With its block cluster, replicas share the cars:
	// those of the shards in service here are served.
	Config   *config.Config
	Logger   *slog.Logger
	Modules  *modules.Set
	Journals *journals.Journals
	Link     link.Link
	// Hub sees what happens to the cars; nil: there is none.
	Hub *observe.Hub
	// Elsewhere gets the Connect of a car of "*" whose shard is not in service here; it must
	// not wait and not keep it. Nil: there is no such car.
	Elsewhere func(id fleet.CarID, connect []byte)
}

// Roster holds the cars that are served. Cars come from the configuration or,
// with "*", from the first message of their gateway, and go by a reload, by
// idleness or at stop. Its methods may be called concurrently.
type Roster struct {
	log       *slog.Logger
	limit     logging.Limiter // of what strangers cause
	modules   *modules.Set
	link      link.Link
	hub       *observe.Hub // sees what happens to the cars; nil: there is none
	journals  *journals.Journals
	shared    bool // replicas share the cars: those of the shards in service are served
	elsewhere func(id fleet.CarID, connect []byte)

	turnover sync.Mutex // one changes occupants of seats at a time; taken before mu

	mu       sync.Mutex
	cfg      *config.Config  // in force
	ctx      context.Context // of start; nil: not running
	entries  map[string]*entry
	order    []string                     // of the configured cars
	named    map[string]bool              // those in order
	labels   map[string]map[string]string // of the configured cars, by car; AnyCarName: of those found
	any      anyCars
	running  sync.WaitGroup
	discards sync.Once // the line of mayDiscard
	errs     []error   // of cars that did not end cleanly
}

// entry is one car that is served, or will be after start.
type entry struct {
	id      fleet.CarID
	seat    *car.Seat
	waiting []car.Binding // the modules of its first occupant, before start

	// Guarded by the roster's mu.
	cfg    config.Car // what the occupant was made from
	found  bool       // by "*"
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the seat was left
}

// New returns a roster without cars. The caller calls Load; then Start, the end of its
// context and Stop; then Discard.
func New(opts Options) *Roster {
	r := &Roster{
		log: opts.Logger, modules: opts.Modules, journals: opts.Journals, link: opts.Link, hub: opts.Hub,
		shared: opts.Config.Cluster != nil, elsewhere: opts.Elsewhere, entries: make(map[string]*entry),
	}
	r.use(opts.Config)
	return r
}

// use puts a configuration in force; mu is held.
func (r *Roster) use(cfg *config.Config) {
	r.cfg, r.order, r.named = cfg, nil, make(map[string]bool, len(cfg.Cars))
	r.labels = make(map[string]map[string]string)
	for _, cc := range cfg.Cars {
		r.order = append(r.order, cc.Name)
		r.named[cc.Name] = true
		r.labels[cc.Name] = labels(cc)
	}
	if cfg.AnyCar != nil {
		r.labels[config.AnyCarName] = labels(*cfg.AnyCar)
	}
}

func labels(cc config.Car) map[string]string {
	if len(cc.Labels) == 0 {
		return nil
	}
	out := make(map[string]string, len(cc.Labels))
	for _, l := range cc.Labels {
		out[l.Name] = l.Value
	}
	return out
}

// Labels are the labels of a car by the configuration in force, which must not be
// changed.
func (r *Roster) Labels(name string) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.named[name] {
		name = config.AnyCarName
	}
	return r.labels[name]
}

func (r *Roster) config() *config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cfg
}

// openModules opens the modules of a car; nothing runs yet. known is what the journal says
// of it, nil: nothing.
func (r *Roster) openModules(ctx context.Context, cfg *config.Config, cc config.Car, found bool, known *record.Resumption) ([]car.Binding, error) {
	id := fleet.CarID{Company: cfg.Company, Car: cc.Name}
	var bindings []car.Binding
	for _, m := range cc.Modules {
		b, err := r.modules.Open(ctx, id, m, found, known.Position(m.Number))
		if err != nil {
			return nil, errors.Join(err, closeModules(bindings))
		}
		b.Lost = uint64(known.GivenUp(m.Number))
		bindings = append(bindings, b)
	}
	return bindings, nil
}

// closeModules closes modules that no car has used.
func closeModules(bindings []car.Binding) error {
	unused, cancel := context.WithCancel(context.Background())
	cancel()
	errs := make([]error, len(bindings))
	for i, b := range bindings {
		errs[i] = b.Instance.Close(unused)
	}
	return errors.Join(errs...)
}

// newEntry makes the seat of a car, with the modules of its first occupant.
func (r *Roster) newEntry(cfg *config.Config, cc config.Car, found bool, modules []car.Binding) (*entry, error) {
	id := fleet.CarID{Company: cfg.Company, Car: cc.Name}
	opts := car.Options{ID: id, Limits: carLimits(cfg), Logger: r.log}
	if r.hub != nil {
		opts.Observer = r.hub.Car(id)
	}
	r.journals.Options(id, &opts)
	seat, err := car.New(opts)
	if err != nil {
		return nil, err
	}
	return &entry{id: id, seat: seat, waiting: modules, cfg: cc, found: found, done: make(chan struct{})}, nil
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
func (r *Roster) add(ctx context.Context, cc config.Car) error {
	modules, err := r.openModules(ctx, r.cfg, cc, false, r.journals.Look(fleet.CarID{Company: r.cfg.Company, Car: cc.Name}))
	if err != nil {
		return err
	}
	e, err := r.newEntry(r.cfg, cc, false, modules)
	if err != nil {
		return errors.Join(err, closeModules(modules))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries[cc.Name] = e
	return nil
}

// Start attaches and runs all cars; they end with ctx or by remove.
func (r *Roster) Start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ctx = ctx
	for _, name := range r.order {
		e := r.entries[name]
		if e == nil { // its shard comes later
			continue
		}
		if err := r.launch(e); err != nil {
			return err
		}
	}
	return r.startAny()
}

// launch attaches one car, puts its first occupant into the seat and watches over it
// in a goroutine that running waits for. The caller holds mu.
func (r *Roster) launch(e *entry) error {
	if err := e.seat.Attach(r.link); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(r.ctx)
	e.cancel = cancel
	known := r.journals.Take(e.id)
	resumes := known != nil && known.Record != nil
	if _, err := e.seat.Replace(ctx, car.Occupant{Modules: e.waiting, Known: known}); err != nil {
		cancel(nil)
		return err
	}
	if resumes {
		r.mayDiscard(e.id, e.cfg)
	}
	e.waiting = nil
	r.running.Go(func() {
		defer close(e.done)
		defer cancel(nil)
		r.watch(ctx, e)
	})
	return nil
}

// Stop waits for all cars after the context of start has ended.
func (r *Roster) Stop() error {
	r.stopAny()
	r.running.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.errs...)
}

// remove ends the cars together and waits for them until ctx ends.
func (r *Roster) remove(ctx context.Context, names ...string) (errs []error) {
	var ending []*entry
	r.mu.Lock()
	for _, name := range names {
		if e := r.entries[name]; e != nil && e.cancel != nil {
			e.cancel(car.ErrReload)
			ending = append(ending, e)
		}
		delete(r.entries, name)
	}
	r.mu.Unlock()
	for _, e := range ending {
		select {
		case <-e.done:
			r.mu.Lock()
			if r.entries[e.id.Car] == nil { // "*" may have found it anew
				r.journals.ForgetCar(e.id)
			}
			r.mu.Unlock()
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("car %s has not ended yet: %w", e.id.Car, context.Cause(ctx)))
		}
	}
	return errs
}

// forget drops what is remembered of cars that are no longer served.
func (r *Roster) forget(names ...string) {
	if r.hub == nil {
		return
	}
	for _, name := range names {
		if _, served := r.Find(name); !served {
			r.hub.Forget(name)
		}
	}
}

// Discard releases the modules of cars that were never started.
func (r *Roster) Discard() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, e := range r.entries {
		errs = append(errs, closeModules(e.waiting))
		e.waiting = nil
	}
	return errors.Join(errs...)
}

// Module returns the module of that number that a car is served by.
func (r *Roster) Module(name string, number int32) (config.Module, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[name]; e != nil {
		for _, m := range e.cfg.Modules {
			if m.Number == number {
				return m, true
			}
		}
	}
	return config.Module{}, false
}

// Find returns the seat of the car of that name.
func (r *Roster) Find(name string) (*car.Seat, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.entries[name]
	if !ok {
		return nil, false
	}
	return e.seat, true
}

func (r *Roster) Snapshots() []car.Snapshot {
	r.mu.Lock()
	cars := make([]*car.Seat, 0, len(r.entries))
	for _, name := range r.order {
		if e := r.entries[name]; e != nil {
			cars = append(cars, e.seat)
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
		cars = append(cars, e.seat)
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
