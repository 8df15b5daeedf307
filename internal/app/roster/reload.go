package roster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

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

// ErrStops ends what meets the stop of the server.
var ErrStops = errors.New("the server stops")

// opened is a car of the new configuration with its modules.
type opened struct {
	cfg     config.Car
	found   bool // by "*"
	modules []car.Binding
}

// Prepared is what a reload does to the cars.
type Prepared struct {
	Changes Changes
	cfg     *config.Config
	opened  []opened
}

// Drop closes the modules that were opened, when the reload is not made.
func (p *Prepared) Drop() error {
	var errs []error
	for _, o := range p.opened {
		errs = append(errs, closeModules(o.modules))
	}
	return errors.Join(errs...)
}

// Step does a step of a preparation within a bound of its own; what says what it waits for.
type Step func(ctx context.Context, what string, do func(context.Context) error) error

// Prepare finds out what a reload does to the cars and opens the modules that are new;
// nothing changes.
func (r *Roster) Prepare(ctx context.Context, cfg *config.Config, within Step) (*Prepared, error) {
	made := &Prepared{cfg: cfg}
	changes := &made.Changes
	fail := func(err error) (*Prepared, error) { return nil, errors.Join(err, made.Drop()) }
	open := func(cc config.Car, found bool) error {
		return within(ctx, "the modules of car "+cc.Name, func(ctx context.Context) error {
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
	defer context.AfterFunc(r.ctx, func() { cancel(ErrStops) })()
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
			if !maps.Equal(r.Labels(cc.Name), labels(cc)) {
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
	if r.shared { // also what other replicas serve now must be right: it may come here
		if err := within(ctx, "the modules of the cars that other replicas serve", func(ctx context.Context) error { return r.loadAll(ctx, cfg) }); err != nil {
			return fail(err)
		}
	}
	err := within(ctx, `the modules of "*"`, func(ctx context.Context) error { return r.loadAny(ctx, cfg) })
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

// Apply puts the configuration in force: each changed car keeps its seat and gets
// another occupant.
func (r *Roster) Apply(ctx context.Context, p *Prepared) error {
	cfg, fresh, changes := p.cfg, p.opened, p.Changes
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
		errs = append(errs, ErrStops)
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
	if r.shared {
		r.catchUp(ctx)
	}
	return errors.Join(errs...)
}

// occupy puts an occupant into the seat of its car, which may be a new one.
func (r *Roster) occupy(ctx context.Context, cfg *config.Config, o opened) (ended func(context.Context) error, err error) {
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
func (r *Roster) removeLate(ctx context.Context, fresh []opened, removed []string) (late []string, errs []error) {
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
