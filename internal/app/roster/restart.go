package roster

import (
	"context"
	"errors"
	"time"

	"external-server/internal/car"
)

// watch runs the seat of a car. A defect met by one car must not end the others
// (DEF-29), and not this one for long either.
func (r *Roster) watch(ctx context.Context, e *entry) {
	for {
		err := e.seat.Run(ctx)
		var defect *car.Defect
		switch {
		case errors.As(err, &defect):
			r.restart(ctx, e, !defect.Again)
			continue
		case err != nil:
			r.endedBadly(err)
		}
		return
	}
}

// endedBadly takes what a car could not end cleanly: part of the error of stop, or
// said at once for a car that ends before.
func (r *Roster) endedBadly(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		r.errs = append(r.errs, err)
		return
	}
	r.log.Warn("a car did not end cleanly", "error", err)
}

// restart puts a fresh occupant into the seat of a car whose last one met a defect,
// after a pause that grows when its modules cannot be opened. What the gateway sends
// meanwhile waits in the seat.
// resume says that its session may go on.
func (r *Roster) restart(ctx context.Context, e *entry, resume bool) {
	for pause := restartPause; ; pause = min(2*pause, restartPauseMax) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		err := r.occupyAgain(ctx, e, resume)
		if err == nil || ctx.Err() != nil {
			return
		}
		r.log.Error("the failed car could not be started anew; it is tried again, and with a reload", "car", e.id.Car, "error", err)
	}
}

// occupyAgain fills an empty seat with what its car was made from last.
func (r *Roster) occupyAgain(ctx context.Context, e *entry, resume bool) error {
	r.mu.Lock()
	cfg, cc, found := r.cfg, e.cfg, e.found
	r.mu.Unlock()
	next := car.Occupant{}
	if resume {
		next.Known = r.journals.Recall(e.id)
	}
	modules, err := r.openModules(ctx, cfg, cc, found, next.Known) // may take long
	next.Modules = modules
	if err != nil && !e.seat.Occupied() {
		return err
	}
	r.turnover.Lock()
	defer r.turnover.Unlock()
	if e.seat.Occupied() { // a reload was faster
		return closeModules(modules)
	}
	if _, err := e.seat.Replace(ctx, next); err != nil {
		return errors.Join(err, closeModules(modules))
	}
	return nil
}
