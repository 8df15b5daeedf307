package replica

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"external-server/internal/cluster"
	"external-server/internal/config/address"
)

// Ready tells whether this replica takes part in the cluster, and if not, why. If it
// does, reason is what operators should know all the same; it may be empty.
func (r *Replica) Ready() (ready bool, reason string) {
	ready, reason = readiness(r.cluster.View(), r.Health())
	if beyond := r.reach.beyond(); beyond != "" {
		reason = strings.TrimPrefix(reason+"; "+beyond, "; ")
	}
	return ready, reason
}

// readiness judges what a replica knows of its cluster; health is its own.
func readiness(view *cluster.View, health error) (ready bool, reason string) {
	var unready, hints []string
	if health != nil {
		unready = append(unready, "this replica cannot serve: "+health.Error())
	}
	self, member := view.Member(view.Self)
	switch {
	case !member:
		if view.Connected {
			unready = append(unready, "this replica is not among the members of the cluster yet")
		}
	case self.State == cluster.StateDraining:
		unready = append(unready, "this replica is draining: it gives its cars to the others, and takes none until it is started anew")
	case self.State == cluster.StateJoining && health == nil:
		unready = append(unready, "this replica is joining the cluster: the others give it no shards yet")
	case self.State == cluster.StateUnhealthy && health == nil:
		unready = append(unready, "this replica could not serve a moment ago: the others give it no shards yet")
	}
	if !view.Connected {
		text := "this replica cannot use etcd; the cars that it has are served on, and no shard moves"
		if view.Problem != "" {
			text += ": " + view.Problem
		}
		unready = append(unready, text)
	} else {
		reasons, cutOff := shardsOf(view)
		unready = append(unready, reasons...)
		if len(cutOff) > 0 {
			hints = append(hints, "shards are served by replicas that are no members, as those that cannot use etcd: "+some(cutOff))
		}
		if view.Notice != "" {
			unready = append(unready, view.Notice)
		}
	}
	if others, odd := differing(view); len(others) > 0 {
		text := "the configuration differs from that of " + some(others)
		if odd {
			unready = append(unready, text)
		} else {
			hints = append(hints, text)
		}
	}
	if hint := beyondReach(view); hint != "" {
		hints = append(hints, hint)
	}
	return len(unready) == 0, strings.Join(append(unready, hints...), "; ")
}

// beyondReach tells of a member with a loopback address that others on other machines are to reach it at: there it leads
// to themselves.
func beyondReach(view *cluster.View) string {
	for _, m := range view.Members {
		elsewhere := slices.ContainsFunc(view.Members, func(o cluster.Member) bool { return o.Host != m.Host && o.Host != "" && m.Host != "" })
		if elsewhere && address.Loopback(m.Address) {
			return fmt.Sprintf("replica %s on machine %s is a member with the address %s, at which replicas on other machines cannot reach it, so no shard is handed over: set its cluster.peer_listen or cluster.peer_address", m.Name, m.Host, m.Address)
		}
	}
	return ""
}

// shardsOf tells of shards that are not served as they should be, and of those whose owners have said so themselves because
// etcd has no claim of theirs.
func shardsOf(view *cluster.View) (reasons, cutOff []string) {
	var without, unknown []string
	opening := 0
	for n, owner := range view.Shards {
		_, member := view.Member(owner.Replica)
		switch {
		case owner.Replica == "":
			without = append(without, strconv.Itoa(n))
		case owner.Replica == view.Self && owner.State == cluster.ClaimOpening:
			opening++
		case owner.Replica != view.Self && !member && owner.Address != "": // it has answered there
			cutOff = append(cutOff, fmt.Sprintf("%d by %s", n, owner.Replica))
		case owner.Replica != view.Self && owner.State != "" && !member:
			unknown = append(unknown, fmt.Sprintf("%d by %s", n, owner.Replica))
		}
	}
	switch {
	case opening == 1:
		reasons = append(reasons, "1 shard is being opened here")
	case opening > 1:
		reasons = append(reasons, fmt.Sprintf("%d shards are being opened here", opening))
	}
	if len(without) > 0 {
		verb := "have"
		if len(without) == 1 {
			verb = "has"
		}
		reasons = append(reasons, fmt.Sprintf("%d of %d shards %s no owner: %s", len(without), len(view.Shards), verb, some(without)))
	}
	if len(unknown) > 0 {
		reasons = append(reasons, "shards are claimed by replicas that are no members: "+some(unknown))
	}
	return reasons, cutOff
}

// maxNamed bounds how many things a reason names.
const maxNamed = 8

// some lists what there is, or the first of it and how many more there are.
func some(all []string) string {
	if len(all) <= maxNamed {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:maxNamed], ", "), len(all)-maxNamed)
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
