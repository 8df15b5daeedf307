package app

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"external-server/internal/admin"
	"external-server/internal/cluster"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/link/mqtt"
	"external-server/internal/peer"
)

// clusterView is the cluster as the HTTP API and the admin endpoint see it. They are made
// before this replica joins, and know no owner until then. It implements httpapi.Owners and
// admin.Cluster.
type clusterView struct {
	self    string // name of this replica
	company string
	shards  int
	client  *peer.Client
	joins   chan struct{} // closed when cluster is set
	cluster atomic.Pointer[membership]
}

func newClusterView(cfg *config.Config, client *peer.Client) *clusterView {
	if cfg.Cluster == nil {
		return nil
	}
	return &clusterView{self: cfg.Cluster.Replica, company: cfg.Company, shards: cfg.Cluster.Shards, client: client, joins: make(chan struct{})}
}

// join makes the membership known, once.
func (v *clusterView) join(m membership) {
	v.cluster.Store(&m)
	close(v.joins)
}

// View implements admin.Cluster.
func (v *clusterView) View() *cluster.View {
	m := v.cluster.Load()
	if m == nil {
		return nil
	}
	view := (*m).View()
	if view == nil || view.Self == v.self {
		return view
	}
	own := *view
	own.Self = v.self
	return &own
}

// Drain implements admin.Cluster.
func (v *clusterView) Drain() error {
	m := v.cluster.Load()
	if m == nil {
		return errors.New("this replica is joining the cluster and serves no car")
	}
	(*m).BeginDrain()
	return nil
}

// Shard implements admin.Cluster.
func (v *clusterView) Shard(car string) int {
	return mqtt.Shard(fleet.CarID{Company: v.company, Car: car}, v.shards)
}

// Ask implements admin.Cluster.
func (v *clusterView) Ask(ctx context.Context, address string, r *http.Request) (*http.Response, error) {
	return v.client.Do(ctx, address, r)
}

// owners is the clusterView of the HTTP API, which has cars of all companies.
type owners struct{ *clusterView }

// Shards implements httpapi.Owners.
func (o owners) Shards() int { return o.shards }

// Shard implements httpapi.Owners.
func (o owners) Shard(car fleet.CarID) int { return mqtt.Shard(car, o.shards) }

// Owner implements httpapi.Owners.
func (o owners) Owner(n int) httpapi.Owner {
	view := o.View()
	if view == nil || n >= len(view.Shards) || view.Shards[n].Replica == "" {
		return httpapi.Owner{}
	}
	s := view.Shards[n]
	return httpapi.Owner{Self: s.Replica == o.self, Epoch: s.Epoch, Replica: s.Replica, Address: s.Address}
}

// Changed implements httpapi.Owners.
func (o owners) Changed() <-chan struct{} {
	if m := o.cluster.Load(); m != nil {
		return (*m).Changed()
	}
	return o.joins
}

// shareAPI is how the HTTP API shares its store with the other replicas; nil without
// cluster.
func (p *peersPart) shareAPI() *httpapi.Cluster {
	if p.view == nil {
		return nil
	}
	return &httpapi.Cluster{Replica: p.view.self, Owners: owners{p.view}, Peers: p.client}
}

// shareAdmin is the cluster for the admin endpoint; nil without.
func (p *peersPart) shareAdmin() admin.Cluster {
	if p.view == nil {
		return nil
	}
	return p.view
}

// serveAPI answers the requests of the HTTP API that other replicas pass on.
func (p *peersPart) serveAPI(api *httpapi.Server) {
	if p.server != nil {
		p.server.HandleWithin(httpapi.PeerPrefix+"/", peer.Limits{Body: httpapi.PeerBody, Requests: httpapi.PeerRequests}, api.PeerHandler())
	}
}

// serveAdmin answers what other replicas ask for operators.
func (p *peersPart) serveAdmin(endpoint *admin.Server) {
	if p.server != nil {
		p.server.HandleWithin(admin.PeerPrefix+"/", peer.Limits{Body: admin.PeerBody, Requests: admin.PeerRequests}, endpoint.PeerHandler())
	}
}

// storeTime bounds the question about the epoch in the store: a store that does not answer
// holds no shard up.
const storeTime = time.Second

// staleInStore tells that the message store knows an epoch of a shard that is not below
// this replica's: broker and etcd have lost what they knew, or another owner was faster.
func (p *clusterPart) staleInStore(ctx context.Context, n int, epoch int64) error {
	if p.a.api == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	known, replica, err := p.a.api.StoreEpoch(ctx, n)
	if err != nil || known < epoch || known == epoch && replica == p.self.Replica {
		return nil //nolint:nilerr // the HTTP API tells of its store itself
	}
	return &cluster.StaleError{Shard: n, Epoch: epoch, Known: known}
}

var (
	_ httpapi.Owners = owners{}
	_ admin.Cluster  = (*clusterView)(nil)
)
