package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"external-server/internal/cluster/fence"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/logging"
	"external-server/internal/observe"
)

const (
	healthTick = 250 * time.Millisecond
	// brokerPatience is for how long the broker may be out of reach before the shards go to
	// other replicas, which may reach it.
	brokerPatience = 2 * time.Second
	// probeEvery is how often the broker is asked while there is no connection to it.
	probeEvery = time.Second
	// stalledAfter is how late this loop may run.
	stalledAfter = 2 * time.Second
)

// look watches health and the claim of the scout until ctx ends.
func (p *clusterPart) look(ctx context.Context) {
	tick := time.NewTicker(healthTick)
	defer tick.Stop()
	defer func() { _ = p.a.shards.Scout(nil) }() // the watch has ended
	var reached, probed, last time.Time
	reached, last = time.Now(), time.Now()
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
		case !fit:
			if now.Sub(probed) >= probeEvery {
				probed = now
				fit = p.check(ctx)
				reached = time.Now()
			}
		case p.connections(true):
			reached = now
		case p.connections(false) && now.Sub(reached) < brokerPatience: // not yet noticed
		case now.Sub(probed) >= probeEvery:
			probed = now
			if p.probe(ctx) {
				reached = time.Now()
			}
		}
		if fit {
			p.judge(now.Sub(reached) > brokerPatience, late > stalledAfter+healthTick, late)
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

// connections tells whether any shard has a connection; not up: whether there is any shard.
func (p *clusterPart) connections(up bool) bool {
	return slices.ContainsFunc(p.a.sessions.inService(), func(s *shard) bool {
		state, ok := p.a.shards.StateOf(s.number)
		return ok && (!up || slices.ContainsFunc(state.Connections, func(c link.ConnectionState) bool { return c.Up }))
	})
}

// probe tells whether the broker answers over another connection.
func (p *clusterPart) probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeEvery)
	defer cancel()
	_, _, err := fence.Read(ctx, p.broker(), p.name, 0)
	return err == nil
}

// judge says whether this replica can serve.
func (p *clusterPart) judge(noBroker, stalled bool, late time.Duration) {
	var faults []string
	if noBroker {
		faults = append(faults, "the broker does not answer")
	}
	if stalled {
		faults = append(faults, fmt.Sprintf("this process stood still for %v", late.Round(time.Millisecond)))
	}
	for _, m := range p.a.libraries.processes() {
		if m.OutOfService {
			faults = append(faults, "module "+m.Name+" is out of service")
		}
	}
	if len(faults) == 0 {
		p.health.Store(nil)
		return
	}
	err := errors.New(strings.Join(faults, "; "))
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
