package app

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
	"external-server/internal/logging"
	"external-server/internal/observe"
)

const (
	healthTick = 250 * time.Millisecond
	// checkEvery is the pause between two questions whether the broker is one for a cluster.
	checkEvery = time.Second
	// stalledAfter is how late this loop may run.
	stalledAfter = 2 * time.Second
)

// look watches health and the claim of the scout until ctx ends.
func (p *clusterPart) look(ctx context.Context) {
	tick := time.NewTicker(healthTick)
	defer tick.Stop()
	defer func() { _ = p.a.shards.Scout(nil) }() // the watch has ended
	probes := p.newProbes()
	defer probes.work.Wait()
	var checked time.Time
	last := time.Now()
	contact := contact{limit: p.timing.Unwell}
	scouting, fit := false, false
	for {
		changed := p.cluster.Changed() // asked for before the view
		view := p.cluster.View()
		if on := view.Scout == p.self.Replica && p.a.Config().AnyCar != nil; on != scouting {
			if err := p.scout(on); err != nil {
				p.log.Error("unknown cars cannot be looked for", "error", err)
			} else {
				scouting = on
			}
		}
		p.offers.expire()
		now := time.Now()
		late := now.Sub(last)
		switch {
		case fit:
			contact.look(now, p.witness(probes.answered()))
			if contact.wantsProbe() {
				probes.ask(ctx)
			}
			p.judge(contact.lost(), late > stalledAfter+healthTick, late)
		case now.Sub(checked) >= checkEvery:
			if checked, fit = now, p.check(ctx); fit {
				contact.look(time.Now(), time.Now())
				p.judge(nil, false, 0)
			}
		}
		last = time.Now()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changed:
			p.a.peers.owners.notify()
		}
	}
}

// check tells whether the broker is one that replicas can share. Until it was asked no shard
// is claimed.
func (p *clusterPart) check(ctx context.Context) bool {
	err := fence.Check(ctx, p.broker(), p.name)
	if err == nil || ctx.Err() != nil {
		return err == nil
	}
	if before := p.Health(); before == nil || before.Error() != err.Error() {
		p.log.Warn("the broker cannot be used for a cluster now; no car is served until it can", "reason", err)
	}
	p.health.Store(&err)
	return false
}

// probes ask the broker over connections of their own, one at a time, beside the loop: a
// network that swallows everything holds each of them up.
type probes struct {
	p    *clusterPart
	work sync.WaitGroup
	busy atomic.Bool
	last atomic.Pointer[time.Time] // of an answer
}

func (p *clusterPart) newProbes() *probes {
	r := &probes{p: p}
	r.last.Store(new(time.Time))
	return r
}

func (r *probes) answered() time.Time { return *r.last.Load() }

func (r *probes) ask(ctx context.Context) {
	if !r.busy.CompareAndSwap(false, true) {
		return
	}
	r.work.Go(func() {
		defer r.busy.Store(false)
		ctx, cancel := context.WithTimeout(ctx, r.p.timing.Unwell)
		defer cancel()
		if _, _, err := fence.Read(ctx, r.p.broker(), r.p.name, 0); err == nil {
			now := time.Now()
			r.last.Store(&now)
		}
	})
}

// silent tells whether the broker does not answer this replica.
func (p *clusterPart) silent() bool {
	return errors.As(p.Health(), new(*cluster.NoBrokerError))
}

// judge says whether this replica can serve.
func (p *clusterPart) judge(lost *cluster.NoBrokerError, stalled bool, late time.Duration) {
	var faults []string
	if stalled {
		faults = append(faults, fmt.Sprintf("this process stood still for %v", late.Round(time.Millisecond)))
	}
	for _, m := range p.a.libraries.processes() {
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
		p.health.Store(nil)
		return
	}
	p.health.Store(&err)
}

// scout begins or ends the search for unknown cars.
func (p *clusterPart) scout(on bool) error {
	if !on {
		return p.a.shards.Scout(nil)
	}
	opts := p.a.linkTo.options(p.a.Config())
	opts.Watching = true
	opts.Logger = component(p.a.log, logging.ComponentLink)
	l, err := mqtt.New(opts)
	if err != nil {
		return err
	}
	return p.a.shards.Scout(l)
}

// state is what the metrics say of the cluster.
func (p *clusterPart) state() (observe.ClusterState, bool) {
	m := p.shown.Load()
	if m == nil {
		return observe.ClusterState{}, false
	}
	return observe.ClusterState{View: (*m).View(), Counts: (*m).Counts(), Discarded: p.discarded.Load()}, true
}
