package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"external-server/internal/car"
	"external-server/internal/config"
)

// Changes is what a reload did to the cars.
type Changes struct {
	Added, Removed, Changed []string
	Unchanged               int
}

// String says it in one line.
func (c Changes) String() string {
	return fmt.Sprintf("%d cars added, %d removed, %d changed, %d unchanged", len(c.Added), len(c.Removed), len(c.Changed), c.Unchanged)
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
	w.next("the files that the configuration names")
	if err := a.prepare(old, cfg); err != nil {
		return Changes{}, fmt.Errorf("%s: %w; the configuration in force stays unchanged", cfg.Source, err)
	}
	changes, err := a.roster.reload(ctx, cfg, w)
	if err != nil && !errors.Is(err, errInForce) {
		w.next("modules that were opened in vain to end")
		return Changes{}, errors.Join(fmt.Errorf("%s: %w; the configuration in force stays unchanged", cfg.Source, err),
			a.libraries.closeUnused(old))
	}
	a.mu.Lock()
	a.cfg = cfg
	a.mu.Unlock()
	a.configure(cfg)
	if a.logs != nil {
		a.logs.SetSinkLevels(cfg.Logging.Console.Level, cfg.Logging.File.Level)
	}
	w.next("modules that are no longer used to end")
	if err := a.libraries.closeUnused(cfg); err != nil {
		a.log.Warn("modules that are no longer used did not end cleanly", "error", err)
	}
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

// reload opens what is new, then removes, replaces and starts cars.
func (r *roster) reload(ctx context.Context, cfg *config.Config, w *waits) (Changes, error) {
	var changes Changes
	var fresh []opened
	fail := func(err error) (Changes, error) {
		for _, o := range fresh {
			err = errors.Join(err, closeModules(o.modules))
		}
		return Changes{}, err
	}
	open := func(cc config.Car, found bool) error {
		return w.within(ctx, "the modules of car "+cc.Name, func(ctx context.Context) error {
			modules, err := r.openModules(ctx, cfg, cc, found)
			if err == nil {
				fresh = append(fresh, opened{cc, found, modules})
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
			continue
		case served:
			changes.Changed = append(changes.Changed, cc.Name)
		default:
			changes.Added = append(changes.Added, cc.Name)
		}
		if err := open(cc, false); err != nil {
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
	// Nothing below fails for a reason that lies in the configuration.
	bound, cancelApply := context.WithTimeoutCause(context.WithoutCancel(ctx), applyTimeout, errStep)
	defer cancelApply()
	w.next("the end of the cars that were changed or removed")
	err = r.apply(bound, cfg, fresh, changes)
	if err != nil {
		err = fmt.Errorf("%w: %w", errInForce, err)
	}
	return changes, err
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
	r.cfg = cfg
	r.order = r.order[:0]
	for _, cc := range cfg.Cars {
		r.order = append(r.order, cc.Name)
	}
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
	return errors.Join(errs...)
}

// occupy puts an occupant into the seat of its car, which may be a new one.
func (r *roster) occupy(ctx context.Context, cfg *config.Config, o opened) (ended func(context.Context) error, err error) {
	r.mu.Lock()
	e := r.entries[o.cfg.Name] // "*" may have found it meanwhile
	if e == nil {
		defer r.mu.Unlock()
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
