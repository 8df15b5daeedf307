package server

import (
	"context"
	"net/http"
	"time"

	"external-server/internal/httpapi/core"
)

// Cluster makes a Server one of several replicas that share a store, which must be
// PostgreSQL: each serves the cars of its shards and passes requests for the others on.
type Cluster struct {
	// Replica is the name of this one.
	Replica string
	Owners  core.Owners
	// Peers passes requests on; *peer.Client is one. The others serve PeerHandler at
	// PeerPrefix.
	Peers Peers
	// Hold is how long a request is held while its car has no owner; 0 is 10 s.
	Hold time.Duration
}

// Peers sends a request to the replica at an address and returns its answer.
type Peers interface {
	Do(ctx context.Context, address string, r *http.Request) (*http.Response, error)
}

// PeerPrefix is the path below which a replica serves the API to the others.
const PeerPrefix = "/v1/api"

// defaultHold is how long a request is held while its car has no owner. A lost replica's
// cars have one after the lease, 3 s by default, and the time to take them over.
const defaultHold = 10 * time.Second

// StoreEpoch returns the epoch of a shard that the store has noted and the replica that
// has noted it; 0 and "" when there is none. An owner with an epoch that is not higher can
// store nothing.
func (s *Server) StoreEpoch(ctx context.Context, shard int) (epoch int64, replica string, err error) {
	return s.core.StoreEpoch(ctx, shard)
}
