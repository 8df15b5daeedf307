package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/cluster/fence"
	"external-server/internal/link"
	"external-server/internal/session/record"
)

// Open implements cluster.Host. What the cars' sessions go on with is, in this order, what
// the owner before has handed over, this replica's own journal if no other one has served the
// shard since, or the records that the broker has.
func (p *clusterPart) Open(ctx context.Context, n int, epoch int64) error {
	p.turns[n].Lock()
	defer p.turns[n].Unlock()
	ctx, end := p.answering(ctx)
	defer end()
	return heldUp(ctx, p.open(ctx, n, epoch))
}

func (p *clusterPart) open(ctx context.Context, n int, epoch int64) error {
	begun := time.Now()
	lease, _ := p.cluster.Lease()
	if err := p.staleInStore(ctx, n, epoch); err != nil {
		return err
	}
	if s := p.a.sessions.shards[n].Load(); s != nil {
		return p.announce(s, epoch, lease)
	}
	known, found, err := fence.Read(ctx, p.broker(), p.name, n)
	if err != nil {
		return err
	}
	if found && (known.Epoch > epoch || known.Epoch == epoch && known.Replica != p.self.Replica) {
		return &cluster.StaleError{Shard: n, Epoch: epoch, Known: known.Epoch}
	}
	s, how, err := p.inherit(ctx, n, p.epoch(epoch), known)
	if err != nil {
		return fmt.Errorf("shard %d: %w", n, err)
	}
	s.epoch.Store(epoch)
	s.permit = p.permit(n, lease)
	if s.standing == nil { // it goes on where the owner before has ended
		s.standing = fence.NewStanding(p.epoch(epoch), known.Epoch)
	}
	if err := p.serveShard(ctx, s); err != nil {
		return fmt.Errorf("shard %d: %w", n, errors.Join(err, p.drop(s, p.suspended(), false)))
	}
	p.log.Info("serving a shard", "shard", n, "epoch", epoch, "sessions_from", how, "took", time.Since(begun).Round(time.Millisecond).String())
	return nil
}

// inherit opens the journal of a shard with all that is known of its cars. how says where
// that came from.
func (p *clusterPart) inherit(ctx context.Context, n int, own, known fence.Epoch) (s *shard, how string, err error) {
	sessions, cfg := p.a.sessions, p.a.Config()
	if o := p.offers.take(n, known.Epoch); o != nil {
		if err := p.discard(n); err != nil {
			return nil, "", err
		}
		if s, err = sessions.openJournal(n, cfg); err != nil {
			return nil, "", err
		}
		s.down = func() time.Duration { return time.Since(o.at) }
		for _, record := range o.records {
			s.Append(record)
		}
		sessions.learn(s, o.fold, "")
		return s, "the owner before, " + known.Replica, p.noted(s, own.Epoch)
	}
	if known.Epoch == 0 || sessions.dir.Under(n, known.Epoch) {
		if s, err = sessions.openShard(n, cfg); err != nil {
			return nil, "", err
		}
		sessions.suspect(s, sessions.dir.Deaths(), cfg)
		return s, "this replica's journal", p.noted(s, own.Epoch)
	}
	return p.seize(ctx, n, own)
}

// seize takes a shard over whose owner has not handed it over.
func (p *clusterPart) seize(ctx context.Context, n int, own fence.Epoch) (s *shard, how string, err error) {
	sessions := p.a.sessions
	if err := p.discard(n); err != nil {
		return nil, "", err
	}
	kept, err := fence.Seize(ctx, p.broker(), p.name, n, own)
	if errors.Is(err, link.ErrFenced) {
		return nil, "", &cluster.StaleError{Shard: n, Epoch: own.Epoch, Known: own.Epoch + 1}
	}
	if err != nil {
		return nil, "", err
	}
	records, err := fence.Records(ctx, p.broker(), p.name, n)
	if err != nil {
		return nil, "", err
	}
	if s, err = sessions.openJournal(n, p.a.Config()); err != nil {
		return nil, "", err
	}
	s.down = func() time.Duration { return 0 } // the records say that they are hints
	s.carried, s.standing = records, fence.NewStanding(own, own.Epoch)
	for id, data := range records {
		known, err := record.Carried(id.String(), data)
		if err != nil {
			p.log.Warn("the session of a car cannot be taken over, it connects anew", "car", id, "error", err)
			sessions.decline("unreadable")
			continue
		}
		if !kept { // what came meanwhile is lost
			known.Record = nil
			sessions.decline("forgotten by the broker")
		}
		s.known[id.String()] = known
	}
	return s, "the broker's records", p.noted(s, own.Epoch)
}

// noted writes the journal of a shard that is about to be served, and under which epoch.
func (p *clusterPart) noted(s *shard, epoch int64) error {
	_ = s.Flush() // told by OnFault
	if err := p.a.sessions.dir.SetEpoch(s.number, epoch); err != nil {
		return errors.Join(err, p.a.sessions.dir.CloseShard(s.number, false))
	}
	return nil
}

// discard removes a journal of this replica that others have gone on from. What its
// modules had not taken would overtake what they have taken since.
func (p *clusterPart) discard(n int) error {
	sessions := p.a.sessions
	s, err := sessions.openJournal(n, p.a.Config())
	if err != nil {
		return err
	}
	if f, ok := s.Replayed().(*record.Fold); ok && f != nil {
		p.tellDiscarded(n, f)
	}
	return sessions.dir.CloseShard(n, true)
}

// tellDiscarded counts and logs what modules were not given.
func (p *clusterPart) tellDiscarded(n int, f *record.Fold) {
	statuses, cars := 0, 0
	for _, name := range f.Cars() {
		if known, err := f.Car(name); err == nil && len(known.Left) > 0 {
			statuses += len(known.Left)
			cars++
		}
	}
	if statuses > 0 {
		p.discarded.Add(uint64(statuses))
		p.log.Warn("statuses that were answered and that no module has taken are discarded: another replica has served their cars since",
			"shard", n, "statuses", statuses, "cars", cars)
	}
}

// serveShard attaches the cars and connects. It returns when they are answered.
func (p *clusterPart) serveShard(ctx context.Context, s *shard) error {
	a := p.a
	s.carrier = fence.NewCarrier(p.name, s.number)
	child, err := a.linkTo.child(s)
	if err != nil {
		return err
	}
	s.link, s.permit.broker = child, child
	if err := a.shards.Put(s.number, child); err != nil {
		return err
	}
	a.sessions.shards[s.number].Store(s)
	a.peers.owners.notify()
	if err := a.roster.openShard(ctx, s); err != nil {
		return err
	}
	a.sessions.forgetUnserved(s)
	s.carrier.Settle(s.carried)
	s.carried = nil
	ended := make(chan error, 1)
	a.shards.Start(s.number, func(err error) {
		ended <- err
		p.fenced(s, err)
	})
	return p.connected(ctx, s, ended)
}

// connected waits until the cars of a shard are answered.
func (p *clusterPart) connected(ctx context.Context, s *shard, ended <-chan error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, upWait, errors.New("the broker has not accepted the connection and the subscriptions"))
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		state := s.link.State()
		switch {
		case state.Up:
			return nil
		case state.Refused > 0: // told by the link, and asked again
			return nil
		}
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			if state.LastError != "" {
				return fmt.Errorf("%w: %s", context.Cause(ctx), state.LastError)
			}
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// announce goes on serving a shard under another epoch: its claim had vanished, and no
// other replica has taken it.
func (p *clusterPart) announce(s *shard, epoch, lease int64) error {
	if known := s.epoch.Load(); epoch < known { // etcd was restored
		return &cluster.StaleError{Shard: s.number, Epoch: epoch, Known: known}
	}
	if err := p.a.sessions.dir.SetEpoch(s.number, epoch); err != nil {
		return err
	}
	s.standing.Claim(epoch)
	s.epoch.Store(epoch)
	s.permit.own.Store(lease)
	s.link.Announce()
	p.a.peers.owners.notify()
	p.log.Info("serving a shard on under another epoch", "shard", s.number, "epoch", epoch)
	return nil
}

// Ask implements cluster.Host.
func (p *clusterPart) Ask(ctx context.Context, n int) (cluster.Answer, error) {
	known, found, err := fence.Read(ctx, p.broker(), p.name, n)
	if err != nil {
		return cluster.Answer{}, err
	}
	if !found || known.Replica == p.self.Replica || known.Address == "" || p.offers.has(n, known.Epoch) {
		return cluster.Answer{}, nil
	}
	state, err := p.askPeer(ctx, known.Address, n)
	if err != nil || state.State != peerServing || state.Replica != known.Replica {
		return cluster.Answer{}, nil // silence, or somebody else at its address
	}
	return cluster.Answer{Serving: true, Owner: cluster.Owner{Replica: known.Replica, Address: known.Address, Epoch: state.Epoch, State: cluster.ClaimServing}}, nil
}
