package app

import (
	"context"
	"errors"
	"sync/atomic"

	"external-server/internal/app/replica"
	"external-server/internal/cluster"
	"external-server/internal/config"
	"external-server/internal/link/mqtt"
	"external-server/internal/link/shards"
	"external-server/internal/logging"
	"external-server/internal/observe"
)

// clusterPart is this server's part in a cluster.
type clusterPart struct {
	a       *App
	replica *replica.Replica                // nil: there is no cluster
	shown   atomic.Pointer[replica.Replica] // the same, for those that ask from other goroutines; nil before it takes part

	runs  *task // the cluster
	looks *task // after health and scout
}

func (*clusterPart) keys() []string { return nil }

func (p *clusterPart) prepare(ctx context.Context, old, fresh *config.Config) (change, error) {
	a := p.a
	switch {
	case fresh.Cluster == nil:
		return change{}, nil
	case old != nil:
		return change{apply: func(context.Context) error {
			p.replica.Reloaded(fresh)
			return nil
		}}, nil
	}
	a.shards = shards.New(a.journals.Number)
	opts := replica.Options{
		Config: a.Config, Logger: component(a.log, logging.ComponentServer), Version: a.version, Journals: a.journals,
		Server: a.peers.server, Address: a.peers.address(fresh.Cluster), Client: a.peers.client, Owners: a.peers.owners,
		Shards: a.shards, Link: func() mqtt.Options { return a.linkTo.options(a.Config()) }, Processes: a.modules.Processes,
	}
	if a.api != nil {
		opts.StoreEpoch = a.api.StoreEpoch
	}
	if a.membership != nil {
		opts.Membership = func(host cluster.Host) replica.Membership { return a.membership(host, fresh) }
	}
	var err error
	p.replica, err = replica.Join(ctx, opts)
	return change{apply: p.begin}, err
}

// begin takes part in the cluster. It is called when cars can be attached.
func (p *clusterPart) begin(ctx context.Context) error {
	p.replica.Begin(p.a.roster)
	p.shown.Store(p.replica)
	p.looks = begin(ctx, func(ctx context.Context) error {
		p.replica.Look(ctx)
		return nil
	})
	p.runs = begin(ctx, func(ctx context.Context) error {
		defer p.a.end(nil)
		return p.replica.Run(ctx)
	})
	return nil
}

// leave gives the cars to the other replicas, at a stop.
func (p *clusterPart) leave(final bool) {
	if p.runs != nil {
		p.replica.Leave(final)
	}
}

func (p *clusterPart) stop() error {
	err := errors.Join(p.looks.stop(), p.runs.stop())
	if p.replica != nil {
		p.replica.End()
	}
	return err
}

// state is what the metrics say of the cluster.
func (p *clusterPart) state() (observe.ClusterState, bool) {
	r := p.shown.Load()
	if r == nil {
		return observe.ClusterState{}, false
	}
	return r.State(), true
}
