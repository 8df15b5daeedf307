package app

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"

	"external-server/internal/cluster"
	"external-server/internal/fleet"
	"external-server/internal/httpapi/core"
	"external-server/internal/link/mqtt"
)

// owners tells the HTTP API and the admin endpoint who serves which car. They are made
// before the cluster is joined: until then no shard has an owner.
type owners struct {
	a      *App
	shards int
	joined atomic.Bool // what is asked may be read

	mu      sync.Mutex
	changed chan struct{}
}

func newOwners(a *App, shards int) *owners {
	return &owners{a: a, shards: shards, changed: make(chan struct{})}
}

// notify says that something has changed.
func (o *owners) notify() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
}

// Changed implements core.Owners.
func (o *owners) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// Shards implements core.Owners.
func (o *owners) Shards() int { return o.shards }

// Shard implements core.Owners.
func (o *owners) Shard(car fleet.CarID) int { return mqtt.Shard(car, o.shards) }

// Owner implements core.Owners. What this replica serves it knows better than etcd.
func (o *owners) Owner(shard int) core.Owner {
	if !o.joined.Load() {
		return core.Owner{}
	}
	p := o.a.cluster
	if s := o.a.sessions.shards[shard].Load(); s != nil {
		return core.Owner{Self: true, Epoch: s.epoch.Load(), Replica: p.self.Replica}
	}
	owner := p.cluster.View().Shards[shard]
	if owner.Replica == p.self.Replica {
		return core.Owner{} // it is being opened, or closed
	}
	return core.Owner{Epoch: owner.Epoch, Replica: owner.Replica, Address: owner.Address}
}

// operators is the cluster as the admin endpoint sees it. It implements admin.Cluster.
type operators struct{ o *owners }

// View implements admin.Cluster.
func (v operators) View() *cluster.View {
	if !v.o.joined.Load() {
		return nil
	}
	return v.o.a.cluster.cluster.View()
}

// Drain implements admin.Cluster.
func (v operators) Drain() error {
	if !v.o.joined.Load() {
		return errors.New("this replica is joining the cluster and serves no car")
	}
	v.o.a.cluster.cluster.BeginDrain()
	return nil
}

// Shard implements admin.Cluster.
func (v operators) Shard(car string) int {
	return v.o.Shard(fleet.CarID{Company: v.o.a.Config().Company, Car: car})
}

// Ask implements admin.Cluster.
func (v operators) Ask(ctx context.Context, address string, r *http.Request) (*http.Response, error) {
	return v.o.a.peers.client.Do(ctx, address, r)
}
