package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"external-server/internal/car"
	"external-server/internal/config"
)

// Changes is what a reload did to the cars.
type Changes struct {
	Added, Removed, Changed []string
	Unchanged               int
	// Labelled is how many of the unchanged cars have got other labels.
	Labelled int
}

// String says it in one line.
func (c Changes) String() string {
	text := fmt.Sprintf("%d cars added, %d removed, %d changed, %d unchanged", len(c.Added), len(c.Removed), len(c.Changed), c.Unchanged)
	if c.Labelled > 0 {
		text += fmt.Sprintf(", of which %d have other labels", c.Labelled)
	}
	return text
}

// Reload puts a validated configuration in force. Everything that can fail is
// done first: new modules are loaded and the contexts of new and changed cars
// are opened; on error the old configuration stays in force and nothing has
// changed. Unchanged cars keep their sessions. Settings that cannot change while
// the server runs are an error that names them.
//
// A reload is bounded, whatever ctx says: 15 s for each start of a module or of one
// context, and 60 s and 0.1 s per car for all of them. The error says what it waited
// for. The stop of the server ends it.
func (a *App) Reload(ctx context.Context, cfg *config.Config) (Changes, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reloadTimeout+time.Duration(len(cfg.Cars))*reloadCarTimeout, errStep)
	defer cancel()
	w := &waits{step: a.stepLimit}
	if err := a.reloading.enter(ctx, w); err != nil {
		return Changes{}, fmt.Errorf("%s: %w", cfg.Source, err)
	}
	defer a.reloading.leave()
	begun := time.Now()
	old := a.Config()
	a.waits = w
	changes, err := a.reload(ctx, old, cfg)
	if err != nil && !errors.Is(err, errInForce) {
		return Changes{}, fmt.Errorf("%s: %w; the configuration in force stays unchanged", cfg.Source, err)
	}
	a.mu.Lock()
	a.cfg = cfg
	a.mu.Unlock()
	if err != nil {
		return changes, fmt.Errorf("%s: %w", cfg.Source, err)
	}
	slowest, took := w.slowest()
	args := []any{"file", cfg.Source, "changes", changes.String()}
	if took > slowStep {
		args = append(args, "took", time.Since(begun).Round(time.Millisecond).String(),
			"waited_longest_for", slowest, "waited", took.Round(time.Millisecond).String())
	}
	a.log.Info("configuration reloaded", args...)
	return changes, nil
}

// reload prepares all parts, then changes them.
func (a *App) reload(ctx context.Context, old, fresh *config.Config) (Changes, error) {
	a.waits.next("the files that the configuration names")
	if keys := needRestart(old, fresh, a.parts.keys()); len(keys) > 0 {
		return Changes{}, errors.New("a restart of the server is needed to change " + strings.Join(keys, ", "))
	}
	made, err := a.parts.prepare(ctx, old, fresh)
	if err != nil {
		return Changes{}, err
	}
	// Nothing below fails for a reason that lies in the configuration.
	a.waits.next("the end of the cars that were changed or removed, and of their modules")
	bound, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), applyTimeout, errStep)
	defer cancel()
	if err := made.apply(bound, false); err != nil {
		return a.cars.last, fmt.Errorf("%w: %w", errInForce, err)
	}
	return a.cars.last, nil
}

// slowStep is how long a step of a reload may take without being named in the log.
const slowStep = time.Second

// errStops ends a reload that meets the stop of the server.
var errStops = errors.New("the server stops")

// errInForce marks what went wrong after the point of no return.
var errInForce = errors.New("the new configuration is in force, but not all of it works")

// opened is a car of the new configuration with its modules.
type opened struct {
	cfg     config.Car
	found   bool // by "*"
	modules []car.Binding
}

// prepared is what a reload does to the cars.
type prepared struct {
	changes Changes
	opened  []opened
}

// drop closes the modules that were opened.
func (p *prepared) drop() error {
	var errs []error
	for _, o := range p.opened {
		errs = append(errs, closeModules(o.modules))
	}
	return errors.Join(errs...)
}

// prepare finds out what a reload does to the cars and opens the modules that are new;
// nothing changes.
func (r *roster) prepare(ctx context.Context, cfg *config.Config, w *waits) (*prepared, error) {
	made := &prepared{}
	changes := &made.changes
	fail := func(err error) (*prepared, error) { return nil, errors.Join(err, made.drop()) }
	open := func(cc config.Car, found bool) error {
		return w.within(ctx, "the modules of car "+cc.Name, func(ctx context.Context) error {
			modules, err := r.openModules(ctx, cfg, cc, found, nil)
			if err == nil {
				made.opened = append(made.opened, opened{cc, found, modules})
			}
			return err
		})
	}
	r.mu.Lock()
	if r.ctx == nil {
		r.mu.Unlock()
		return fail(errors.New("the server is still starting; try again"))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() { cancel(errStops) })()
	running := make(map[string]opened, len(r.entries))
	for name, e := range r.entries {
		running[name] = opened{cfg: e.cfg, found: e.found}
	}
	r.mu.Unlock()
	named := make(map[string]bool, len(cfg.Cars))
	for _, cc := range cfg.Cars {
		named[cc.Name] = true
		old, served := running[cc.Name]
		switch {
		case served && !old.found && sameCar(old.cfg, cc):
			changes.Unchanged++
			if !maps.Equal(r.labelsOf(cc.Name), labels(cc)) {
				changes.Labelled++
			}
			continue
		case served:
			changes.Changed = append(changes.Changed, cc.Name)
		case !r.owns(cfg, cc.Name):
			continue
		default:
			changes.Added = append(changes.Added, cc.Name)
		}
		if err := open(cc, false); err != nil {
			return fail(err)
		}
	}
	if r.partial { // also what other replicas serve now must be right: it may come here
		if err := w.within(ctx, "the modules of the cars that other replicas serve", func(ctx context.Context) error { return r.loadAll(ctx, cfg) }); err != nil {
			return fail(err)
		}
	}
	err := w.within(ctx, `the modules of "*"`, func(ctx context.Context) error { return r.loadAny(ctx, cfg) })
	if err != nil {
		return fail(err)
	}
	found, same := 0, sameAny(r.config(), cfg)
	for name, old := range running {
		limit := cfg.Limits.AnyCars
		switch {
		case named[name]:
		case old.found && same:
			found++
		case cfg.AnyCar != nil && (limit <= 0 || found < limit): // "*" serves it from now on
			found++
			cc := *cfg.AnyCar
			cc.Name = name
			if err := open(cc, true); err != nil {
				return fail(err)
			}
			changes.Changed = append(changes.Changed, name)
		default:
			changes.Removed = append(changes.Removed, name)
		}
	}
	return made, nil
}

// apply puts the configuration in force: each changed car keeps its seat and gets
// another occupant.
func (r *roster) apply(ctx context.Context, cfg *config.Config, fresh []opened, changes Changes) error {
	r.turnover.Lock()
	defer r.turnover.Unlock()
	errs := r.remove(ctx, changes.Removed...)
	sameWatch := sameAny(r.config(), cfg)
	if !sameWatch {
		r.stopAny()
		late, err := r.removeLate(ctx, fresh, changes.Removed)
		changes.Removed = append(changes.Removed, late...)
		errs = append(errs, err...)
	}
	defer r.forget(changes.Removed...)
	r.mu.Lock()
	if r.ctx.Err() != nil { // stop has seen all cars it waits for, or waits for mu
		r.mu.Unlock()
		errs = append(errs, errStops)
		for _, o := range fresh {
			errs = append(errs, closeModules(o.modules))
		}
		return errors.Join(errs...)
	}
	r.use(cfg)
	r.mu.Unlock()
	var ended []func(context.Context) error
	for _, o := range fresh {
		end, err := r.occupy(ctx, cfg, o)
		if err != nil {
			errs = append(errs, err, closeModules(o.modules))
			continue
		}
		ended = append(ended, end)
	}
	r.mu.Lock()
	for _, e := range r.entries {
		e.seat.Configure(carLimits(cfg))
	}
	if !sameWatch {
		errs = append(errs, r.startAny())
	}
	r.mu.Unlock()
	for _, end := range ended {
		if err := end(ctx); err != nil {
			r.log.Warn("a car did not end cleanly", "error", err)
		}
	}
	if r.partial {
		r.catchUp(ctx)
	}
	return errors.Join(errs...)
}

// occupy puts an occupant into the seat of its car, which may be a new one.
func (r *roster) occupy(ctx context.Context, cfg *config.Config, o opened) (ended func(context.Context) error, err error) {
	r.mu.Lock()
	e := r.entries[o.cfg.Name] // "*" may have found it meanwhile
	if e == nil {
		defer r.mu.Unlock()
		if !r.owns(cfg, o.cfg.Name) { // its shard has left meanwhile
			return func(context.Context) error { return nil }, closeModules(o.modules)
		}
		if e, err = r.newEntry(cfg, o.cfg, o.found, o.modules); err != nil {
			return nil, err
		}
		if err := r.launch(e); err != nil {
			return nil, err
		}
		r.entries[o.cfg.Name] = e
		return func(context.Context) error { return nil }, nil
	}
	r.mu.Unlock()
	if ended, err = e.seat.Replace(ctx, car.Occupant{Modules: o.modules}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	e.cfg, e.found = o.cfg, o.found
	r.mu.Unlock()
	return ended, nil
}

// removeLate removes the cars that "*" has found since the changes were made out.
func (r *roster) removeLate(ctx context.Context, fresh []opened, removed []string) (late []string, errs []error) {
	late = slices.DeleteFunc(r.foundCars(), func(name string) bool {
		return slices.ContainsFunc(fresh, func(o opened) bool { return o.cfg.Name == name }) || slices.Contains(removed, name)
	})
	return late, r.remove(ctx, late...)
}

// sameAny tells whether "*" means the same in both.
func sameAny(a, b *config.Config) bool {
	if a.AnyCar == nil || b.AnyCar == nil {
		return a.AnyCar == b.AnyCar
	}
	return sameCar(*a.AnyCar, *b.AnyCar)
}
