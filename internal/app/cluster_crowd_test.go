package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"external-server/internal/app/replica"
	"external-server/internal/cluster"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/link/mqtt"
	"external-server/internal/module"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// crowdShards is how many shards the replicas of these tests share.
const crowdShards = 4

// table says who owns which shard: the tests do, instead of a planner and etcd.
type table struct {
	mu      sync.Mutex
	view    cluster.View
	changed chan struct{}
	epoch   int64
}

func newTable() *table {
	return &table{view: cluster.View{Shards: make([]cluster.Owner, crowdShards), Connected: true}, changed: make(chan struct{}), epoch: 100}
}

func (tb *table) change(do func(v *cluster.View)) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	next := tb.view
	next.Shards = slices.Clone(next.Shards)
	do(&next)
	tb.view = next
	close(tb.changed)
	tb.changed = make(chan struct{})
}

func (tb *table) next() int64 {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.epoch++
	return tb.epoch
}

// chair is one replica's part in the table. It implements replica.Membership.
type chair struct {
	*table
	name string // of the replica
	lost chan int
}

func (c *chair) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (c *chair) Drain(context.Context) error   { return nil }
func (c *chair) Lost(shard int)                { c.lost <- shard }
func (c *chair) BeginDrain()                   {}
func (c *chair) AnyCar(bool)                   {}
func (c *chair) Lease() (int64, time.Time)     { return 0, time.Time{} }
func (c *chair) Counts() cluster.Counts        { return cluster.Counts{} }

func (c *chair) View() *cluster.View {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.view
	v.Self = c.name
	return &v
}

func (c *chair) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// account is what the modules of all replicas were given, by car.
type account struct {
	mu    sync.Mutex
	given map[string][]int
	stuck bool // modules take nothing
}

func (a *account) add(car string, data []byte) {
	n, err := strconv.Atoi(string(data))
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.given[car] = append(a.given[car], n)
}

// begin forgets what came while the cars connected: a gateway does not send all of that.
func (a *account) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.given)
}

func (a *account) isStuck() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stuck
}

// stick lets the modules hang in their next calls, or work again.
func (a *account) stick(stuck bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stuck = stuck
}

// exact demands that each car's statuses came once and in order.
func (a *account) exact(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for car, given := range a.given {
		for i := 1; i < len(given); i++ {
			if given[i] != given[i-1]+1 {
				t.Errorf("car %s: status %d follows %d", car, given[i], given[i-1])
			}
		}
	}
}

// countingModule gives the account what it gets.
type countingModule struct {
	idleModule
	a *account
}

func (m countingModule) Open(_ context.Context, spec module.InstanceSpec) (module.Instance, error) {
	return countingInstance{idleInstance{m.idleModule, spec.Car}, m.a}, nil
}

type countingInstance struct {
	idleInstance
	a *account
}

func (i countingInstance) ForwardStatus(ctx context.Context, _ fleet.Device, data []byte) error {
	if i.a.isStuck() {
		<-ctx.Done()
		return ctx.Err()
	}
	i.a.add(i.car.Car, data)
	return nil
}

// sharer is one server of a crowd.
type sharer struct {
	*App
	t     *testing.T
	name  string
	log   *testlog.Buffer
	chair *chair
	cfg   *config.Config
	stop  func()
}

// crowd are replicas at one broker, and cars.
type crowd struct {
	relays  map[string]*badnetwork.Proxy // to the broker, of replicas that have one of their own
	t       *testing.T
	broker  *brokertest.Mosquitto
	dir     string
	cars    string // JSON
	table   *table
	account *account
	drives  []*drive
	edit    func(*config.Config) // of each replica's configuration; nil: as it is
}

func newCrowd(t *testing.T, cars string) *crowd {
	return &crowd{
		t: t, broker: brokertest.Start(t, brokertest.Options{}), dir: t.TempDir(), cars: cars, table: newTable(),
		account: &account{given: make(map[string][]int)},
	}
}

// load reads the configuration of a replica.
func (c *crowd) load(name string) *config.Config {
	c.t.Helper()
	path := filepath.Join(c.dir, name+".json")
	port := c.broker.Port()
	if relay := c.relays[name]; relay != nil {
		port = relay.Port()
	}
	text := fmt.Sprintf(`{"company_name": "company", "external_communication": {"server_address": "127.0.0.1", "server_port": %d},
		"state_directory": %q, "cluster": {"etcd": ["http://127.0.0.1:1"], "name": "test", "replica": %q, "shards": %d,
			"peer_listen": "127.0.0.1:0", "peer_token": "0123456789abcdef"},
		"common_modules": {"5": {"command": ["true"]}}, "cars": %s}`, port, filepath.Join(c.dir, name), name, crowdShards, c.cars)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	cfg, _, err := config.Load(path, func(string) (string, bool) { return "", false })
	if err != nil {
		c.t.Fatal(err)
	}
	if c.edit != nil {
		c.edit(cfg)
	}
	return cfg
}

// start runs a replica until the test ends.
func (c *crowd) start(name string) *sharer {
	c.t.Helper()
	r := &sharer{t: c.t, name: name, log: new(testlog.Buffer), cfg: c.load(name), chair: &chair{table: c.table, name: name, lost: make(chan int, crowdShards)}}
	var err error
	r.App, err = New(c.t.Context(), Options{
		Config: r.cfg, Logger: r.log.Logger(),
		Module:     func(config.Module) (module.Module, error) { return countingModule{a: c.account}, nil },
		membership: func(cluster.Host, *config.Config) replica.Membership { return r.chair },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			c.t.Errorf("replica %s: %v", name, err)
		}
	})
	r.stop = func() { cancel(); running.Wait() }
	c.t.Cleanup(r.stop)
	testwait.Until(c.t, "replica "+name+" begins", func() bool { return r.log.Has("msg=serving") })
	return r
}

// open gives a shard to a replica.
func (c *crowd) open(r *sharer, shards ...int) {
	c.t.Helper()
	for _, n := range shards {
		var epoch int64
		testwait.Until(c.t, fmt.Sprintf("%s opens shard %d", r.name, n), func() bool { // what fails is tried again, as in service
			epoch = c.table.next()
			err := r.cluster.replica.Open(c.t.Context(), n, epoch)
			if err != nil {
				c.t.Log(err)
			}
			return err == nil
		})
		c.table.change(func(v *cluster.View) {
			v.Shards[n] = cluster.Owner{Replica: r.name, Address: r.peers.address(r.cfg.Cluster), Epoch: epoch, State: cluster.ClaimServing}
		})
	}
}

// hears waits until the owner of a shard tells this replica that it serves it: on a busy machine
// it may not answer in time at first.
func (r *sharer) hears(shard int, owner string) {
	r.t.Helper()
	testwait.Until(r.t, owner+" says that it serves the shard", func() bool {
		answer, err := r.cluster.replica.Ask(r.t.Context(), shard)
		if err != nil {
			r.t.Log(err)
		}
		return err == nil && answer.Serving && answer.Owner.Replica == owner
	})
}

func (r *sharer) member() cluster.Member {
	return cluster.Member{Name: r.name, Address: r.peers.address(r.cfg.Cluster)}
}

// drive is a gateway that reports all the time.
type drive struct {
	*gateway.Gateway
	mu       sync.Mutex
	sessions int
	answered int
	ends     []string
}

func (d *drive) observe(e gateway.Effect) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e.Kind {
	case gateway.EffectConnected:
		d.sessions++
	case gateway.EffectAnswered:
		d.answered++
	case gateway.EffectDisconnected, gateway.EffectSequenceFailed, gateway.EffectViolation:
		d.ends = append(d.ends, e.Reason.String())
	}
}

var crowdDevice = fleet.Device{Module: 5, Type: 1, Role: "r", Name: "n"}

// drive lets cars report every 20 ms until the test ends.
func (c *crowd) drive(names ...string) {
	c.t.Helper()
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	for _, name := range names {
		d := &drive{}
		g, err := gateway.Start(gateway.Settings{
			Car: fleet.CarID{Company: "company", Car: name}, Broker: gateway.Broker{Address: c.broker.Address()}, Observe: d.observe,
			Core: gateway.Options{Steady: true, Timing: gateway.Timing{
				RetryPause: 300 * time.Millisecond, MessageTimeout: testwait.Patience, LinkTimeout: testwait.Patience,
				QueuePoll: 50 * time.Millisecond, LeaveStall: 50 * time.Millisecond,
			}},
		})
		if err != nil {
			c.t.Fatal(err)
		}
		d.Gateway = g
		c.drives = append(c.drives, d)
		running.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				d.Status(crowdDevice, []byte(strconv.Itoa(n)), time.Time{})
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	c.t.Cleanup(func() {
		cancel()
		running.Wait()
		for _, d := range c.drives {
			d.Close()
		}
	})
	c.served(3)
	c.account.begin()
}

// served waits until each car has had n more statuses answered.
func (c *crowd) served(n int) {
	c.t.Helper()
	for _, d := range c.drives {
		get := func() int {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.answered
		}
		before := get()
		testwait.Until(c.t, fmt.Sprintf("car %v is served", d.Car()), func() bool { return get() >= before+n })
	}
}

// unnoticed demands that each car has had one session.
func (c *crowd) unnoticed() {
	c.t.Helper()
	for _, d := range c.drives {
		d.mu.Lock()
		if d.sessions != 1 || len(d.ends) > 0 {
			c.t.Errorf("car %v had %d sessions: %v", d.Car(), d.sessions, d.ends)
		}
		d.mu.Unlock()
	}
}

// shardOf is the shard of a car.
func shardOf(name string) int {
	return mqtt.Shard(fleet.CarID{Company: "company", Car: name}, crowdShards)
}

// carsOfEach returns n names of cars of each shard, and the "cars" of a configuration with
// them.
func carsOfEach(n int) (names []string, cars string) {
	have := make([]int, crowdShards)
	for i := 0; len(names) < n*crowdShards; i++ {
		name := fmt.Sprintf("car_%d", i)
		if shard := shardOf(name); have[shard] < n {
			have[shard]++
			names = append(names, name)
			cars += fmt.Sprintf(", %q: {}", name)
		}
	}
	return names, "{" + cars[2:] + "}"
}
