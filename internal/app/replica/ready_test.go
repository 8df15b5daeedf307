package replica

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"external-server/internal/cluster"
)

// A replica says why it is not ready: etcd is away, a shard has no owner, its configuration
// is unlike those of most others, it cannot serve.
func TestClusterReadiness(t *testing.T) {
	served := []cluster.Owner{{Replica: "a"}, {Replica: "b"}}
	member := func(name, fingerprint string) cluster.Member {
		return cluster.Member{Name: name, Fingerprint: fingerprint}
	}
	same := []cluster.Member{member("a", "1"), member("b", "1"), member("c", "1")}
	in := func(state string) []cluster.Member { return []cluster.Member{{Name: "a", State: state}} }
	at := func(address, here, there string) []cluster.Member {
		return []cluster.Member{{Name: "a", Host: here, Address: "10.0.0.1:1"}, {Name: "b", Host: there, Address: address}}
	}
	many := []cluster.Member{member("a", "1")}
	for n := range 50 {
		many = append(many, member(fmt.Sprint("m", 10+n), "2"))
	}
	for _, tc := range []struct {
		name   string
		view   cluster.View
		health error
		ready  bool
		reason string
	}{
		{"all is well", cluster.View{Members: same, Shards: served, Connected: true}, nil, true, ""},
		{"etcd is away", cluster.View{Members: same, Shards: served, Problem: "it refuses"}, nil, false, "this replica cannot use etcd; the cars that it has are served on, and no shard moves: it refuses"},
		{"no owner", cluster.View{Members: same, Shards: []cluster.Owner{{}, {Replica: "a"}}, Connected: true}, nil, false, "1 of 2 shards has no owner: 0"},
		{"opening", cluster.View{Members: same, Shards: []cluster.Owner{{Replica: "a", State: cluster.ClaimOpening}, {Replica: "b", State: cluster.ClaimOpening}}, Connected: true}, nil, false, "1 shard is being opened here"},
		{"two open", cluster.View{Members: same, Shards: []cluster.Owner{{Replica: "a", State: cluster.ClaimOpening}, {Replica: "a", State: cluster.ClaimOpening}}, Connected: true}, nil, false, "2 shards are being opened here"},
		{"a stranger's claim", cluster.View{Members: same, Shards: []cluster.Owner{{Replica: "a", State: cluster.ClaimServing}, {Replica: "z", State: cluster.ClaimServing}}, Connected: true}, nil, false, "shards are claimed by replicas that are no members: 1 by z"},
		{"without etcd", cluster.View{Members: same, Shards: []cluster.Owner{{Replica: "a", State: cluster.ClaimServing}, {Replica: "z", Address: "10.0.0.9:1", State: cluster.ClaimServing}}, Connected: true}, nil, true, "shards are served by replicas that are no members, as those that cannot use etcd: 1 by z"},
		{"a key in the way", cluster.View{Members: same, Shards: served, Connected: true, Notice: "the key x keeps shard 1 without a claim: delete it"}, nil, false, "the key x keeps shard 1 without a claim: delete it"},
		{"many without owner", cluster.View{Members: same, Shards: make([]cluster.Owner, 64), Connected: true}, nil, false, "64 of 64 shards have no owner: 0, 1, 2, 3, 4, 5, 6, 7 and 56 more"},
		{"many differ", cluster.View{Members: many, Shards: served, Connected: true}, nil, false, "differs from that of m10, m11, m12, m13, m14, m15, m16, m17 and 42 more"},
		{"unwell", cluster.View{Members: same, Shards: served, Connected: true}, errors.New("the broker does not answer"), false, "cannot serve: the broker does not answer"},
		{"odd one out", cluster.View{Members: []cluster.Member{member("a", "1"), member("b", "2"), member("c", "2")}, Shards: served, Connected: true}, nil, false, "differs from that of b, c"},
		{"another is odd", cluster.View{Members: []cluster.Member{member("a", "1"), member("b", "2"), member("c", "1")}, Shards: served, Connected: true}, nil, true, "differs from that of b"},
		{"two differ", cluster.View{Members: []cluster.Member{member("a", "1"), member("b", "2")}, Shards: served, Connected: true}, nil, true, "differs from that of b"},
		{"not a member yet", cluster.View{Shards: served, Connected: true}, nil, false, "not among the members"},
		{"joining", cluster.View{Members: in(cluster.StateJoining), Shards: served, Connected: true}, nil, false, "this replica is joining"},
		{"well again", cluster.View{Members: in(cluster.StateUnhealthy), Shards: served, Connected: true}, nil, false, "could not serve a moment ago"},
		{"draining", cluster.View{Members: in(cluster.StateDraining), Shards: served, Connected: true}, nil, false, "this replica is draining"},
		{"loopback on one machine", cluster.View{Members: at("127.0.0.1:1", "h", "h"), Shards: served, Connected: true}, nil, true, ""},
		{"loopback on two", cluster.View{Members: at("127.0.0.1:1", "h", "i"), Shards: served, Connected: true}, nil, true, "replica b on machine i is a member with the address 127.0.0.1:1, at which replicas on other machines cannot reach it"},
		{"addresses of two machines", cluster.View{Members: at("10.0.0.2:1", "h", "i"), Shards: served, Connected: true}, nil, true, ""},
	} {
		tc.view.Self = "a"
		ready, reason := readiness(&tc.view, tc.health)
		if ready != tc.ready || (tc.reason == "") != (reason == "") || !strings.Contains(reason, tc.reason) {
			t.Errorf("%s: ready %v, %q", tc.name, ready, reason)
		}
	}
}
