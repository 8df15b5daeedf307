package replica

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
	"external-server/internal/peer"
)

// Owners tells the HTTP API and the admin endpoint who serves which car. They are made
// before the cluster is joined: until then no shard has an owner. Its methods may be called
// concurrently.
type Owners struct {
	shards int
	joined atomic.Pointer[Replica] // nil: not yet

	mu      sync.Mutex
	changed chan struct{}
}

// NewOwners returns those of so many shards; Options.Owners has the replica tell them.
func NewOwners(shards int) *Owners {
	return &Owners{shards: shards, changed: make(chan struct{})}
}

// notify says that something has changed.
func (o *Owners) notify() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
}

// Changed implements core.Owners.
func (o *Owners) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// Shards implements core.Owners.
func (o *Owners) Shards() int { return o.shards }

// Shard implements core.Owners.
func (o *Owners) Shard(car fleet.CarID) int { return mqtt.Shard(car, o.shards) }

// Owner implements core.Owners. What this replica serves it knows better than etcd.
func (o *Owners) Owner(shard int) core.Owner {
	r := o.joined.Load()
	if r == nil {
		return core.Owner{}
	}
	if s := r.shards[shard].Load(); s != nil {
		return core.Owner{Self: true, Epoch: s.epoch(), Replica: r.self.Replica}
	}
	owner := r.cluster.View().Shards[shard]
	if owner.Replica == r.self.Replica {
		return core.Owner{} // it is being opened, or closed
	}
	return core.Owner{Epoch: owner.Epoch, Replica: owner.Replica, Address: owner.Address}
}

// Operators is the cluster as the admin endpoint sees it. It implements admin.Cluster.
type Operators struct {
	Owners  *Owners
	Company string
	Client  *peer.Client // asks other replicas
}

// View implements admin.Cluster.
func (o Operators) View() *cluster.View {
	r := o.Owners.joined.Load()
	if r == nil {
		return nil
	}
	return r.cluster.View()
}

// Drain implements admin.Cluster.
func (o Operators) Drain() error {
	r := o.Owners.joined.Load()
	if r == nil {
		return errors.New("this replica is joining the cluster and serves no car")
	}
	r.cluster.BeginDrain()
	return nil
}

// Shard implements admin.Cluster.
func (o Operators) Shard(car string) int {
	return o.Owners.Shard(fleet.CarID{Company: o.Company, Car: car})
}

// Ask implements admin.Cluster.
func (o Operators) Ask(ctx context.Context, address string, req *http.Request) (*http.Response, error) {
	return o.Client.Do(ctx, address, req)
}
