package roster

import (
	"context"
	"errors"

	"external-server/internal/app/journals"
	"external-server/internal/config"
	"external-server/internal/fleet"
)

// owns tells whether the car of that name is served here if it is configured: without a
// cluster all are.
func (r *Roster) owns(cfg *config.Config, name string) bool {
	return !r.shared || r.journals.Of(fleet.CarID{Company: cfg.Company, Car: name}) != nil
}

// carsOf are the cars to be served of a shard: the configured ones, and those that "*" has
// found before and that something is left to do for.
func (r *Roster) carsOf(cfg *config.Config, s *journals.Shard) (out []opened) {
	for _, cc := range cfg.Cars {
		if r.journals.Number(fleet.CarID{Company: cfg.Company, Car: cc.Name}) == s.Number {
			out = append(out, opened{cfg: cc})
		}
	}
	if cfg.AnyCar == nil {
		return out
	}
	named := make(map[string]bool, len(cfg.Cars))
	for _, cc := range cfg.Cars {
		named[cc.Name] = true
	}
	for _, name := range s.Cars(cfg.Company) {
		if !named[name] {
			cc := *cfg.AnyCar
			cc.Name = name
			out = append(out, opened{cfg: cc, found: true})
		}
	}
	return out
}

// catchUp makes the cars that are served those of the configuration in force, after a
// reload during which shards came or went. What cannot be made is logged and tried again.
func (r *Roster) catchUp(ctx context.Context) {
	cfg := r.config()
	for _, s := range r.journals.InService() {
		for _, o := range r.carsOf(cfg, s) {
			r.mu.Lock()
			e := r.entries[o.cfg.Name]
			same := e != nil && (e.found == o.found && sameCar(e.cfg, o.cfg) || o.found)
			r.mu.Unlock()
			if same {
				continue
			}
			if err := r.catchUpCar(ctx, cfg, o); err != nil && r.owns(cfg, o.cfg.Name) {
				r.log.Error("a car does not follow the reload that was made while its shard came here; reload again", "car", o.cfg.Name, "error", err)
			}
		}
	}
	var gone []string
	r.mu.Lock()
	for name, e := range r.entries {
		if !e.found && !r.named[name] {
			gone = append(gone, name)
		}
	}
	r.mu.Unlock()
	if err := errors.Join(r.remove(ctx, gone...)...); err != nil {
		r.log.Warn("a car did not end cleanly", "error", err)
	}
	r.forget(gone...)
}

func (r *Roster) catchUpCar(ctx context.Context, cfg *config.Config, o opened) error {
	var err error
	if o.modules, err = r.openModules(ctx, cfg, o.cfg, o.found, nil); err != nil {
		return err
	}
	end, err := r.occupy(ctx, cfg, o)
	if err != nil {
		return errors.Join(err, closeModules(o.modules))
	}
	return end(ctx)
}
