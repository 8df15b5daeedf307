package roster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"external-server/internal/app/journals"
	"external-server/internal/car"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/link"
)

// openingCars is how many cars of a shard get their modules at the same time.
const openingCars = 16

// ErrNotOurs says that a car belongs to another replica.
var ErrNotOurs = errors.New("another replica serves this car")

// OpenShard attaches and runs the cars of a shard, whose link does not run yet. A car whose
// modules cannot be made is tried again and again: it must not keep its neighbours from
// being served.
func (r *Roster) OpenShard(ctx context.Context, s *journals.Shard) error {
	cfg := r.config()
	cars := r.carsOf(cfg, s)
	failed := make([]error, len(cars))
	next := make(chan int)
	var opening sync.WaitGroup
	for range min(openingCars, len(cars)) {
		opening.Go(func() {
			for i := range next {
				o := &cars[i]
				known := s.Look(fleet.CarID{Company: cfg.Company, Car: o.cfg.Name})
				o.modules, failed[i] = r.openModules(ctx, cfg, o.cfg, o.found, known)
			}
		})
	}
	for i := range cars {
		next <- i
	}
	close(next)
	opening.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for i := range cars {
		o := &cars[i]
		if err := r.begin(cfg, o); err != nil {
			errs = append(errs, err, closeModules(o.modules))
		} else if failed[i] != nil {
			r.log.Error("the modules of a car cannot be made; it is tried again, and with a reload", "car", o.cfg.Name, "error", failed[i])
		}
	}
	return errors.Join(errs...)
}

// begin serves a car from now on; mu is held. Without modules, although it should have some,
// they are opened again and again.
func (r *Roster) begin(cfg *config.Config, o *opened) error {
	if r.ctx == nil || r.ctx.Err() != nil {
		return ErrStops
	}
	if r.entries[o.cfg.Name] != nil {
		return fmt.Errorf("car %s is served already", o.cfg.Name)
	}
	e, err := r.newEntry(cfg, o.cfg, o.found, o.modules)
	if err != nil {
		return err
	}
	if len(o.modules) < len(o.cfg.Modules) {
		err = r.launchVacant(e)
	} else {
		err = r.launch(e)
	}
	if err == nil {
		r.entries[o.cfg.Name] = e
	}
	return err
}

// launchVacant attaches a car whose modules could not be made. What its gateway sends waits
// in the seat.
func (r *Roster) launchVacant(e *entry) error {
	if err := e.seat.Attach(r.link); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(r.ctx)
	e.cancel = cancel
	r.journals.Take(e.id) // the journal says it again
	r.running.Go(func() {
		defer close(e.done)
		defer cancel(nil)
		r.restart(ctx, e, true)
		r.watch(ctx, e)
	})
	return nil
}

// Connecting tells whether a car of the shard is in a connect sequence, which no other
// owner could go on with.
func (r *Roster) Connecting(shard int) bool {
	return slices.ContainsFunc(r.all(r.in(shard)), func(e *entry) bool { return e.seat.Connecting() })
}

// CloseShard ends the cars of a shard, whose link has ended, with the cause, waits for them
// and removes them. settled: the broker has everything that they were sent.
func (r *Roster) CloseShard(shard int, cause error, settled bool) {
	ending := r.all(r.in(shard))
	for _, e := range ending {
		e.cancel(cause)
	}
	for _, e := range ending {
		<-e.done
		if settled {
			e.seat.AppendSettled()
		}
	}
	r.mu.Lock()
	var names []string
	for _, e := range ending {
		if r.entries[e.id.Car] == e {
			delete(r.entries, e.id.Car)
			names = append(names, e.id.Car)
		}
	}
	r.mu.Unlock()
	r.forget(names...)
}

// Welcome serves a car of "*" of a shard that is in service here, and gives it the Connect
// that another connection has brought.
func (r *Roster) Welcome(ctx context.Context, id fleet.CarID, connect []byte) error {
	r.mu.Lock()
	if !r.owns(r.cfg, id.Car) {
		r.mu.Unlock()
		return ErrNotOurs
	}
	if r.cfg.AnyCar == nil || r.named[id.Car] || r.ctx == nil || r.ctx.Err() != nil {
		r.mu.Unlock()
		return nil // its own connection brings it
	}
	if r.entries[id.Car] != nil { // likewise
		r.mu.Unlock()
		return nil
	}
	served := r.serveUnknown(id)
	r.mu.Unlock()
	if !served {
		return nil
	}
	seat, ok := r.Find(id.Car)
	if !ok {
		return nil
	}
	if err := listening(ctx, seat); err != nil {
		return err
	}
	seat.Message(connect, link.Delivery{})
	seat.Sent()
	return nil
}

// listening waits until the broker has subscribed the car, so that the answer reaches it and
// what follows is heard.
func listening(ctx context.Context, seat *car.Seat) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !seat.Snapshot().LinkUp {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
