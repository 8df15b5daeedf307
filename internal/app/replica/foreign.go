package replica

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"external-server/internal/cluster/fence"
)

// unshared is nil when no replica serves this cluster with another number of shards. etcd may have lost the
// number, and have it from a replica that has come since; the broker knows who has served. An
// owner that does not answer is fenced from all that it may still serve, as at a take-over.
func (r *Replica) unshared(ctx context.Context) error {
	own := len(r.turns)
	foreign, err := fence.Foreign(ctx, r.broker(), r.name, own)
	if err != nil {
		return err
	}
	asked := make(map[string]bool)
	for _, n := range slices.Sorted(maps.Keys(foreign)) {
		e := foreign[n]
		if e.Replica == r.self.Replica || e.Address == "" || asked[e.Address] {
			continue
		}
		asked[e.Address] = true
		state, err := r.askPeer(ctx, e.Address, 0)
		if err == nil && state.Replica == e.Replica && state.Shards != own {
			shards := max(state.Shards, e.Shards)
			return fmt.Errorf("replica %s at %s serves this cluster with %d shards, and this one is configured with %d; set cluster.shards to %d. To change it, end all servers of the cluster first",
				e.Replica, e.Address, shards, own, shards)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(foreign)) {
		if err := fence.Retire(ctx, r.broker(), r.name, n, foreign[n], r.self); err != nil {
			return err
		}
	}
	if len(foreign) > 0 {
		r.log.Info("the number of shards has changed: the owners before are fenced", "shards", own, "fenced", len(foreign))
	}
	return nil
}
