package replica

import (
	"fmt"
	"slices"
	"strings"

	"external-server/internal/cluster"
)

// Ready tells how the part of this replica in the cluster is, and why it is not ready; of
// what is ready, what there is to know.
func (r *Replica) Ready() (ready bool, reason string) { return readiness(r.cluster.View(), r.Health()) }

// readiness judges what a replica knows of its cluster; health is its own.
func readiness(view *cluster.View, health error) (ready bool, reason string) {
	var unready, hints []string
	if health != nil {
		unready = append(unready, "this replica cannot serve: "+health.Error())
	}
	if self, ok := view.Member(view.Self); ok && self.State == cluster.StateDraining {
		unready = append(unready, "this replica is draining: it gives its cars to the others, and takes none until it is started anew")
	}
	if !view.Connected {
		text := "this replica cannot use etcd; the cars that it has are served on, and no shard moves"
		if view.Problem != "" {
			text += ": " + view.Problem
		}
		unready = append(unready, text)
	} else {
		var without []string
		opening := 0
		for n, owner := range view.Shards {
			switch {
			case owner.Replica == "":
				without = append(without, fmt.Sprint(n))
			case owner.Replica == view.Self && owner.State == cluster.ClaimOpening:
				opening++
			}
		}
		if opening > 0 {
			unready = append(unready, fmt.Sprintf("%d shards are being opened here", opening))
		}
		if len(without) > 0 {
			unready = append(unready, fmt.Sprintf("%d of %d shards have no owner: %s", len(without), len(view.Shards), strings.Join(without, ", ")))
		}
	}
	if others, odd := differing(view); len(others) > 0 {
		text := "the configuration differs from that of " + strings.Join(others, ", ")
		if odd {
			unready = append(unready, text)
		} else {
			hints = append(hints, text)
		}
	}
	return len(unready) == 0, strings.Join(append(unready, hints...), "; ")
}

// differing names the members whose configuration of the fleet is another one. odd: more
// replicas have another one than have this one's.
func differing(view *cluster.View) (others []string, odd bool) {
	self, ok := view.Member(view.Self)
	if !ok || self.Fingerprint == "" {
		return nil, false
	}
	for _, m := range view.Members {
		if m.Fingerprint != self.Fingerprint {
			others = append(others, m.Name)
		}
	}
	slices.Sort(others)
	return others, len(others) > len(view.Members)-len(others)
}
