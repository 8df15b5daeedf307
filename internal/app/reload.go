package app

import (
	"context"
	"errors"
	"fmt"

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
func (a *App) Reload(ctx context.Context, cfg *config.Config) (Changes, error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	old := a.Config()
	if err := a.prepare(old, cfg); err != nil {
		return Changes{}, fmt.Errorf("%s: %w; the configuration in force stays unchanged", cfg.Source, err)
	}
	changes, err := a.roster.reload(ctx, cfg)
	if err != nil && !errors.Is(err, errInForce) {
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
	if err := a.libraries.closeUnused(cfg); err != nil {
		a.log.Warn("modules that are no longer used did not end cleanly", "error", err)
	}
	if err != nil {
		return changes, fmt.Errorf("%s: %w", cfg.Source, err)
	}
	a.log.Info("configuration reloaded", "file", cfg.Source, "changes", changes.String())
	return changes, nil
}

// errInForce marks what went wrong after the point of no return.
var errInForce = errors.New("the new configuration is in force, but not all of it works")

// reload builds what is new, then removes, replaces and starts cars.
func (r *roster) reload(ctx context.Context, cfg *config.Config) (Changes, error) {
	var changes Changes
	var fresh []*entry
	fail := func(err error) (Changes, error) {
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		for _, e := range fresh {
			err = errors.Join(err, e.car.Close(stopped))
		}
		r.forget(changes.Added...)
		return Changes{}, err
	}
	r.mu.Lock()
	if r.ctx == nil {
		r.mu.Unlock()
		return fail(errors.New("the server is still starting; try again"))
	}
	running := make(map[string]*entry, len(r.entries))
	for name, e := range r.entries {
		running[name] = e
	}
	r.mu.Unlock()
	for _, cc := range cfg.Cars {
		e := running[cc.Name]
		switch {
		case e != nil && !e.found && sameCar(e.cfg, cc):
			changes.Unchanged++
			continue
		case e != nil:
			changes.Changed = append(changes.Changed, cc.Name)
		default:
			changes.Added = append(changes.Added, cc.Name)
		}
		made, err := r.build(ctx, cfg, cc, false)
		if err != nil {
			return fail(err)
		}
		fresh = append(fresh, made)
	}
	named := make(map[string]bool, len(cfg.Cars))
	for _, cc := range cfg.Cars {
		named[cc.Name] = true
	}
	if err := r.loadAny(ctx, cfg); err != nil {
		return fail(err)
	}
	found, same := 0, sameAny(r.config(), cfg)
	for name, e := range running {
		limit := cfg.Limits.AnyCars
		switch {
		case named[name]:
		case e.found && same:
			found++
		case cfg.AnyCar != nil && (limit <= 0 || found < limit): // "*" serves it from now on
			found++
			cc := *cfg.AnyCar
			cc.Name = name
			made, err := r.build(ctx, cfg, cc, true)
			if err != nil {
				return fail(err)
			}
			fresh = append(fresh, made)
			changes.Changed = append(changes.Changed, name)
		default:
			changes.Removed = append(changes.Removed, name)
		}
	}
	// Nothing below fails for a reason that lies in the configuration.
	err := r.apply(cfg, fresh, changes)
	r.forget(changes.Removed...)
	if err != nil {
		err = fmt.Errorf("%w: %w", errInForce, err)
	}
	return changes, err
}

func (r *roster) apply(cfg *config.Config, fresh []*entry, changes Changes) error {
	r.turnover.Lock()
	defer r.turnover.Unlock()
	r.mu.Lock()
	r.replacing = make(map[string]bool, len(fresh))
	for _, e := range fresh {
		r.replacing[e.id.Car] = true
		if old := r.entries[e.id.Car]; old != nil {
			old.car.HandOver(e.car)
		}
	}
	r.mu.Unlock()
	ending := append([]string(nil), changes.Removed...)
	for _, e := range fresh { // those that changed, and those that "*" has found meanwhile
		ending = append(ending, e.id.Car)
	}
	r.remove(ending...)
	sameWatch := sameAny(r.config(), cfg)
	if !sameWatch {
		r.stopAny()
		late := r.foundCars() // since the changes were made out
		r.remove(late...)
		r.forget(late...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	if r.ctx.Err() != nil { // stop has seen all cars it waits for, or waits for mu
		stopped, cancel := context.WithCancel(context.Background())
		cancel()
		errs = append(errs, errors.New("the server stops"))
		for _, e := range fresh {
			errs = append(errs, e.car.Close(stopped))
		}
		return errors.Join(errs...)
	}
	r.cfg = cfg
	for _, e := range fresh {
		if err := r.launch(e); err != nil {
			errs = append(errs, err)
			continue
		}
		r.entries[e.id.Car] = e
	}
	r.order = r.order[:0]
	for _, cc := range cfg.Cars {
		r.order = append(r.order, cc.Name)
	}
	for _, e := range r.entries {
		e.car.Configure(carLimits(cfg))
	}
	if !sameWatch {
		errs = append(errs, r.startAny())
	}
	return errors.Join(errs...)
}

// sameAny tells whether "*" means the same in both.
func sameAny(a, b *config.Config) bool {
	if a.AnyCar == nil || b.AnyCar == nil {
		return a.AnyCar == b.AnyCar
	}
	return sameCar(*a.AnyCar, *b.AnyCar)
}
