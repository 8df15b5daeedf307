package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/link"
	"external-server/internal/session/record"
)

// Close implements cluster.Host.
func (r *Replica) Close(ctx context.Context, n int, to cluster.Member, lost bool) error {
	r.turns[n].Lock()
	defer r.turns[n].Unlock()
	s := r.shards[n].Load()
	switch {
	case s == nil:
		return nil
	case lost:
		r.lose(s)
		return nil
	case to.Name == "" && r.final.Load(): // the stop ends its sessions
		return nil
	case to.Name == "":
		r.cars.EndPollingOf(s.Number)
		return r.drop(s, r.suspended(), false)
	}
	if err := r.handOver(ctx, s, to); err != nil {
		return fmt.Errorf("shard %d: %w", n, err)
	}
	return nil
}

// suspended is the cause with which a link ends whose sessions go on elsewhere: in order, or
// without a word when the broker does not answer.
func (r *Replica) suspended() error {
	if r.silent() {
		return link.ErrUnheard
	}
	return link.ErrSuspend
}

// handOver gives a shard with its sessions to another replica. After an error this one
// serves it on, unless it is a cluster.ErrLeft.
func (r *Replica) handOver(ctx context.Context, s *shard, to cluster.Member) error {
	n := s.Number
	if r.silent() {
		switch reached, err := r.reaches(ctx, to); {
		case err != nil:
			return err
		case !reached:
			r.release(s, link.ErrUnheard)
			return r.leaveBehind(s, fmt.Errorf("replica %s does not answer this one", to.Name))
		}
	} else {
		r.settleDown(ctx, s)
	}
	// While the cars are served: a module may need as long for this as its timeout is.
	r.cars.EndPollingOf(s.Number)
	begun := time.Now()
	r.release(s, r.suspended())
	err := r.offer(ctx, s, to)
	if err != nil && r.silent() { // here it cannot go on
		return r.leaveBehind(s, err)
	}
	if err == nil {
		if err := r.dir.CloseShard(n, true); err != nil {
			r.log.Warn("the journal of a shard that was handed over cannot be removed", "shard", n, "error", err)
		}
		r.log.Debug("handed a shard over", "shard", n, "to", to.Name, "took", time.Since(begun).Round(time.Millisecond).String())
		return nil
	}
	err = fmt.Errorf("hand over to %s: %w", to.Name, err)
	if back := r.takeBack(ctx, s); back != nil {
		return fmt.Errorf("%w: %w", cluster.ErrLeft, errors.Join(err, back))
	}
	return err
}

// reaches asks the next owner of a shard whether the broker answers it: when it answers no
// replica, shards stay where they are. If this replica cannot ask, the word of etcd counts, which
// is a second older: false then.
func (r *Replica) reaches(ctx context.Context, to cluster.Member) (bool, error) {
	state, err := r.inquiries.answer(ctx, to.Address)
	if err == nil && state.Replica != to.Name {
		err = fmt.Errorf("the replica %s answers at its address %s", state.Replica, to.Address)
	}
	if err != nil {
		view := r.cluster.View()
		if m, ok := view.Member(to.Name); ok && m.State == cluster.StateReady && view.Connected {
			return false, nil
		}
		return false, fmt.Errorf("hand over to %s: %w", to.Name, err)
	}
	if state.Silent {
		return false, fmt.Errorf("hand over to %s: the broker does not answer it either", to.Name)
	}
	return true, nil
}

// leaveBehind gives a released shard up without what this replica knows of it.
func (r *Replica) leaveBehind(s *shard, why error) error {
	return errors.Join(fmt.Errorf("%w: %w", cluster.ErrLeft, why), r.dir.CloseShard(s.Number, false))
}

// settleDown waits for connect sequences, which no other replica could go on with, while the broker answers.
func (r *Replica) settleDown(ctx context.Context, s *shard) {
	ctx, end := r.answering(ctx)
	defer end()
	late := time.NewTimer(handOverWait)
	defer late.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for r.cars.Connecting(s.Number) {
		select {
		case <-late.C:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// release ends the link of a shard at a message boundary, then its cars. The journal stays
// open.
func (r *Replica) release(s *shard, cause error) {
	s.Serving(s.link.State().Up)
	s.Suspend()
	withdraw := func() {
		r.shards[s.Number].Store(nil)
		r.opts.Owners.notify()
	}
	// Modules that post a last status to the HTTP API would wait for an owner that there is only when they have
	// ended. If there is one already, they find it.
	if errors.Is(cause, link.ErrFenced) {
		withdraw()
	} else {
		defer withdraw()
	}
	r.journals.Leave(s.Number)
	r.opts.Shards.End(s.Number, cause)
	r.cars.CloseShard(s.Number, cause, errors.Is(cause, link.ErrSuspend) && s.link.Settled())
	r.opts.Shards.Take(s.Number, cause)
	s.Serving(false)
	_ = s.Flush() // told by OnFault
}

// drop ends a shard and closes its journal, or removes it.
func (r *Replica) drop(s *shard, cause error, remove bool) error {
	if s.link != nil { // otherwise it never came into service
		r.release(s, cause)
	}
	return r.dir.CloseShard(s.Number, remove)
}

// takeBack goes on with a shard that was released.
func (r *Replica) takeBack(ctx context.Context, old *shard) error {
	n := old.Number
	if err := r.dir.CloseShard(n, false); err != nil {
		return err
	}
	at := time.Now()
	s, err := r.openEmpty(n)
	if err != nil {
		return err
	}
	if f, ok := s.Replayed().(*record.Fold); ok && f != nil {
		r.journals.Learn(s.Shard, f)
	}
	s.Away = func() time.Duration { return time.Since(at) }
	s.standing = old.standing
	s.standing.TakeBack()
	s.permit = r.permit(n, old.permit.own.Load())
	ctx, end := r.answering(ctx)
	defer end()
	if err := r.serveShard(ctx, s); err != nil {
		return errors.Join(err, r.drop(s, r.suspended(), false))
	}
	return nil
}

// lose gives a shard up that another replica serves: nothing is sent, and what its modules
// have not taken is discarded.
func (r *Replica) lose(s *shard) {
	r.log.Warn("another replica serves a shard of this one: its cars are given up silently", "shard", s.Number, "epoch", s.epoch())
	r.release(s, link.ErrFenced)
	if fold, err := s.Reread(); err == nil {
		r.tellDiscarded(s.Number, fold.(*record.Fold))
	}
	if err := r.dir.CloseShard(s.Number, true); err != nil {
		r.log.Warn("the journal of a shard that was given up cannot be removed", "shard", s.Number, "error", err)
	}
}
