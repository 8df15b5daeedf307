package admin_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"external-server/internal/admin"
	"external-server/internal/cluster"
)

// Drain gives the shards of the replica to the first other one.
func (v *sight) Drain() error {
	view := *v.view.Load()
	view.Shards = slices.Clone(view.Shards)
	for n := range view.Shards {
		if o := &view.Shards[n]; o.Replica == v.self {
			for _, m := range view.Members {
				if m.Name != v.self {
					o.Replica, o.Address = m.Name, m.Address
				}
			}
		}
	}
	v.view.Store(&view)
	return nil
}

// Any replica drains any replica, itself when none is named.
func TestDrain(t *testing.T) {
	all, view := newFleet(t, nil, []string{"car4"}, []string{"car1"}, []string{"car2"})
	a, b, c := all[0], all[1], all[2]
	shards := func(name string) (n int) {
		for _, o := range view.Load().Shards {
			if o.Replica == name {
				n++
			}
		}
		return n
	}
	if got := b.operate("POST", "/api/v1/drain", `{"replica": "a"}`); got.status != http.StatusAccepted || !strings.Contains(got.text(), "replica a gives its cars to the others") || shards("a") != 0 || shards("b") != 1 {
		t.Errorf("%d %s, %+v", got.status, got.text(), view.Load().Shards)
	}
	if got := b.operate("POST", "/api/v1/drain", ""); got.status != http.StatusAccepted || shards("b") != 0 {
		t.Errorf("%d %s, %+v", got.status, got.text(), view.Load().Shards)
	}
	for body, want := range map[string]struct {
		status int
		text   string
	}{
		`{"replica": "z"}`:    {http.StatusNotFound, "no replica \\\"z\\\" is a member of the cluster; members are a, b, c"},
		`{"replica": 5}`:      {http.StatusBadRequest, "expected {"},
		`{"replicas": "a"}`:   {http.StatusBadRequest, "expected {"},
		`{"replica": "a"} {}`: {http.StatusBadRequest, "expected {"},
		`{"replica": "` + strings.Repeat("x", 65) + `"}`: {http.StatusBadRequest, "expected {"},
	} {
		if got := a.operate("POST", "/api/v1/drain", body); got.status != want.status || !strings.Contains(got.text(), want.text) {
			t.Errorf("%s: %d %s", body, got.status, got.text())
		}
	}
	c.stop()
	if got := a.operate("POST", "/api/v1/drain", `{"replica": "c"}`); got.status != http.StatusBadGateway || !strings.Contains(got.text(), "replica c does not answer") {
		t.Errorf("%d %s", got.status, got.text())
	}
}

// Where the other replicas take no cars, the answer says that no replica serves them.
func TestDrainWithoutTaker(t *testing.T) {
	all, view := newFleet(t, nil, []string{"car4"}, []string{"car1"}, []string{"car2"})
	changed := *view.Load()
	changed.Members = slices.Clone(changed.Members)
	changed.Members[1].State, changed.Members[2].State = cluster.StateDraining, cluster.StateUnhealthy
	view.Store(&changed)
	got := all[1].operate("POST", "/api/v1/drain", `{"replica": "a"}`)
	for _, want := range []string{"replica a has no other one that takes cars (b is draining, c is unhealthy)", "which no replica serves until one takes them"} {
		if got.status != http.StatusAccepted || !strings.Contains(got.text(), want) {
			t.Errorf("%d %s, expected %q", got.status, got.text(), want)
		}
	}
}

// A list without the cars that no replica serves says why they are not in it, once the last replica drains too.
func TestListSaysWhichCarsAreNotServed(t *testing.T) {
	all, view := newFleet(t, nil, []string{"car4"}, []string{"car1"})
	for n, tc := range []struct {
		without int
		state   string
		want    string
	}{
		{0, cluster.StateReady, ""},
		{1, cluster.StateReady, "1 of 4 shards has no owner; /readyz of each replica has its reason"},
		{4, cluster.StateDraining, "4 of 4 shards have no owner; the replica a is draining, and has no other one that takes cars (b is unhealthy); /readyz of each replica has its reason"},
	} {
		v := *view.Load()
		v.Members, v.Shards = slices.Clone(v.Members), make([]cluster.Owner, 4)
		v.Members[0].State, v.Members[1].State = tc.state, cluster.StateUnhealthy
		for i := range v.Shards {
			if i >= tc.without {
				v.Shards[i] = cluster.Owner{Replica: "a", State: cluster.ClaimServing}
			}
		}
		view.Store(&v)
		var list struct{ Unserved string }
		all[0].get("/api/v1/cars", &list)
		if list.Unserved != tc.want {
			t.Errorf("%d: %q, expected %q", n, list.Unserved, tc.want)
		}
	}
	view.Store(nil)
	var list struct{ Unserved string }
	all[0].get("/api/v1/cars", &list)
	if !strings.Contains(list.Unserved, "is joining the cluster") {
		t.Errorf("%q", list.Unserved)
	}
}

// A server that is alone says what to do instead.
func TestDrainAlone(t *testing.T) {
	all, view := newFleet(t, nil, []string{"car4"})
	if got := all[0].operate("POST", "/api/v1/drain", ""); got.status != http.StatusAccepted || !strings.Contains(got.text(), "is the only one: it suspends the sessions") {
		t.Errorf("%d %s", got.status, got.text())
	}
	view.Store(nil)
	if got := all[0].operate("POST", "/api/v1/drain", ""); got.status != http.StatusConflict || !strings.Contains(got.text(), "is joining the cluster") {
		t.Errorf("%d %s", got.status, got.text())
	}
	all, _ = newFleet(t, func(o *admin.Options) { o.Cluster = nil }, []string{"car4"})
	if got := all[0].operate("POST", "/api/v1/drain", ""); got.status != http.StatusConflict || !strings.Contains(got.text(), "not a replica of a cluster: stop it") {
		t.Errorf("%d %s", got.status, got.text())
	}
}
