package app

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
func (p *clusterPart) Close(ctx context.Context, n int, to cluster.Member, lost bool) error {
	p.turns[n].Lock()
	defer p.turns[n].Unlock()
	s := p.a.sessions.shards[n].Load()
	switch {
	case s == nil:
		return nil
	case lost:
		p.lose(s)
		return nil
	case to.Name == "" && p.final.Load(): // the stop ends its sessions
		return nil
	case to.Name == "":
		endPolling(p.a.roster.inShard(s), p.a.Config().Limits.Stop/lastPollsShare)
		return p.drop(s, p.suspended(), false)
	}
	if err := p.handOver(ctx, s, to); err != nil {
		return fmt.Errorf("shard %d: %w", n, err)
	}
	return nil
}

// suspended is the cause with which a link ends whose sessions go on elsewhere: in order, or
// without a word when the broker does not answer.
func (p *clusterPart) suspended() error {
	if p.silent() {
		return link.ErrUnheard
	}
	return link.ErrSuspend
}

// handOver gives a shard with its sessions to another replica. After an error this one
// serves it on, unless it is a cluster.ErrLeft.
func (p *clusterPart) handOver(ctx context.Context, s *shard, to cluster.Member) error {
	n, epoch := s.number, s.epoch.Load()
	if p.silent() {
		switch reached, err := p.reaches(ctx, to, n); {
		case err != nil:
			return err
		case !reached:
			p.release(s, link.ErrUnheard)
			return p.leaveBehind(s, fmt.Errorf("replica %s does not answer this one", to.Name))
		}
	} else {
		p.settleDown(ctx, s)
	}
	// While the cars are served: a module may need as long for this as its timeout is.
	endPolling(p.a.roster.inShard(s), p.a.Config().Limits.Stop/lastPollsShare)
	begun := time.Now()
	p.release(s, p.suspended())
	err := p.offer(ctx, s, to)
	if err != nil && p.silent() { // here it cannot go on
		return p.leaveBehind(s, err)
	}
	if err == nil {
		if err := p.a.sessions.dir.CloseShard(n, true); err != nil {
			p.log.Warn("the journal of a shard that was handed over cannot be removed", "shard", n, "error", err)
		}
		p.log.Debug("handed a shard over", "shard", n, "to", to.Name, "took", time.Since(begun).Round(time.Millisecond).String())
		return nil
	}
	err = fmt.Errorf("hand over to %s: %w", to.Name, err)
	if back := p.takeBack(ctx, s, epoch); back != nil {
		return fmt.Errorf("%w: %w", cluster.ErrLeft, errors.Join(err, back))
	}
	return err
}

// reaches asks the next owner of a shard whether the broker answers it: when it answers no
// replica, shards stay where they are. If this replica cannot ask, the word of etcd counts, which
// is a second older: false then.
func (p *clusterPart) reaches(ctx context.Context, to cluster.Member, n int) (bool, error) {
	state, err := p.askPeer(ctx, to.Address, n)
	if err != nil {
		view := p.cluster.View()
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
func (p *clusterPart) leaveBehind(s *shard, why error) error {
	return errors.Join(fmt.Errorf("%w: %w", cluster.ErrLeft, why), p.a.sessions.dir.CloseShard(s.number, false))
}

// settleDown waits for connect sequences, which no other replica could go on with, while the broker answers.
func (p *clusterPart) settleDown(ctx context.Context, s *shard) {
	ctx, end := p.answering(ctx)
	defer end()
	late := time.NewTimer(handOverWait)
	defer late.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.a.roster.connecting(s) {
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
func (p *clusterPart) release(s *shard, cause error) {
	a := p.a
	s.Serving(s.link.State().Up)
	s.suspending.Store(true)
	a.sessions.shards[s.number].Store(nil) // no car is attached any more
	a.peers.owners.notify()
	a.shards.End(s.number, cause)
	a.roster.closeShard(s, cause, errors.Is(cause, link.ErrSuspend) && s.link.Settled())
	a.shards.Take(s.number, cause)
	s.Serving(false)
	_ = s.Flush() // told by OnFault
}

// drop ends a shard and closes its journal, or removes it.
func (p *clusterPart) drop(s *shard, cause error, remove bool) error {
	p.release(s, cause)
	return p.a.sessions.dir.CloseShard(s.number, remove)
}

// takeBack goes on with a shard that was released.
func (p *clusterPart) takeBack(ctx context.Context, old *shard, epoch int64) error {
	sessions, n := p.a.sessions, old.number
	if err := sessions.dir.CloseShard(n, false); err != nil {
		return err
	}
	at := time.Now()
	s, err := sessions.openJournal(n, p.a.Config())
	if err != nil {
		return err
	}
	if f, ok := s.Replayed().(*record.Fold); ok && f != nil {
		sessions.learn(s, f, "")
	}
	s.down = func() time.Duration { return time.Since(at) }
	s.standing = old.standing
	s.epoch.Store(epoch)
	s.permit = p.permit(n, old.permit.own.Load())
	ctx, end := p.answering(ctx)
	defer end()
	if err := p.serveShard(ctx, s); err != nil {
		return errors.Join(err, p.drop(s, p.suspended(), false))
	}
	return nil
}

// lose gives a shard up that another replica serves: nothing is sent, and what its modules
// have not taken is discarded.
func (p *clusterPart) lose(s *shard) {
	p.log.Warn("another replica serves a shard of this one: its cars are given up silently", "shard", s.number, "epoch", s.epoch.Load())
	p.release(s, link.ErrFenced)
	if fold, err := s.Reread(); err == nil {
		p.tellDiscarded(s.number, fold.(*record.Fold))
	}
	if err := p.a.sessions.dir.CloseShard(s.number, true); err != nil {
		p.log.Warn("the journal of a shard that was given up cannot be removed", "shard", s.number, "error", err)
	}
}
