package roster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"external-server/internal/car"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/protocol"
)

// retireTimeout bounds the wait for the end of a car that is released, and of its
// modules.
const retireTimeout = 15 * time.Second

// anyCars is the service of the cars that the configuration does not name ("*"
// in cars).
type anyCars struct {
	stop func() // ends the watch and the search for idle cars; nil: not started
	full bool   // the limit was reached and said
}

// loadAny makes the modules of "*". One that cannot be made prevents the start, as it
// does for a configured car. So do settings that a built-in module refuses. Whether a
// library or program accepts its settings shows with the first call for a found car.
func (r *Roster) loadAny(ctx context.Context, cfg *config.Config) error {
	if cfg.AnyCar == nil {
		return nil
	}
	return r.loadModules(ctx, cfg, cfg.AnyCar.Modules)
}

// loadAll makes the modules of all configured cars, as loadAny does for those of "*".
func (r *Roster) loadAll(ctx context.Context, cfg *config.Config) error {
	for _, cc := range cfg.Cars {
		if err := r.loadModules(ctx, cfg, cc.Modules); err != nil {
			return err
		}
	}
	return nil
}

func (r *Roster) loadModules(ctx context.Context, cfg *config.Config, modules []config.Module) error {
	id := fleet.CarID{Company: cfg.Company, Car: "any"} // shown nowhere
	for _, m := range modules {
		made, err := r.modules.Module(ctx, m)
		if err != nil {
			return err
		}
		if m.Builtin == "" || m.SpoolDirectory != "" { // found cars open these late, see modules.Set.Open
			continue
		}
		instance, err := made.Open(ctx, m.Spec(id))
		if err == nil {
			err = instance.Close(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.KeyPath, err)
		}
	}
	return nil
}

// startAny watches for unknown cars. The caller holds mu.
func (r *Roster) startAny() error {
	if r.cfg.AnyCar == nil {
		return nil
	}
	stopWatch, err := r.link.Watch(r.cfg.Company, r.foundCar)
	if err != nil {
		return fmt.Errorf("cars.*: %w", err)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	r.any = anyCars{stop: func() { stopWatch(); cancel() }}
	for _, name := range r.journals.Cars(r.cfg.Company) { // that the process before had found
		cc := *r.cfg.AnyCar
		cc.Name = name
		if err := r.serveFound(r.cfg, cc); err != nil {
			r.log.Error("a car that was found before cannot be served", "car", name, "error", err)
		}
	}
	r.running.Go(func() { r.releaseIdle(ctx) })
	return nil
}

func (r *Roster) stopAny() {
	r.mu.Lock()
	stop := r.any.stop
	r.any = anyCars{}
	r.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// foundCar is called by the link with the messages of unknown cars. A Connect makes
// one known: it is attached before foundCar returns, so that this very message is
// served; its modules open with their first call. Nothing else does, because only
// a Connect begins a session (SEQ-1), and noise must not use up limits.any_cars.
func (r *Roster) foundCar(id fleet.CarID, message []byte) {
	var decoder protocol.Decoder
	if m, err := decoder.Client(message); err != nil || m.Kind != fleet.ClientConnect {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil || r.any.stop == nil || r.entries[id.Car] != nil {
		return
	}
	if r.shared { // the link that has heard it is no shard's
		if !r.named[id.Car] {
			r.elsewhere(id, message)
		}
		return
	}
	r.serveUnknown(id)
}

// serveUnknown serves a car that nothing is known of with the modules of "*" and tells
// whether it does; mu is held.
func (r *Roster) serveUnknown(id fleet.CarID) bool {
	cfg := r.cfg
	if limit := cfg.Limits.AnyCars; limit > 0 && r.foundCount() >= limit {
		if !r.any.full {
			r.any.full = true
			r.log.Warn("a car was found and not served: the limit of cars served by \"*\" is reached; raise limits.any_cars or name the cars",
				"car", id.Car, "limit", limit)
		}
		return false
	}
	cc := *cfg.AnyCar
	cc.Name = id.Car
	err := r.serveFound(cfg, cc)
	if err != nil {
		r.limit.Log(r.log, slog.LevelError, "a car was found and cannot be served", slog.String("car", id.Car), slog.Any("error", err))
		if r.hub != nil {
			r.hub.Forget(id.Car)
		}
		return false
	}
	r.log.Info("car found, serving it with the modules of \"*\"", "car", id.Car)
	return true
}

// serveFound serves a car that was found; the caller holds mu.
func (r *Roster) serveFound(cfg *config.Config, cc config.Car) error {
	modules, err := r.openModules(r.ctx, cfg, cc, true, r.journals.Look(fleet.CarID{Company: cfg.Company, Car: cc.Name})) // without waiting, see modules.Set.Open
	if err != nil {
		return err
	}
	e, err := r.newEntry(cfg, cc, true, modules)
	if err == nil {
		err = r.launch(e)
	}
	if err != nil {
		return errors.Join(err, closeModules(modules))
	}
	r.entries[cc.Name] = e
	return nil
}

// foundCars names the cars that are served by "*".
func (r *Roster) foundCars() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name, e := range r.entries {
		if e.found {
			names = append(names, name)
		}
	}
	return names
}

func (r *Roster) foundCount() int {
	n := 0
	for _, e := range r.entries {
		if e.found {
			n++
		}
	}
	return n
}

// releaseIdle ends found cars whose gateway has been silent for long.
func (r *Roster) releaseIdle(ctx context.Context) {
	const look = time.Second
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			idle := r.config().Limits.IdleCar
			if idle <= 0 {
				continue
			}
			for _, e := range r.idleCars(idle) {
				r.retire(ctx, e)
			}
		}
	}
}

// retire ends a found car. Its gateway may come back at this very moment: then it is
// served again. What arrives is heard either way: until the seat is left it waits
// there, and from then on it finds the car anew.
func (r *Roster) retire(ctx context.Context, e *entry) {
	r.turnover.Lock()
	defer r.turnover.Unlock()
	name := e.id.Car
	r.mu.Lock()
	served, cfg, cc := r.entries[name] == e && e.found, r.cfg, e.cfg
	r.mu.Unlock()
	if ctx.Err() != nil || !served || e.seat.Silent() <= cfg.Limits.IdleCar {
		return // replaced or back meanwhile
	}
	bound, cancel := context.WithTimeout(ctx, retireTimeout)
	defer cancel()
	ended, err := e.seat.Vacate(bound)
	if errors.Is(err, car.ErrLeft) { // with its shard
		return
	}
	if err != nil {
		r.log.Warn("a silent car was not released; it is tried again", "error", err)
		return
	}
	if err := ended(bound); err != nil {
		r.log.Warn("a car did not end cleanly", "error", err)
	}
	if r.leave(e) {
		<-e.done
		r.forget(name)
		r.log.Info("released a car that had been silent", "car", name, "idle", cfg.Limits.IdleCar.String())
		return
	}
	modules, err := r.openModules(ctx, cfg, cc, true, nil) // without waiting, see modules.Set.Open
	if err == nil {
		if _, err = e.seat.Replace(ctx, car.Occupant{Modules: modules}); err != nil {
			err = errors.Join(err, closeModules(modules))
		}
	}
	if err != nil && ctx.Err() == nil {
		r.log.Error("a car was released and cannot be served at once although it comes back", "car", name, "error", err)
		r.remove(bound, name)
		r.forget(name)
	}
}

// leave gives up the seat of a car unless its gateway has come back.
func (r *Roster) leave(e *entry) (left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if left = e.seat.Leave(); left {
		r.journals.ForgetCar(e.id) // before it can be found anew
		delete(r.entries, e.id.Car)
		e.cancel(car.ErrReload)
	}
	return left
}

// idleCars returns the found cars that have been silent for longer than idle. The
// link waits for mu when it finds a car, so each may cost little.
func (r *Roster) idleCars(idle time.Duration) []*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*entry
	for _, e := range r.entries {
		if e.found && e.seat.Silent() > idle {
			out = append(out, e)
		}
	}
	if len(out) > 0 {
		r.any.full = false
	}
	return out
}
