package app

import (
	"context"
	"sync"
	"sync/atomic"

	"external-server/internal/config"
)

// openers is how many cars' contexts are made at a time at the start. A module process
// makes them faster together, because its wake-ups are shared.
const openers = 32

// addAll builds the configured cars before start. The first context of each module is
// made alone: libraries prepare in it what all others share. The error is that of
// the first car that has one.
func (r *roster) addAll(ctx context.Context, cars []config.Car) error {
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
func usesNew(known map[string]bool, modules []config.Module) (fresh bool) {
	for _, m := range modules {
		key, err := moduleKey(m)
		if err != nil {
			return true // add says so
		}
		fresh = fresh || !known[key]
		known[key] = true
	}
	return fresh
}
