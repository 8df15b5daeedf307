package observe

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"external-server/internal/cluster"
)

// ClusterState is what one replica says of the cluster and of its part in it. A metric
// says what this replica has or sees: shards are counted by their owner alone.
type ClusterState struct {
	View      *cluster.View
	Counts    cluster.Counts
	Discarded uint64 // answered statuses of shards that another replica has served since
}

// clusterMetrics are those of a replica.
type clusterMetrics struct {
	etcdUp, etcdSince, members, differ, scout scraped
	shards, epochs, taken, given, failed      scraped
	orphans, orphanAge, discarded             scraped
}

func newClusterMetrics(c *catalogue) clusterMetrics {
	return clusterMetrics{
		etcdUp:    c.scraped("cluster_etcd_up", "gauge", "1 when etcd answers and this replica is a member. Only in a cluster, as everything that begins with cluster."),
		etcdSince: c.scraped("cluster_etcd_state_seconds", "gauge", "Time since etcd was last reached or lost."),
		members:   c.scraped("cluster_members", "gauge", "Replicas as this one sees them, by state: joining, ready, unhealthy, draining.", "state"),
		differ:    c.scraped("cluster_members_differ", "gauge", "Replicas whose configuration differs from that of this one."),
		scout:     c.scraped("cluster_scout", "gauge", "1 when this replica looks out for cars found by \"*\"."),
		shards:    c.scraped("cluster_shards", "gauge", "Shards that this replica has claimed, by state: opening, serving, leaving.", "state"),
		epochs:    c.scraped("cluster_shard_epoch", "gauge", "Epoch of each shard that this replica serves. A shard has one such series among all replicas.", "shard"),
		taken:     c.scraped("cluster_shards_taken_total", "counter", "Shards that this replica has begun to serve: handed over by the owner before, taken without a word of it, claimed again after the claim had vanished.", "how"),
		given:     c.scraped("cluster_shards_given_total", "counter", "Shards that this replica serves no more: handed over to another one, lost to another one.", "how"),
		failed:    c.scraped("cluster_shards_failed_total", "counter", "Shards that this replica could not open."),
		orphans:   c.scraped("cluster_shards_without_owner", "gauge", "Shards without owner, as this replica sees it."),
		orphanAge: c.scraped("cluster_shards_without_owner_seconds", "gauge", "How long the one that has waited longest has no owner."),
		discarded: c.scraped("cluster_statuses_discarded_total", "counter", "Answered statuses that no module was given because another replica has served their cars since."),
	}
}

func (m *clusterMetrics) send(to chan<- prometheus.Metric, now time.Time, s ClusterState) {
	v := s.View
	m.etcdUp.send(to, number(v.Connected))
	m.etcdSince.send(to, now.Sub(v.Since).Seconds())
	states := map[string]int{cluster.StateJoining: 0, cluster.StateReady: 0, cluster.StateUnhealthy: 0, cluster.StateDraining: 0}
	differ := 0
	self, member := v.Member(v.Self)
	for _, other := range v.Members {
		states[other.State]++
		if member && other.Fingerprint != self.Fingerprint {
			differ++
		}
	}
	for state, n := range states {
		m.members.send(to, float64(n), state)
	}
	m.differ.send(to, float64(differ))
	m.scout.send(to, number(v.Scout == v.Self))
	claims := map[string]int{cluster.ClaimOpening: 0, cluster.ClaimServing: 0, cluster.ClaimLeaving: 0}
	orphans := 0
	for n, o := range v.Shards {
		switch o.Replica {
		case "":
			orphans++
		case v.Self:
			state := o.State
			if state == cluster.ClaimLeft { // for the moment until the claim is given up
				state = cluster.ClaimLeaving
			}
			claims[state]++
			if o.State != cluster.ClaimOpening && o.State != cluster.ClaimLeft {
				m.epochs.send(to, float64(o.Epoch), strconv.Itoa(n))
			}
		}
	}
	for state, n := range claims {
		m.shards.send(to, float64(n), state)
	}
	m.taken.send(to, float64(s.Counts.Received), "handed over")
	m.taken.send(to, float64(s.Counts.Claims), "taken over")
	m.taken.send(to, float64(s.Counts.Renewed), "claimed again")
	m.given.send(to, float64(s.Counts.Given), "handed over")
	m.given.send(to, float64(s.Counts.Lost), "lost")
	m.failed.send(to, float64(s.Counts.Failed))
	m.orphans.send(to, float64(orphans))
	m.orphanAge.send(to, age(now, v.Orphaned))
	m.discarded.send(to, float64(s.Discarded))
}
