package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	"external-server/internal/peer"
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

// A shard that is handed over takes its sessions along: no gateway notices, and the modules
// get every status once and in order.
func TestShardIsHandedOver(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(3)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	for n := range crowdShards {
		if err := a.cluster.replica.Close(t.Context(), n, b.member(), false); err != nil {
			t.Fatal(err)
		}
		c.open(b, n)
		c.served(2)
	}
	if len(a.Cars()) != 0 || len(b.Cars()) != len(names) {
		t.Errorf("a serves %d cars, b %d", len(a.Cars()), len(b.Cars()))
	}
	if err := b.cluster.replica.Close(t.Context(), 2, a.member(), false); err != nil { // and back
		t.Fatal(err)
	}
	c.open(a, 2)
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}

// A replica that does not take a shard leaves it where it is.
func TestHandOverIsRefused(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a := c.start("a")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	nobody := cluster.Member{Name: "b", Address: brokertest.FreeAddress(t)}
	for n := range crowdShards {
		if err := a.cluster.replica.Close(t.Context(), n, nobody, false); err == nil {
			t.Error("a shard was handed over to nobody")
		}
	}
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}

// The address of another replica that leads somewhere else, as a loopback address of another machine does, gets
// nothing: neither this replica itself nor a third one takes a shard that is meant for the other.
func TestHandOverToWrongAddress(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a, third := c.start("a"), c.start("third")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	for n, at := range []string{a.member().Address, third.member().Address} {
		err := a.cluster.replica.Close(t.Context(), n, cluster.Member{Name: "b", Address: at}, false)
		if peer.ReasonOf(err) != peer.Misled || !strings.Contains(err.Error(), "cluster.peer_address") {
			t.Errorf("shard %d was given to %s instead of b: %v", n, at, err)
		}
	}
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}

// A shard whose owner does not answer is taken over from the records at the broker. The
// owner, which lives, falls silent.
func TestShardIsTakenOver(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(3)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	for n := range crowdShards {
		c.open(b, n)
	}
	for range crowdShards {
		select {
		case <-a.chair.lost:
		case <-time.After(testwait.Patience):
			t.Fatal("the owner does not notice that it is none any more")
		}
	}
	c.served(5)
	c.unnoticed()
	if len(a.Cars()) != 0 || len(b.Cars()) != len(names) {
		t.Errorf("a serves %d cars, b %d", len(a.Cars()), len(b.Cars()))
	}
}

// An owner that comes back before anybody has taken its shards goes on from its own
// journals; when others have, it discards them.
func TestOwnerComesBack(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	a.stop() // alone: the sessions are suspended
	a = c.start("a")
	c.open(a, 0, 1, 2, 3)
	if !a.log.Has("this replica's journal") {
		t.Errorf("%s", a.log)
	}
	c.served(5)
	a.stop()
	c.open(b, 0, 1, 2, 3)
	c.served(5)
	a = c.start("a")
	if err := b.cluster.replica.Close(t.Context(), 1, a.member(), false); err != nil {
		t.Fatal(err)
	}
	c.open(a, 1)
	c.served(5)
	c.unnoticed()
}

// What modules had not taken when their replica ended is discarded, counted and told when another one has served the
// cars since: given now, it would overtake what is newer.
func TestStatusesOfAnEndedOwnerAreDiscarded(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	c.edit = func(cfg *config.Config) { cfg.Limits.Stop = time.Second }
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	c.account.stick(true)
	c.served(5) // the modules take none of these
	a.stop()    // alone as far as it knows
	c.account.stick(false)
	c.account.begin()
	c.open(b, 0, 1, 2, 3)
	c.served(5)
	a = c.start("a")
	for n := range crowdShards {
		if err := b.cluster.replica.Close(t.Context(), n, a.member(), false); err != nil {
			t.Fatal(err)
		}
		c.open(a, n)
	}
	if n := a.cluster.replica.State().Discarded; n < uint64(2*len(names)) || strings.Count(a.log.String(), "are discarded") != crowdShards {
		t.Errorf("%d statuses are discarded\n%s", n, a.log)
	}
	c.served(5)
	c.unnoticed()
	c.account.exact(t)
}

// A claim that had vanished and was taken again is announced, nothing else happens.
func TestEpochRises(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(1)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1, 2, 3)
	c.drive(names...)
	stale := c.table.next()
	c.open(a, 0, 1, 2, 3)
	c.served(5)
	c.unnoticed()
	var err *cluster.StaleError
	testwait.Until(t, "the broker has the epoch", func() bool {
		return errors.As(b.cluster.replica.Open(t.Context(), 0, stale), &err)
	})
	b.hears(0, "a")
	a.stop()
	if answer, err := b.cluster.replica.Ask(t.Context(), 0); err != nil || answer.Serving {
		t.Errorf("%+v, %v", answer, err)
	}
}

// A car of "*" is found by the replica that looks for unknown cars, and served by the owner of
// its shard; another owner goes on with it.
func TestFoundCarInCluster(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, `{"*": {}}`)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1)
	c.open(b, 2, 3)
	c.table.change(func(v *cluster.View) { v.Scout = "a" })
	testwait.Until(t, "the scout is connected", func() bool { return len(a.link.State().Connections) == 3 && a.LinkUp() })
	names, _ := carsOfEach(2)
	c.drive(names...)
	if len(a.Cars()) != 4 || len(b.Cars()) != 4 {
		t.Errorf("a serves %d cars, b %d", len(a.Cars()), len(b.Cars()))
	}
	if err := a.cluster.replica.Close(t.Context(), 1, b.member(), false); err != nil {
		t.Fatal(err)
	}
	c.open(b, 1)
	c.table.change(func(v *cluster.View) { v.Scout = "b" })
	c.served(3)
	c.open(b, 0) // without a word of a
	c.served(3)
	c.unnoticed()
	testwait.Until(t, "b serves all", func() bool { return len(b.Cars()) == len(names) && len(a.Cars()) == 0 })
}

// Strangers who let unknown cars connect whose shards have no owner do not fill the log.
func TestFoundCarsWithoutOwnerAreLogged(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, `{"*": {}}`)
	a := c.start("a")
	for n := range 300 {
		a.cluster.replica.Elsewhere(fleet.CarID{Company: "company", Car: fmt.Sprint("car", n)}, []byte("a Connect"))
	}
	const late, many = "could not be handed to the owner", "more unknown cars connect"
	testwait.Until(t, "both are told", func() bool { return a.log.Has(late) && a.log.Has(many) })
	a.stop()
	if n := strings.Count(a.log.String(), late) + strings.Count(a.log.String(), many); n > 20 {
		t.Errorf("%d lines for 300 Connects", n)
	}
}

// A reload changes the cars of the shards that are served, and another replica follows with
// its own.
func TestReloadInCluster(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a, b := c.start("a"), c.start("b")
	c.open(a, 0, 1)
	c.open(b, 2, 3)
	c.drive(names...)
	more, cars := carsOfEach(3)
	c.cars = cars
	for _, r := range []*sharer{a, b} {
		changes, err := r.Reload(t.Context(), c.load(r.name))
		if err != nil || len(changes.Added) != 2 || changes.Unchanged != 4 || len(changes.Removed) != 0 {
			t.Errorf("%s: %v, %v", r.name, changes, err)
		}
	}
	c.drive(slices.DeleteFunc(more, func(name string) bool { return slices.Contains(names, name) })...)
	c.unnoticed()
	if err := a.cluster.replica.Close(t.Context(), 1, b.member(), false); err != nil {
		t.Fatal(err)
	}
	c.open(b, 1)
	c.served(3)
	if len(a.Cars()) != 3 || len(b.Cars()) != 9 {
		t.Errorf("a serves %d cars, b %d", len(a.Cars()), len(b.Cars()))
	}
	c.unnoticed()
}

// A shard that comes while a reload is under way has the cars of the new configuration.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	names, cars := carsOfEach(2)
	c := newCrowd(t, cars)
	a := c.start("a")
	c.open(a, 0)
	more, cars := carsOfEach(3)
	c.cars = cars
	fresh := c.load("a")
	a.waits = &waits{step: time.Minute}
	made, err := a.roster.Prepare(t.Context(), fresh, a.waits.within)
	if err != nil {
		t.Fatal(err)
	}
	c.open(a, 1, 2, 3) // with the old one
	if len(a.Cars()) != len(names) {
		t.Errorf("%d cars", len(a.Cars()))
	}
	if err := a.roster.Apply(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	if len(a.Cars()) != len(more) {
		t.Errorf("%d cars", len(a.Cars()))
	}
	c.drive(more...)
}
