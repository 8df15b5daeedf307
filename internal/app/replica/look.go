package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/cluster/fence"
	"external-server/internal/link/mqtt"
	"external-server/internal/observe"
)

const (
	healthTick = 250 * time.Millisecond
	// checkEvery is the pause between two questions whether the broker is one for a cluster.
	checkEvery = time.Second
	// stalledAfter is how late this loop may run.
	stalledAfter = 2 * time.Second
)

// Look watches health and the claim of the scout until ctx ends.
func (r *Replica) Look(ctx context.Context) {
	tick := time.NewTicker(healthTick)
	defer tick.Stop()
	defer func() { _ = r.opts.Shards.Scout(nil) }() // the watch has ended
	probes := &probes{r: r}
	defer probes.work.Wait()
	var checked time.Time
	last := time.Now()
	contact := contact{limit: r.timing.Unwell}
	scouting, fit := false, false
	for {
		changed := r.cluster.Changed() // asked for before the view
		view := r.cluster.View()
		if on := view.Scout == r.self.Replica && r.opts.Config().AnyCar != nil; on != scouting {
			if err := r.scout(on); err != nil {
				r.log.Error("unknown cars cannot be looked for", "error", err)
			} else {
				scouting = on
			}
		}
		r.offers.expire()
		now := time.Now()
		r.reach.look(ctx, now, &probes.work, view)
		late := now.Sub(last)
		switch {
		case fit:
			contact.look(now, r.witness(*r.heardAt.Load()))
			if contact.wantsProbe() {
				probes.ask(ctx)
			}
			r.judge(contact.lost(), late > stalledAfter+healthTick, late)
			if r.silent() {
				r.inquire(ctx, &probes.work, view)
			} else {
				r.inquiries.forget()
			}
		case now.Sub(checked) >= checkEvery && view.Connected: // in etcd, this replica agrees with the others on the number of shards
			if checked, fit = now, r.check(ctx); fit {
				contact.look(time.Now(), time.Now())
				r.judge(nil, false, 0)
			}
		}
		last = time.Now()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changed:
			r.opts.Owners.notify()
		}
	}
}

// check tells whether the broker is one that replicas can share. Until it was asked no shard
// is claimed.
func (r *Replica) check(ctx context.Context) bool {
	err := fence.Check(ctx, r.broker(), r.name)
	if err == nil {
		err = r.unshared(ctx)
	}
	if err == nil || ctx.Err() != nil {
		return err == nil
	}
	if before := r.Health(); before == nil || before.Error() != err.Error() {
		r.log.Warn("this replica cannot take part yet; it serves no car until it can", "reason", err)
	}
	r.health.Store(&err)
	return false
}

// probes ask the broker over connections of their own, one at a time, beside the loop: a
// network that swallows everything holds each of them up.
type probes struct {
	r    *Replica
	work sync.WaitGroup
	busy atomic.Bool
}

func (p *probes) ask(ctx context.Context) {
	if !p.busy.CompareAndSwap(false, true) {
		return
	}
	p.work.Go(func() {
		defer p.busy.Store(false)
		ctx, cancel := context.WithTimeout(ctx, p.r.timing.Unwell)
		defer cancel()
		_, _, _ = fence.Read(ctx, p.r.broker(), p.r.name, 0) // an answer is noted when it comes, see heard
	})
}

// silent tells whether the broker does not answer this replica.
func (r *Replica) silent() bool {
	return errors.As(r.Health(), new(*cluster.NoBrokerError))
}

// judge says whether this replica can serve.
func (r *Replica) judge(lost *cluster.NoBrokerError, stalled bool, late time.Duration) {
	var faults []string
	if stalled {
		faults = append(faults, fmt.Sprintf("this process stood still for %v", late.Round(time.Millisecond)))
	}
	for _, m := range r.opts.Processes() {
		if m.OutOfService {
			faults = append(faults, "module "+m.Name+" is out of service")
		}
	}
	var err error
	switch {
	case lost != nil && len(faults) > 0:
		err = fmt.Errorf("%w; %s", lost, strings.Join(faults, "; "))
	case lost != nil:
		err = lost
	case len(faults) > 0:
		err = errors.New(strings.Join(faults, "; "))
	default:
		r.health.Store(nil)
		return
	}
	r.health.Store(&err)
}

// scout begins or ends the search for unknown cars.
func (r *Replica) scout(on bool) error {
	if !on {
		return r.opts.Shards.Scout(nil)
	}
	opts := r.opts.Link()
	opts.Presence, opts.Watching = "", true
	l, err := mqtt.New(opts)
	if err != nil {
		return err
	}
	return r.opts.Shards.Scout(l)
}

// State is what the metrics say of the cluster.
func (r *Replica) State() observe.ClusterState {
	return observe.ClusterState{View: r.cluster.View(), Counts: r.cluster.Counts(), Discarded: r.discarded.Load()}
}
