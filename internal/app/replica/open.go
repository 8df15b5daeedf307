package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/cluster/fence"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/session/record"
)

// Open implements cluster.Host. What the cars' sessions go on with is, in this order, what
// the owner before has handed over, this replica's own journal if no other one has served the
// shard since, or the records that the broker has.
func (r *Replica) Open(ctx context.Context, n int, epoch int64) error {
	r.turns[n].Lock()
	defer r.turns[n].Unlock()
	ctx, end := r.answering(ctx)
	defer end()
	return heldUp(ctx, r.open(ctx, n, epoch))
}

func (r *Replica) open(ctx context.Context, n int, epoch int64) error {
	begun := time.Now()
	lease, _ := r.cluster.Lease()
	if err := r.staleInStore(ctx, n, epoch); err != nil {
		return err
	}
	if s := r.shards[n].Load(); s != nil {
		return r.announce(s, epoch, lease)
	}
	known, found, err := fence.Read(ctx, r.broker(), r.name, n)
	if err != nil {
		return err
	}
	if found && (known.Epoch > epoch || known.Epoch == epoch && known.Replica != r.self.Replica) {
		return &cluster.StaleError{Shard: n, Epoch: epoch, Known: known.Epoch}
	}
	s, how, err := r.inherit(ctx, n, r.epoch(epoch), known)
	if err != nil {
		return fmt.Errorf("shard %d: %w", n, err)
	}
	s.permit = r.permit(n, lease)
	if s.standing == nil { // it goes on where the owner before has ended
		s.standing = fence.NewStanding(r.epoch(epoch), known.Epoch)
	}
	if err := r.serveShard(ctx, s); err != nil {
		return fmt.Errorf("shard %d: %w", n, errors.Join(err, r.drop(s, r.suspended(), false)))
	}
	r.log.Info("serving a shard", "shard", n, "epoch", epoch, "sessions_from", how, "took", time.Since(begun).Round(time.Millisecond).String())
	return nil
}

// inherit opens the journal of a shard with all that is known of its cars. how says where
// that came from.
func (r *Replica) inherit(ctx context.Context, n int, own, known fence.Epoch) (s *shard, how string, err error) {
	if o := r.offers.take(n, known); o != nil {
		if err := r.discard(n); err != nil {
			return nil, "", err
		}
		if s, err = r.openEmpty(n); err != nil {
			return nil, "", err
		}
		s.Away = func() time.Duration { return time.Since(o.at) }
		for _, record := range o.records {
			s.Append(record)
		}
		r.journals.Learn(s.Shard, o.fold)
		return s, "the owner before, " + known.Replica, r.noted(s, own.Epoch)
	}
	if known.Epoch == 0 || r.dir.Under(n, known.Epoch) {
		left, err := r.journals.OpenShard(n, r.opts.Config())
		if err != nil {
			return nil, "", err
		}
		s = &shard{Shard: left}
		return s, "this replica's journal", r.noted(s, own.Epoch)
	}
	return r.seize(ctx, n, own)
}

// seize takes a shard over whose owner has not handed it over.
func (r *Replica) seize(ctx context.Context, n int, own fence.Epoch) (s *shard, how string, err error) {
	if err := r.discard(n); err != nil {
		return nil, "", err
	}
	kept, err := fence.Seize(ctx, r.broker(), r.name, n, own)
	if errors.Is(err, link.ErrFenced) {
		return nil, "", &cluster.StaleError{Shard: n, Epoch: own.Epoch, Known: own.Epoch + 1}
	}
	if err != nil {
		return nil, "", err
	}
	records, err := fence.Records(ctx, r.broker(), r.name, n)
	if err != nil {
		return nil, "", err
	}
	if s, err = r.openEmpty(n); err != nil {
		return nil, "", err
	}
	s.Away = func() time.Duration { return 0 } // the records say that they are hints
	s.carried, s.standing = records, fence.NewStanding(own, own.Epoch)
	var unreadable unreadables
	for id, data := range records {
		known, err := record.Carried(id.String(), data)
		if err != nil {
			unreadable.add(id, err)
			r.journals.Decline("unreadable")
			continue
		}
		if !kept { // what came meanwhile is lost
			known.Record = nil
			r.journals.Decline("forgotten by the broker")
		}
		s.Know(id.String(), known)
	}
	unreadable.tell(r.log, r.name, n)
	return s, "the broker's records", r.noted(s, own.Epoch)
}

// unreadables are the records of a shard that cannot be read. Strangers may have left thousands, so they are told of in one line.
type unreadables struct {
	count int
	first fleet.CarID // in the order of the names
	err   error       // of the first
}

func (u *unreadables) add(car fleet.CarID, err error) {
	if u.count++; u.count == 1 || car.String() < u.first.String() {
		u.first, u.err = car, err
	}
}

func (u *unreadables) tell(log *slog.Logger, cluster string, shard int) {
	if u.count == 0 {
		return
	}
	log.Warn("records of sessions at the broker cannot be read, their cars connect anew; remove the records of cars that do not exist by publishing empty retained messages",
		"shard", shard, "records", u.count, "topic", fence.RecordTopic(cluster, shard, u.first), "error", u.err)
}

// noted writes the journal of a shard that is about to be served, and under which epoch.
func (r *Replica) noted(s *shard, epoch int64) error {
	_ = s.Flush() // told by OnFault
	if err := r.dir.SetEpoch(s.Number, epoch); err != nil {
		return errors.Join(err, r.dir.CloseShard(s.Number, false))
	}
	return nil
}

// discard removes a journal of this replica that others have gone on from. What its
// modules had not taken would overtake what they have taken since.
func (r *Replica) discard(n int) error {
	s, err := r.openEmpty(n)
	if err != nil {
		return err
	}
	if f, ok := s.Replayed().(*record.Fold); ok && f != nil {
		r.tellDiscarded(n, f)
	}
	return r.dir.CloseShard(n, true)
}

// tellDiscarded counts and logs what modules were not given.
func (r *Replica) tellDiscarded(n int, f *record.Fold) {
	statuses, cars := 0, 0
	for _, name := range f.Cars() {
		if known, err := f.Car(name); err == nil && len(known.Left) > 0 {
			statuses += len(known.Left)
			cars++
		}
	}
	if statuses > 0 {
		r.discarded.Add(uint64(statuses))
		r.log.Warn("statuses that were answered and that no module has taken are discarded: another replica has served their cars since",
			"shard", n, "statuses", statuses, "cars", cars)
	}
}

// serveShard attaches the cars and connects. It returns when they are answered.
func (r *Replica) serveShard(ctx context.Context, s *shard) error {
	s.carrier = fence.NewCarrier(r.name, s.Number)
	child, err := r.connection(s)
	if err != nil {
		return err
	}
	s.link, s.permit.broker = child, child
	s.Carrier, s.Permit = s.carrier, s.permit
	if err := r.opts.Shards.Put(s.Number, child); err != nil {
		return err
	}
	r.shards[s.Number].Store(s)
	r.journals.Enter(s.Shard)
	r.opts.Owners.notify()
	if err := r.cars.OpenShard(ctx, s.Shard); err != nil {
		return err
	}
	r.journals.ForgetUnserved(s.Shard)
	s.carrier.Settle(s.carried)
	s.carried = nil
	ended := make(chan error, 1)
	r.opts.Shards.Start(s.Number, func(err error) {
		ended <- err
		r.fenced(s, err)
	})
	return r.connected(ctx, s, ended)
}

// connected waits until the cars of a shard are answered.
func (r *Replica) connected(ctx context.Context, s *shard, ended <-chan error) error {
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
func (r *Replica) announce(s *shard, epoch, lease int64) error {
	if known := s.epoch(); epoch < known { // etcd was restored
		return &cluster.StaleError{Shard: s.Number, Epoch: epoch, Known: known}
	}
	if err := r.dir.SetEpoch(s.Number, epoch); err != nil {
		return err
	}
	s.standing.Claim(epoch)
	s.permit.own.Store(lease)
	s.link.Announce()
	r.opts.Owners.notify()
	r.log.Info("serving a shard on under another epoch", "shard", s.Number, "epoch", epoch)
	return nil
}

// Ask implements cluster.Host.
func (r *Replica) Ask(ctx context.Context, n int) (cluster.Answer, error) {
	known, found, err := fence.Read(ctx, r.broker(), r.name, n)
	if err != nil {
		return cluster.Answer{}, err
	}
	if !found || known.Replica == r.self.Replica || known.Address == "" || r.offers.has(n, known) {
		return cluster.Answer{}, nil
	}
	state, err := r.askPeer(ctx, known.Address, n)
	if err != nil || state.State != peerServing || state.Replica != known.Replica {
		return cluster.Answer{}, nil // silence, or somebody else at its address
	}
	return cluster.Answer{Serving: true, Owner: cluster.Owner{Replica: known.Replica, Address: known.Address, Epoch: state.Epoch, State: cluster.ClaimServing}}, nil
}
