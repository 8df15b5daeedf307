package admin_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/admin"
	"external-server/internal/car"
	"external-server/internal/cluster"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/logging"
	"external-server/internal/observe"
	"external-server/internal/peer"
	"external-server/internal/session"
	"external-server/internal/support/testlog"
)

// some is a replica's server as its endpoint sees it: cars, and what was done to them.
type some struct {
	admin.Source // what no test asks for

	mu       sync.Mutex
	cars     []string
	acted    []string
	lines    []logging.Line // newest first
	reloads  int
	reloaded error
}

func (s *some) Company() string { return "acme" }

func (s *some) Cars() (out []car.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.cars {
		out = append(out, car.Snapshot{ID: fleet.CarID{Company: "acme", Car: name}, Phase: session.PhaseRunning, LinkUp: true, Statuses: uint64(len(name))})
	}
	return out
}

func (s *some) Car(name string) (car.Snapshot, bool) {
	for _, c := range s.Cars() {
		if c.ID.Car == name {
			return c, true
		}
	}
	return car.Snapshot{}, false
}

func (s *some) Labels(string) map[string]string { return nil }
func (s *some) Link() link.State                { return link.State{Up: true} }
func (s *some) Components() []admin.Component   { return nil }

func (s *some) act(what, name string) error {
	if _, ok := s.Car(name); !ok {
		return admin.ErrNoCar
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acted = append(s.acted, what+" "+name)
	return nil
}

func (s *some) Disconnect(name string) error { return s.act("disconnect", name) }
func (s *some) Reannounce(name string) error { return s.act("reannounce", name) }

func (s *some) Reload(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloads++
	return "nothing has changed", s.reloaded
}

// sight is what a replica knows of the cluster; cars belong to shards by their last
// character.
type sight struct {
	view   *atomic.Pointer[cluster.View]
	self   string
	client *peer.Client
}

func (v *sight) View() *cluster.View {
	view := v.view.Load()
	if view == nil {
		return nil
	}
	own := *view
	own.Self = v.self
	return &own
}

func (v *sight) Shard(car string) int { return int(car[len(car)-1]) % 4 }

func (v *sight) Ask(ctx context.Context, address string, r *http.Request) (*http.Response, error) {
	return v.client.Do(ctx, address, r)
}

// one is a replica with its endpoints.
type one struct {
	*rig   // for its requests
	name   string
	source *some
	hub    *observe.Hub
	member cluster.Member
	stop   func()
}

// newFleet starts replicas a, b, … with the cars given, and their view of each other:
// shard n belongs to replica n, as far as there are so many.
func newFleet(t *testing.T, edit func(*admin.Options), cars ...[]string) ([]*one, *atomic.Pointer[cluster.View]) {
	t.Helper()
	view := &atomic.Pointer[cluster.View]{}
	var all []*one
	for n, names := range cars {
		all = append(all, newOne(t, string(rune('a'+n)), view, edit, names))
	}
	v := &cluster.View{Shards: make([]cluster.Owner, 4), Connected: true, Since: time.Now()}
	for n, o := range all {
		v.Members = append(v.Members, o.member)
		v.Shards[n] = cluster.Owner{Replica: o.name, Address: o.member.Address, Epoch: int64(10 + n), State: cluster.ClaimServing}
	}
	view.Store(v)
	return all, view
}

func newOne(t *testing.T, name string, view *atomic.Pointer[cluster.View], edit func(*admin.Options), cars []string) *one {
	t.Helper()
	o := &one{name: name, source: &some{cars: cars}, rig: &rig{t: t, log: &testlog.Buffer{}, http: &http.Client{Transport: &http.Transport{}}}}
	po := peer.Options{Replica: name, Token: config.NewSecret("token-of-the-replicas-of-a-test"), Logger: slog.New(slog.DiscardHandler)}
	client, err := peer.NewClient(po)
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := peer.Listen(t.Context(), "127.0.0.1:0", po)
	if err != nil {
		t.Fatal(err)
	}
	if o.hub, err = observe.New(observe.Options{Logger: slog.New(slog.DiscardHandler), Sources: observe.Sources{Cars: o.source.Cars, Link: o.source.Link}}); err != nil {
		t.Fatal(err)
	}
	opts := admin.Options{
		Config: config.Admin{Listen: "127.0.0.1:0"}, Source: o.source, Hub: o.hub, Version: "test", Logger: o.log.Logger(),
		Cluster: &sight{view: view, self: name, client: client},
	}
	if edit != nil {
		edit(&opts)
	}
	server, err := admin.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	endpoint.HandleWithin(admin.PeerPrefix+"/", peer.Limits{Body: admin.PeerBody, Requests: admin.PeerRequests}, server.PeerHandler())
	o.base = "http://" + server.Addr().String()
	o.member = cluster.Member{Name: name, Address: endpoint.Addr().String(), Version: "test", State: cluster.StateReady, Fingerprint: "same", Host: "here", PID: 1}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = endpoint.Run(ctx) })
	running.Go(func() { _ = server.Run(ctx) })
	var once sync.Once
	o.stop = func() {
		once.Do(func() {
			cancel()
			running.Wait()
			client.Close()
			o.http.CloseIdleConnections()
			if err := o.hub.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(o.stop)
	return o
}

type fleetList struct {
	Total, Matched int
	States         map[string]int
	Cars           []struct {
		Name, Replica string
		Shard         int
		Epoch         int64
	}
	Missing []struct{ Replica, Reason string }
}

func (l *fleetList) names() (names []string) {
	for _, c := range l.Cars {
		names = append(names, c.Name)
	}
	return names
}

// whole gets a list of all replicas until those that did not answer are the ones given: they have 2 s,
// which a busy machine may need longer for.
func (o *one) whole(path string, missing ...string) (list fleetList) {
	o.t.Helper()
	o.wait("an answer of all", func() bool {
		list = fleetList{}
		o.get(path, &list)
		var names []string
		for _, m := range list.Missing {
			names = append(names, m.Replica)
		}
		return slices.Equal(names, missing)
	})
	return list
}

// The list of any replica is that of all cars, each once, with who serves it; pages and
// filters are those of the whole fleet.
func TestFleetIsOneFromAnyReplica(t *testing.T) {
	// The car x1 (shard 1) is at both of two replicas, as while it moves: b owns it.
	all, _ := newFleet(t, nil, []string{"car4", "car8", "x1"}, []string{"car1", "x1"}, []string{"car2", "car6"})
	for _, o := range all {
		list := o.whole("/api/v1/cars")
		want := []string{"car1", "car2", "car4", "car6", "car8", "x1"}
		if got := list.names(); !slices.Equal(got, want) || list.Total != 6 || list.Matched != 6 || list.States["running"] != 6 {
			t.Errorf("from %s: %+v", o.name, list)
		}
		for _, c := range list.Cars {
			n := int(c.Name[len(c.Name)-1]) % 4
			if c.Shard != n || c.Replica != all[n].name || c.Epoch != int64(10+n) {
				t.Errorf("from %s: %+v", o.name, c)
			}
		}
		list = o.whole("/api/v1/cars?limit=2&offset=1&order=desc&q=car")
		if got := list.names(); !slices.Equal(got, []string{"car6", "car4"}) || list.Matched != 5 {
			t.Errorf("a page from %s: %+v", o.name, list)
		}
		list = o.whole("/api/v1/cars?sort=replica")
		if got := list.names(); got[0] != "car4" || got[5] != "car6" {
			t.Errorf("by replica from %s: %v", o.name, got)
		}
		var one struct {
			Name, Replica string
			Statuses      int
		}
		o.get("/api/v1/cars/car2", &one)
		if one.Name != "car2" || one.Replica != "c" || one.Statuses != 4 {
			t.Errorf("car2 from %s: %+v", o.name, one)
		}
		if a := o.do("GET", "/api/v1/cars/none1", ""); a.status != http.StatusNotFound || !strings.Contains(a.text(), "none1 is not served") {
			t.Errorf("an unknown car from %s: %d %s", o.name, a.status, a.text())
		}
		var server struct {
			Cluster struct {
				Self      string
				Connected bool
				Members   []struct {
					Name, State string
					Shards      int
					Same        bool `json:"same_configuration"`
				}
				Shards []struct {
					Shard   int
					Replica string
					Epoch   int64
				}
			}
		}
		o.get("/api/v1/server", &server)
		if c := server.Cluster; c.Self != o.name || !c.Connected || fmt.Sprint(c.Members) != "[{a ready 1 true} {b ready 1 true} {c ready 1 true}]" || fmt.Sprint(c.Shards) != "[{0 a 10} {1 b 11} {2 c 12} {3  0}]" {
			t.Errorf("cluster from %s: %+v", o.name, c)
		}
	}
	a := all[0]
	if got := a.do("GET", "/api/v1/cars/car3", ""); got.status != http.StatusServiceUnavailable || !strings.Contains(got.text(), "shard 3") || got.header.Get("Retry-After") == "" {
		t.Errorf("a car without owner: %d %s", got.status, got.text())
	}
	// The cars of a replica that does not answer are missing, and the list says so.
	all[2].stop()
	list := a.whole("/api/v1/cars", "c")
	if list.Total != 4 || list.Missing[0].Reason == "" {
		t.Errorf("without c: %+v", list)
	}
	if got := a.do("GET", "/api/v1/cars/car2", ""); got.status != http.StatusBadGateway || !strings.Contains(got.text(), "the replica c") {
		t.Errorf("a car of c: %d %s", got.status, got.text())
	}
}

// A replica that etcd does not hear from is no member, and serves its shards on: its cars are in the list of all, and events
// and reloads reach it.
func TestFleetHasReplicasWithoutEtcd(t *testing.T) {
	all, view := newFleet(t, nil, []string{"car4"}, []string{"car1"}, []string{"car2"})
	v := *view.Load()
	v.Members = v.Members[:2]
	v.Shards = append(slices.Clone(v.Shards), v.Shards[2]) // one is asked once
	view.Store(&v)
	for _, o := range all[:2] {
		var list fleetList
		o.get("/api/v1/cars", &list)
		if got := list.names(); !slices.Equal(got, []string{"car1", "car2", "car4"}) || list.Total != 3 || len(list.Missing) != 0 {
			t.Errorf("from %s: %+v", o.name, list)
		}
	}
	all[2].stop()
	var list fleetList
	all[0].get("/api/v1/cars", &list)
	if len(list.Missing) != 1 || list.Missing[0].Replica != "c" || list.Total != 2 {
		t.Errorf("one that serves no more: %+v", list)
	}
}

// What an operator does at one replica is done by the owner of the car, and told there with
// who did it; who may only read does nothing anywhere.
func TestFleetActsAtTheOwner(t *testing.T) {
	all, _ := newFleet(t, func(o *admin.Options) {
		if len(o.Config.Tokens) == 0 {
			o.Config.Tokens = []config.Token{{Name: "eva", Role: config.RoleOperate, Token: config.NewSecret("operate")}, {Name: "uwe", Role: config.RoleRead, Token: config.NewSecret("read")}}
		}
	}, []string{"car4"}, []string{"car1"})
	a, b := all[0], all[1]
	events := a.stream("/api/v1/events?after=0", "Authorization", "Bearer read")
	if got := a.do("POST", "/api/v1/cars/car1/disconnect", "", "Authorization", "Bearer read"); got.status != http.StatusForbidden {
		t.Errorf("who may only read: %d %s", got.status, got.text())
	}
	for _, what := range []string{"disconnect", "reannounce"} {
		if got := a.do("POST", "/api/v1/cars/car1/"+what, "", "Authorization", "Bearer operate"); got.status != http.StatusAccepted || !strings.Contains(got.text(), "result") {
			t.Errorf("%s: %d %s", what, got.status, got.text())
		}
		ev := events.next(kind("operator", "car1"))
		if ev.data["reason"] != "eva at a" || ev.data["replica"] != "b" {
			t.Errorf("event %v", ev)
		}
	}
	if got := a.do("POST", "/api/v1/cars/none1/disconnect", "", "Authorization", "Bearer operate"); got.status != http.StatusNotFound {
		t.Errorf("an unknown car: %d %s", got.status, got.text())
	}
	if got := fmt.Sprint(b.source.acted, a.source.acted); got != "[disconnect car1 reannounce car1] []" {
		t.Errorf("done: %s", got)
	}
	if strings.Contains(b.log.String(), "Bearer") || !b.log.Has("operator", "eva at a") {
		t.Errorf("log of b:\n%s", b.log.String())
	}
}

// The stream of events has those of all replicas, goes on where it was left, and takes in
// a replica that joins.
func TestFleetEvents(t *testing.T) {
	all, view := newFleet(t, nil, []string{"car4"}, []string{"car1"})
	a, b := all[0], all[1]
	b.hub.Events.Put(observe.Event{Kind: observe.KindFault, Car: "car1", Reason: "early"})
	s := a.stream("/api/v1/events?after=0")
	if ev := s.next(kind("fault", "car1")); ev.data["reason"] != "early" || ev.data["replica"] != "b" {
		t.Errorf("event %v", ev)
	}
	a.hub.Events.Put(observe.Event{Kind: observe.KindFault, Car: "car4", Reason: "own"})
	last := s.next(kind("fault", "car4"))
	if last.data["replica"] != "a" || !strings.Contains(last.id, "a=") || !strings.Contains(last.id, "b=") {
		t.Errorf("event %v", last)
	}
	s.close()
	b.hub.Events.Put(observe.Event{Kind: observe.KindFault, Car: "car1", Reason: "meanwhile"})
	s = a.stream("/api/v1/events", "Last-Event-ID", last.id)
	if ev := s.next(nil); ev.data["reason"] != "meanwhile" {
		t.Errorf("after the last id came %v", ev)
	}
	c := newOne(t, "c", view, nil, []string{"car2"})
	c.hub.Events.Put(observe.Event{Kind: observe.KindFault, Car: "car2", Reason: "joined"})
	more := *view.Load()
	more.Members = append(slices.Clone(more.Members), c.member)
	view.Store(&more)
	if ev := s.next(kind("fault", "car2")); ev.data["replica"] != "c" {
		t.Errorf("event %v", ev)
	}
	only := a.stream("/api/v1/events?after=0&car=car1")
	if ev := only.next(nil); ev.data["car"] != "car1" {
		t.Errorf("of one car: %v", ev)
	}
	only.close()
	s.close()
}

// A live tail at one replica is that of the owner.
func TestFleetTail(t *testing.T) {
	all, _ := newFleet(t, nil, []string{"car4"}, []string{"car1"})
	a, b := all[0], all[1]
	c := b.hub.Car(fleet.CarID{Company: "acme", Car: "car1"})
	s := a.stream("/api/v1/cars/car1/messages")
	// The stream has begun: its watcher was there before the first line.
	c.Observe(&car.Event{Kind: car.Received, At: time.Now(), In: fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "s1", Device: teleop, Data: []byte(`{"n":1}`)}})
	if ev := s.next(nil); ev.kind != "message" || ev.data["session"] != "s1" {
		t.Errorf("message %v", ev)
	}
	s.close()
}

// reload with all is done by every replica, this one first: its wrong file touches no other.
func TestFleetReload(t *testing.T) {
	all, _ := newFleet(t, nil, nil, nil, nil)
	a, b, c := all[0], all[1], all[2]
	if got := b.operate("POST", "/api/v1/reload", ""); got.status != http.StatusOK || a.source.reloads+c.source.reloads != 0 {
		t.Errorf("reload of one: %d %s", got.status, got.text())
	}
	got := b.operate("POST", "/api/v1/reload?all=true", "")
	if got.status != http.StatusOK || !strings.Contains(got.text(), "a: nothing has changed; c: nothing has changed") || !strings.Contains(got.text(), "b: nothing") {
		t.Errorf("reload of all: %d %s", got.status, got.text())
	}
	c.source.reloaded = errors.New("line 3 of its file is wrong")
	if got := b.operate("POST", "/api/v1/reload?all=true", ""); got.status != http.StatusBadGateway || !strings.Contains(got.text(), "c: line 3 of its file is wrong") || !strings.Contains(got.text(), "a: nothing") {
		t.Errorf("one replica's file is wrong: %d %s", got.status, got.text())
	}
	before := a.source.reloads
	if got := c.operate("POST", "/api/v1/reload?all=true", ""); got.status != http.StatusUnprocessableEntity || a.source.reloads != before {
		t.Errorf("the first one's file is wrong: %d %s", got.status, got.text())
	}
	if got := b.operate("POST", "/api/v1/reload?all=maybe", ""); got.status != http.StatusBadRequest {
		t.Errorf("all=maybe: %d %s", got.status, got.text())
	}
}
