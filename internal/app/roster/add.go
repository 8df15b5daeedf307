package roster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"external-server/internal/app/modules"
	"external-server/internal/config"
)

// openers is how many cars' contexts are made at a time at the start. A module process
// makes them faster together, because its wake-ups are shared.
const openers = 32

// Load opens the modules of the configured cars before Start. When replicas share the
// cars it makes the modules only: cars come with their shards.
func (r *Roster) Load(ctx context.Context) error {
	if r.shared {
		return errors.Join(r.loadAll(ctx, r.cfg), r.loadAny(ctx, r.cfg))
	}
	if err := r.addAll(ctx, r.cfg.Cars); err != nil {
		return err
	}
	return r.loadAny(ctx, r.cfg)
}

// addAll builds the configured cars before start. The first context of each module is
// made alone: libraries prepare in it what all others share. The error is that of
// the first car that has one.
func (r *Roster) addAll(ctx context.Context, cars []config.Car) error {
	var (
		group  sync.WaitGroup
		failed atomic.Bool
		errs   = make([]error, len(cars))
		turns  = make(chan struct{}, openers)
		known  = make(map[string]bool)
	)
	for n, cc := range cars {
		add := func() {
			if errs[n] = r.add(ctx, cc); errs[n] != nil {
				failed.Store(true)
			}
		}
		if usesNew(known, cc.Modules) {
			group.Wait()
			if !failed.Load() {
				add()
			}
		} else {
			turns <- struct{}{}
			group.Go(func() {
				defer func() { <-turns }()
				add()
			})
		}
		if failed.Load() {
			break
		}
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// usesNew tells whether one of the modules is not known yet; now it is.
func usesNew(known map[string]bool, used []config.Module) (fresh bool) {
	for _, m := range used {
		key, err := modules.Key(m)
		if err != nil {
			return true // add says so
		}
		fresh = fresh || !known[key]
		known[key] = true
	}
	return fresh
}
