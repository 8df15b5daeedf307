package replica

import (
	"context"
	"time"

	"external-server/internal/cluster"
)

// storeTime bounds the question about the epoch in the store: a store that does not answer
// holds no shard up.
const storeTime = time.Second

// staleInStore tells that the message store of the HTTP API knows an epoch of a shard that
// is not below this replica's: broker and etcd have lost what they knew, or another owner
// was faster.
func (r *Replica) staleInStore(ctx context.Context, n int, epoch int64) error {
	if r.opts.StoreEpoch == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	known, replica, err := r.opts.StoreEpoch(ctx, n)
	if err != nil || known < epoch || known == epoch && replica == r.self.Replica {
		return nil //nolint:nilerr // the HTTP API tells of its store itself
	}
	return &cluster.StaleError{Shard: n, Epoch: epoch, Known: known}
}
