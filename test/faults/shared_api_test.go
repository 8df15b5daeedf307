package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/postgrestest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// apis is a cluster whose replicas serve one HTTP API. Its servers have the race detector.
type apis struct {
	*rig
	etcd  *etcdtest.Etcd
	store string
	all   []*apiReplica
	http  *http.Client
}

type apiReplica struct {
	name   string
	api    string // URL of the HTTP API
	admin  string
	server *servertest.Server
	clock  *clock
	client *httpapi.Client
	config obj
	opts   servertest.Options
}

// shareAPI makes n replicas, which are not started, for cars car_0000 to car_(cars-1).
func (r *rig) shareAPI(n, cars int) *apis {
	r.Helper()
	pg := new(postgrestest.Server)
	r.Cleanup(pg.Close)
	a := &apis{rig: r, store: pg.Database(r), etcd: etcdtest.Start(r, etcdtest.Options{}), http: &http.Client{Transport: &http.Transport{}}}
	r.Cleanup(a.http.CloseIdleConnections)
	r.startBroker(false, brokertest.Options{})
	for i := range n {
		m := &apiReplica{name: fmt.Sprintf("r%d", i), admin: "http://" + brokertest.FreeAddress(r)}
		listen := brokertest.FreeAddress(r)
		m.api = "http://" + listen + "/v2/protocol"
		var err error
		if m.client, err = httpapi.NewClient(httpapi.ClientOptions{URL: m.api}); err != nil {
			r.Fatal(err)
		}
		r.Cleanup(m.client.Close)
		r.configure(nil)
		named := obj{}
		for name := range fleetOf("car", cars, transparent, nil) {
			named[name] = obj{}
		}
		m.config = r.config
		for key, value := range (obj{
			"cars":            named,
			"common_modules":  obj{"3": obj{"builtin": "transparent"}},
			"http_api":        obj{"listen": listen, "store": a.store, "wait_timeout_ms": 40_000},
			"admin":           obj{"listen": strings.TrimPrefix(m.admin, "http://")},
			"state_directory": filepath.Join(r.dir, m.name),
			"cluster": obj{
				"etcd": []string{a.etcd.URL()}, "name": clusterName, "replica": m.name, "shards": 12,
				"peer_listen": brokertest.FreeAddress(r), "peer_token": "0123456789abcdef",
			},
		}) {
			m.config[key] = value
		}
		a.all = append(a.all, m)
	}
	return a
}

func (a *apis) start(m *apiReplica) {
	a.Helper()
	o := m.opts
	o.Config = m.config
	m.server = servertest.Start(a, o)
}

func carID(name string) fleet.CarID { return fleet.CarID{Company: company, Car: name} }

// patient is the context of one request.
func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testwait.Patience)
	t.Cleanup(cancel)
	return ctx
}

// owners tells which replica serves which car, as a replica sees it.
func (a *apis) owners(at *apiReplica) map[string]string {
	a.Helper()
	var list struct {
		Cars []struct{ Name, Replica string }
	}
	if err := json.Unmarshal([]byte(a.fetch(at.admin+"/api/v1/cars?limit=1000").body), &list); err != nil {
		a.Fatal(err)
	}
	owners := make(map[string]string)
	for _, c := range list.Cars {
		if c.Replica != "" {
			owners[strings.TrimPrefix(c.Name, company+"/")] = c.Replica
		}
	}
	return owners
}

// carOf waits until one of the replicas serves a car, and returns both.
func (a *apis) carOf(seen *apiReplica, among ...*apiReplica) (name string, owner *apiReplica) {
	a.Helper()
	testwait.Until(a, "a car has an owner", func() bool {
		for car, replica := range a.owners(seen) {
			for _, m := range among {
				if m.name == replica {
					name, owner = car, m
					return true
				}
			}
		}
		return false
	})
	return name, owner
}

// answer is what a client gets.
type answer struct {
	code int
	body string
	err  error
	took time.Duration
}

func (a *apis) fetch(url string) answer {
	begun := time.Now()
	request, err := http.NewRequestWithContext(patient(a), http.MethodGet, url, nil)
	if err != nil {
		a.Fatal(err)
	}
	got, err := a.http.Do(request)
	if err != nil {
		return answer{err: err, took: time.Since(begun)}
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	return answer{got.StatusCode, strings.TrimSpace(string(text)), err, time.Since(begun)}
}

// poll asks a replica and holds the request, from a goroutine of its own.
func (a *apis) poll(at *apiReplica, path string) <-chan answer {
	answers := make(chan answer, 1)
	go func() { answers <- a.fetch(at.api + path) }()
	return answers
}

// metric reads one of a replica.
func (a *apis) metric(at *apiReplica, name string) string {
	a.Helper()
	for line := range strings.Lines(a.fetch(at.admin + "/metrics").body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// statuses reads all of a car at a replica.
func (a *apis) statuses(at *apiReplica, car string) []httpapi.Message {
	a.Helper()
	all, err := at.client.Statuses(patient(a), carID(car), httpapi.Query{})
	var e *httpapi.Error
	if err != nil && !(errors.As(err, &e) && e.Status == http.StatusNotFound) {
		a.Fatalf("statuses of %s at %s: %v", car, at.name, err)
	}
	return all
}

func newest(messages []httpapi.Message) (at int64) {
	for _, m := range messages {
		at = max(at, m.Timestamp)
	}
	return at
}

func post(device fleet.Device, kind, text string) []httpapi.Message {
	return []httpapi.Message{{
		DeviceID: httpapi.DeviceID{ModuleID: int64(device.Module), Type: int64(device.Type), Role: device.Role, Name: device.Name},
		Payload:  httpapi.Payload{MessageType: kind, Encoding: httpapi.EncodingJSON, Data: json.RawMessage(fmt.Sprintf("%q", text))},
	}}
}

// carries demands that a poll was answered with a message that has the text.
func (a *apis) carries(what string, got answer, text string) {
	a.Helper()
	if got.err != nil || got.code != http.StatusOK || !strings.Contains(got.body, text) {
		a.Errorf("%s: %d %.300s (%v) after %v, want a message with %q", what, got.code, got.body, got.err, got.took, text)
	}
}

// Three real servers serve one HTTP API for cars that drive. Any of them answers for any car;
// a poll at one wakes by what happens at another. One whose clock is ahead is stopped
// while statuses are posted: timestamps go on rising, and who reads on misses nothing. One is
// killed while polls for its cars wait at another one: they end with the next message, and what
// is posted meanwhile is held until the cars have an owner again.
func TestReplicasShareTheAPI(t *testing.T) {
	t.Parallel()
	r := &rig{TB: t, row: &row{}, dir: t.TempDir(), libraries: make(map[int32]string)}
	a := r.shareAPI(3, 12)
	ahead := a.all[1]
	var prefix []string
	ahead.clock, prefix = newClock(r)
	ahead.clock.jump(500 * time.Millisecond)
	ahead.opts = servertest.Options{Prefix: prefix, Binary: askingBuild(r, servertest.Binary(r))}
	for _, m := range a.all {
		a.start(m)
	}
	for _, m := range a.all {
		testwait.Until(t, m.name+" has shards", func() bool { return strings.Contains(m.server.Log(), "serving a shard") })
	}
	testwait.Until(t, "every car has an owner", func() bool { return len(a.owners(a.all[0])) == 12 })
	r.startCars(fleetOf("car", 12, transparent, nil), 500*time.Millisecond)

	a.everywhere()
	a.rising(ahead, a.all[0], a.all[2])
	a.killedDuringPoll(a.all[0], a.all[2])

	// The cars have noticed nothing.
	r.crew.served(time.Now(), testwait.Patience)
	for _, c := range r.crew.cars {
		if n := c.lostSessions(); n > 0 {
			t.Errorf("car %s lost its session: %s", c.name, c.reasons(c.ends))
		}
	}
	for _, m := range a.all {
		if log := m.server.Log(); strings.Contains(log, "goroutine ") {
			t.Errorf("a stack in the log of %s", m.name)
		}
		if m.server.Running() && m.server.Stop() != 0 {
			t.Errorf("replica %s does not end in order", m.name)
		}
	}
}

// everywhere demands that each replica answers for a car of another one.
func (a *apis) everywhere() {
	a.Helper()
	used := make(map[string]bool)
	for i, owner := range a.all {
		var car string
		testwait.Until(a, "a car that no command was posted for", func() bool { // shards may still be moving
			car, _ = a.carOf(owner, owner)
			return !used[car]
		})
		used[car] = true
		other, third := a.all[(i+1)%3], a.all[(i+2)%3]
		testwait.Until(a, "the car is known", func() bool { return len(a.statuses(other, car)) > 0 })
		// A poll at each replica ends with the car's next status.
		since := newest(a.statuses(owner, car)) + 1
		path := fmt.Sprintf("/status/%s/%s?wait=true&since=%d", company, car, since)
		for _, at := range a.all {
			a.carries(fmt.Sprintf("poll at %s for a car of %s", at.name, owner.name), <-a.poll(at, path), car)
		}
		// A command that is posted at one replica wakes a poll at another, and reaches the car.
		c := a.carNamed(car)
		before := c.commandCount()
		poll := a.poll(third, fmt.Sprintf("/command/%s/%s?wait=true&since=%d", company, car, time.Now().Add(-time.Minute).UnixMilli()))
		if err := other.client.PostCommands(patient(a), carID(car), post(c.device, "COMMAND", "to "+owner.name)); err != nil {
			a.Fatalf("a command at %s for a car of %s: %v", other.name, owner.name, err)
		}
		a.carries("poll for commands", <-poll, "to "+owner.name)
		testwait.Until(a, "the car gets the command", func() bool { return c.commandCount() > before })
		if got := a.metric(other, "external_server_http_api_passed_on_total"); (got == "0" || got == "") && a.owners(other)[car] == owner.name {
			a.Errorf("%s has passed on %q requests", other.name, got)
		}
	}
}

func (a *apis) carNamed(name string) *car {
	for _, c := range a.crew.cars {
		if c.name == name {
			return c
		}
	}
	a.Fatalf("no car %s", name)
	return nil
}

// rising stops a replica whose clock is ahead, while statuses of one of its cars are posted
// at another one.
func (a *apis) rising(ahead, poster, reader *apiReplica) {
	a.Helper()
	car, _ := a.carOf(poster, ahead)
	device := fleet.Device{Module: transparent, Type: 7, Role: "stamps", Name: "Stamps"}
	const enough = 60 // posts before the stop and after it
	stopped := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		defer close(stopped)
		// Stopped in the midst of the posts.
		testwait.Until(a, "posts are made", func() bool { return len(of(a.statuses(reader, car), device)) >= enough })
		if ahead.server.Stop() != 0 {
			a.Errorf("%s does not end in order", ahead.name)
		}
	})
	posted := 0
	for left := enough; left > 0; posted++ {
		if err := poster.client.PostStatuses(patient(a), carID(car), post(device, "STATUS", fmt.Sprintf("stamp %d.", posted))); err != nil {
			a.Errorf("post %d: %v", posted, err)
		}
		select {
		case <-stopped:
			left--
		default:
		}
	}
	work.Wait()
	// Read on from the newest, as a client does, at a replica that had another clock.
	got := of(a.statuses(reader, car), device)
	if len(got) != posted {
		a.Errorf("%d statuses were posted, %d are there", posted, len(got))
	}
	for n, m := range got {
		if want := fmt.Sprintf("stamp %d.", n); !strings.Contains(string(m.Payload.Data), want) {
			a.Fatalf("status %d is %s, want %s", n, m.Payload.Data, want)
		}
		if n > 0 && m.Timestamp <= got[n-1].Timestamp {
			a.Fatalf("status %d has the timestamp %d, the one before %d", n, m.Timestamp, got[n-1].Timestamp)
		}
	}
	if now := time.Now().UnixMilli(); got[0].Timestamp < now-int64(testwait.Patience/time.Millisecond) {
		a.Errorf("timestamp %d, now %d", got[0].Timestamp, now)
	}
}

// of returns the messages of a device.
func of(messages []httpapi.Message, device fleet.Device) (own []httpapi.Message) {
	for _, m := range messages {
		if m.DeviceID.Role == device.Role {
			own = append(own, m)
		}
	}
	return own
}

// killedDuringPoll kills the owner of a car while polls wait at another replica.
func (a *apis) killedDuringPoll(owner, other *apiReplica) {
	a.Helper()
	car, _ := a.carOf(other, owner)
	c := a.carNamed(car)
	commands := a.poll(other, fmt.Sprintf("/command/%s/%s?wait=true&since=%d", company, car, time.Now().Add(time.Second).UnixMilli()))
	later := func() <-chan answer {
		return a.poll(other, fmt.Sprintf("/status/%s/%s?wait=true&since=%d", company, car, time.Now().Add(4*time.Second).UnixMilli()))
	}
	future := later()
	own := a.poll(owner, fmt.Sprintf("/command/%s/%s?wait=true&since=%d", company, car, time.Now().Add(time.Hour).UnixMilli()))
	testwait.Until(a, "the polls wait", func() bool {
		select {
		case <-future: // 4 s are over before all have begun
			future = later()
		default:
		}
		return a.metric(owner, "external_server_http_api_waiting") >= "3"
	})
	owner.server.Kill()
	if got := <-own; got.err == nil {
		a.Errorf("a poll at the replica that was killed: %d %s", got.code, got.body)
	}
	// Until the cars have another owner, requests are held.
	held := make(chan error, 1)
	begun := time.Now()
	var took time.Duration
	go func() {
		var err error
		for again := true; again; {
			asked := time.Now()
			err = other.client.PostCommands(patient(a), carID(car), post(c.device, "COMMAND", "after the end"))
			// Where the machine lets the take-over last longer than a request is held, the client asks again.
			var e *httpapi.Error
			again = errors.As(err, &e) && e.Status == http.StatusServiceUnavailable && time.Since(asked) > 9*time.Second && time.Since(begun) < testwait.Patience
		}
		took = time.Since(begun)
		held <- err
	}()
	testwait.Until(a, "the requests are held, or were", func() bool { return len(held) > 0 || a.metric(other, "external_server_http_api_held") >= "3" })
	if err := <-held; err != nil {
		a.Errorf("a post without owner: %v after %v", err, took)
	}
	a.carries("poll for commands whose owner was killed", <-commands, "after the end")
	a.carries("poll for statuses whose owner was killed", <-future, car)
	a.Logf("the post was held for %v", took.Round(time.Millisecond))
}

// Of an earlier life of the cluster only the store remembers something: etcd and the broker
// are new, and their epochs begin anew. The store would refuse the owner of a shard whose epoch is
// not above the one that it knows; the new owner takes a higher one.
func TestStoreRemembersEpochs(t *testing.T) {
	t.Parallel()
	r := &rig{TB: t, row: &row{}, dir: t.TempDir(), libraries: make(map[int32]string)}
	a := r.shareAPI(1, 3)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{a.etcd.URL()}, DialTimeout: testwait.Patience, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	for range 300 { // epochs are revisions of etcd
		if _, err := client.Put(patient(t), "/other", ""); err != nil {
			t.Fatal(err)
		}
	}
	_ = client.Close()
	m := a.all[0]
	device := fleet.Device{Module: transparent, Type: 7, Role: "stamps", Name: "Stamps"}
	report := func(text string) {
		t.Helper()
		if err := m.client.PostStatuses(patient(t), carID("car_0000"), post(device, "STATUS", text)); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	a.start(m)
	m.server.WaitLog("serving a shard")
	report("in the first life")
	if m.server.Stop() != 0 {
		t.Error("the replica does not end in order")
	}
	fresh := etcdtest.Start(t, etcdtest.Options{})
	m.config["cluster"].(obj)["etcd"] = []string{fresh.URL()}
	m.config["state_directory"] = filepath.Join(r.dir, "another")
	r.startBroker(false, brokertest.Options{})
	m.config["external_communication"].(obj)["server_port"] = r.broker.Port()
	a.start(m)
	m.server.WaitLog("serving a shard")
	report("in the second life")
	if got := a.statuses(m, "car_0000"); len(got) != 2 || got[1].Timestamp <= got[0].Timestamp {
		t.Errorf("%+v", got)
	}
	if m.server.Stop() != 0 {
		t.Error("the replica does not end in order")
	}
}
