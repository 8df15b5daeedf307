package replica

import (
	"errors"
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
	for _, tc := range []struct {
		name   string
		view   cluster.View
		health error
		ready  bool
		reason string
	}{
		{"all is well", cluster.View{Members: same, Shards: served, Connected: true}, nil, true, ""},
		{"etcd is away", cluster.View{Members: same, Shards: served, Problem: "it refuses"}, nil, false, "this replica cannot use etcd; the cars that it has are served on, and no shard moves: it refuses"},
		{"no owner", cluster.View{Members: same, Shards: []cluster.Owner{{}, {Replica: "a"}}, Connected: true}, nil, false, "1 of 2 shards have no owner: 0"},
		{"opening", cluster.View{Members: same, Shards: []cluster.Owner{{Replica: "a", State: cluster.ClaimOpening}, {Replica: "b", State: cluster.ClaimOpening}}, Connected: true}, nil, false, "1 shards are being opened here"},
		{"unwell", cluster.View{Members: same, Shards: served, Connected: true}, errors.New("the broker does not answer"), false, "cannot serve: the broker does not answer"},
		{"odd one out", cluster.View{Members: []cluster.Member{member("a", "1"), member("b", "2"), member("c", "2")}, Shards: served, Connected: true}, nil, false, "differs from that of b, c"},
		{"another is odd", cluster.View{Members: []cluster.Member{member("a", "1"), member("b", "2"), member("c", "1")}, Shards: served, Connected: true}, nil, true, "differs from that of b"},
		{"two differ", cluster.View{Members: []cluster.Member{member("a", "1"), member("b", "2")}, Shards: served, Connected: true}, nil, true, "differs from that of b"},
		{"not a member yet", cluster.View{Shards: served, Connected: true}, nil, true, ""},
	} {
		tc.view.Self = "a"
		ready, reason := readiness(&tc.view, tc.health)
		if ready != tc.ready || (tc.reason == "") != (reason == "") || !strings.Contains(reason, tc.reason) {
			t.Errorf("%s: ready %v, %q", tc.name, ready, reason)
		}
	}
}
