package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/core"
	"external-server/internal/httpapi/store"
	"external-server/internal/peer"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

const testShards = 4

// view is what the replicas of a test know of the owners; each has its own, so that they
// may differ.
type view struct {
	self string

	mu      sync.Mutex
	owners  [testShards]core.Owner
	changed chan struct{}
}

func (v *view) Shards() int { return testShards }

// Shard puts car_N into the shard N modulo testShards.
func (v *view) Shard(car fleet.CarID) int {
	n := 0
	_, _ = fmt.Sscanf(car.Car, "car_%d", &n) // others are in shard 0
	return n % testShards
}

func (v *view) Owner(shard int) core.Owner {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.owners[shard]
}

func (v *view) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

func (v *view) set(shard int, o core.Owner) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o.Self = o.Replica == v.self
	v.owners[shard] = o
	close(v.changed)
	v.changed = make(chan struct{})
}

// replica is one server of a cluster.
type replica struct {
	name    string
	server  *Server
	owners  *view
	address string // of its peer endpoint
	url     string
	stop    func() // the peer endpoint and the server end, the connections with them
	log     *testlog.Buffer
	clock   *skewedClock
}

type skewedClock struct{ ahead time.Duration }

func (c *skewedClock) now() time.Time { return time.Now().Add(c.ahead) }

type replicas struct {
	t     *testing.T
	all   []*replica
	epoch int64
	http  *http.Client
	store string
}

var peerToken = config.NewSecret("token-of-the-replicas-of-a-test")

// startReplicas starts replicas a, b, … with one database. No shard has an owner yet.
// Their clocks are ahead by the durations.
func startReplicas(t *testing.T, change func(*Options), ahead ...time.Duration) *replicas {
	t.Helper()
	store := sharedPostgres.Database(t)
	c := &replicas{t: t, http: testClient(t), store: store}
	for i, d := range ahead {
		c.all = append(c.all, startReplica(t, string(rune('a'+i)), store, d, change))
	}
	return c
}

func startReplica(t *testing.T, name, database string, ahead time.Duration, change func(*Options)) *replica {
	t.Helper()
	r := &replica{name: name, owners: &view{self: name, changed: make(chan struct{})}, log: &testlog.Buffer{}, clock: &skewedClock{ahead}}
	po := peer.Options{Replica: name, Token: peerToken, Logger: slog.New(slog.DiscardHandler)}
	endpoint, err := peer.Listen(t.Context(), "127.0.0.1:0", po)
	if err != nil {
		t.Fatal(err)
	}
	client, err := peer.NewClient(po)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Config:  config.HTTPAPI{Listen: "127.0.0.1:0", Store: config.NewSecret(database), WaitTimeout: testwait.Patience},
		Logger:  r.log.Logger(),
		Now:     r.clock.now,
		Cluster: &Cluster{Replica: name, Owners: r.owners, Peers: client, Hold: testwait.Patience},
	}
	if change != nil {
		change(&o)
	}
	if r.server, err = New(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the store is loaded", func() bool { return r.server.Stats().StoreFault != store.FaultLoading })
	endpoint.HandleWithin(PeerPrefix+"/", peer.Limits{Body: PeerBody, Requests: PeerRequests}, r.server.PeerHandler())
	r.address, r.url = endpoint.Addr().String(), "http://"+r.server.Addr().String()+httpapi.BasePath
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = endpoint.Run(ctx) })
	running.Go(func() { _ = r.server.Run(ctx) })
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			running.Wait()
			client.Close()
		})
	}
	t.Cleanup(r.stop)
	return r
}

// give makes a replica the owner of shards, as all others see it too; nil: none.
func (c *replicas) give(r *replica, shards ...int) {
	for _, n := range shards {
		c.epoch++
		o := core.Owner{}
		if r != nil {
			o = core.Owner{Epoch: c.epoch, Replica: r.name, Address: r.address}
		}
		for _, each := range c.all {
			each.owners.set(n, o)
		}
	}
}

// lastKnownAt returns when the newest of the known cars became known, in ms.
func (c *replicas) lastKnownAt() (at int64) {
	c.t.Helper()
	if err := apitest.OtherProgram(c.t, c.store).QueryRowContext(c.t.Context(), `SELECT max(known_at) FROM fleet_cars`).Scan(&at); err != nil {
		c.t.Fatal(err)
	}
	return at
}

type reply struct {
	code int
	body string
	err  error
}

func (c *replicas) do(ctx context.Context, method string, r *replica, path, body string) (*http.Response, reply) {
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, r.url+path, content)
	if err != nil {
		c.t.Error(err)
		return nil, reply{err: err}
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, reply{err: err}
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer, reply{answer.StatusCode, strings.TrimSpace(string(text)), err}
}

func (c *replicas) get(r *replica, path string) reply {
	_, a := c.do(context.Background(), "GET", r, path, "")
	return a
}

func (c *replicas) post(r *replica, path string, messages ...httpapi.Message) reply {
	c.t.Helper()
	body, err := json.Marshal(messages)
	if err != nil {
		c.t.Fatal(err)
	}
	_, a := c.do(context.Background(), "POST", r, path, string(body))
	return a
}

func (c *replicas) mustPost(r *replica, path string, messages ...httpapi.Message) {
	c.t.Helper()
	if a := c.post(r, path, messages...); a.code != 200 {
		c.t.Fatalf("POST %s at %s: %+v", path, r.name, a)
	}
}

// later makes a request of its own goroutine and returns where its answer comes, when
// the replica holds it.
func (c *replicas) later(r *replica, path string) <-chan reply {
	answers := make(chan reply, 1)
	go func() { answers <- c.get(r, path) }()
	return answers
}

func (c *replicas) waiting(r *replica, n int) {
	c.t.Helper()
	testwait.Until(c.t, fmt.Sprintf("%d requests wait at %s", n, r.name), func() bool { return r.server.Stats().Waiting == n })
}

func stamps(t *testing.T, body string) (at []int64) {
	t.Helper()
	var messages []httpapi.Message
	if err := json.Unmarshal([]byte(body), &messages); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	for _, m := range messages {
		at = append(at, m.Timestamp)
	}
	return at
}
