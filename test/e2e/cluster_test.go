package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// fleetOf is a cluster of servers that share cars, which report all the time.
type fleetOf struct {
	t        *testing.T
	broker   *brokertest.Mosquitto
	etcd     *etcdtest.Etcd
	replicas []*servertest.Server // a stopped one stays in its place
	configs  []obj
	admins   []string              // addresses of their admin endpoints
	networks [][]*badnetwork.Proxy // of each replica, to broker and etcd
	cars     []*sharedCar
	stop     chan struct{}
	drives   sync.WaitGroup
}

// sharedCar is a gateway that notes how long it waits for answers.
type sharedCar struct {
	*testCar
	mu      sync.Mutex
	last    time.Time     // when a status was answered
	silence time.Duration // the longest time between two answers since calm
}

// newFleet makes a broker, etcd, and the configurations of n replicas with cars c_0 to
// c_(cars-1).
func newFleet(t *testing.T, n, cars int) *fleetOf {
	t.Helper()
	f := &fleetOf{t: t, broker: brokertest.Start(t, defaults(t, "")), etcd: etcdtest.Start(t, etcdtest.Options{}), stop: make(chan struct{})}
	var names []string
	for i := range cars {
		names = append(names, fmt.Sprintf("c_%d", i))
	}
	dir, library := t.TempDir(), servertest.Example(t)
	for i := range n {
		name := fmt.Sprintf("r%d", i)
		toBroker, toEtcd := badnetwork.New(t, f.broker.Address()), badnetwork.New(t, f.etcd.Address())
		f.networks = append(f.networks, []*badnetwork.Proxy{toBroker, toEtcd})
		config := formatD(toBroker.Address(), obj{"1000": obj{"lib_path": library}}, names...)
		config["state_directory"] = filepath.Join(dir, name)
		config["cluster"] = obj{
			"etcd": []string{"http://" + toEtcd.Address()}, "name": "fleet", "replica": name,
			"peer_listen": brokertest.FreeAddress(t), "peer_token": "0123456789abcdef",
		}
		f.admins = append(f.admins, brokertest.FreeAddress(t))
		config["admin"] = obj{"listen": f.admins[i]}
		f.configs = append(f.configs, config)
		f.replicas = append(f.replicas, nil)
	}
	return f
}

// start starts the replicas, which were never started or have ended.
func (f *fleetOf) start(replicas ...int) {
	f.t.Helper()
	for _, i := range replicas {
		f.replicas[i] = servertest.Start(f.t, servertest.Options{Config: f.configs[i]})
	}
}

// drive starts a gateway for each car and lets it report every 500 ms until the test ends.
func (f *fleetOf) drive() {
	f.t.Helper()
	for name := range f.configs[0]["cars"].(obj) {
		c := &sharedCar{}
		c.testCar = startCarWith(f.t, open(f.broker), name, gateway.Timing{ // patient while it connects: shards may still be moving
			RetryPause: 300 * time.Millisecond, MessageTimeout: time.Minute, LinkTimeout: 30 * time.Second,
			StatusTimeout: 30 * time.Second, QueuePoll: 50 * time.Millisecond, LeaveStall: 50 * time.Millisecond,
		})
		c.watch.answer = c.answered
		f.cars = append(f.cars, c)
		f.drives.Go(func() {
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for {
				c.report(`{"pressed": true}`, button)
				select {
				case <-f.stop:
					return
				case <-tick.C:
				}
			}
		})
	}
	f.t.Cleanup(func() {
		close(f.stop)
		f.drives.Wait()
	})
	f.served(3)
}

func (c *sharedCar) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.last.IsZero() {
		c.silence = max(c.silence, now.Sub(c.last))
	}
	c.last = now
}

// calm forgets the silence so far.
func (f *fleetOf) calm() {
	for _, c := range f.cars {
		c.mu.Lock()
		c.silence = 0
		c.mu.Unlock()
	}
}

// longest is the longest silence that a car has met since calm.
func (f *fleetOf) longest() (longest time.Duration) {
	for _, c := range f.cars {
		c.mu.Lock()
		longest = max(longest, c.silence)
		c.mu.Unlock()
	}
	return longest
}

// served waits until each car has had n more statuses answered.
func (f *fleetOf) served(n int) {
	f.t.Helper()
	before := make([]int, len(f.cars))
	for i, c := range f.cars {
		_, before[i], _ = c.watch.get()
	}
	for i, c := range f.cars {
		testwait.Until(f.t, fmt.Sprintf("car %v is served", c.Car()), func() bool {
			_, now, _ := c.watch.get()
			return now >= before[i]+n
		})
	}
}

// unnoticed demands that no car has lost its session.
func (f *fleetOf) unnoticed(what string) {
	f.t.Helper()
	for _, c := range f.cars {
		c.watch.mu.Lock()
		if c.watch.connected != 1 || len(c.watch.ends) > 0 {
			f.t.Errorf("%s: car %v has had %d sessions: %v", what, c.Car(), c.watch.connected, c.watch.ends)
		}
		c.watch.mu.Unlock()
	}
}

// said tells whether a replica has logged the text, and how often.
func (f *fleetOf) said(i int, text string) int { return strings.Count(f.replicas[i].Log(), text) }

// step does something to the cluster and demands that no car notices.
func (f *fleetOf) step(what string, do func()) {
	f.t.Helper()
	f.calm()
	begun := time.Now()
	do()
	f.served(4)
	f.unnoticed(what)
	f.t.Logf("%s: longest silence %v, took %v", what, f.longest().Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// spread waits until all shards are served, and each of the replicas has some.
func (f *fleetOf) spread(shards int, replicas ...int) {
	f.t.Helper()
	testwait.Until(f.t, "all shards are served", func() bool {
		all := 0
		for _, i := range replicas {
			own := f.said(i, "serving a shard")
			if own == 0 {
				return false
			}
			all += own
		}
		return all >= shards
	})
}

// seen demands that the replica is ready and lists all cars of the fleet.
func (f *fleetOf) seen(i int) {
	f.t.Helper()
	var list string
	defer func() {
		if f.t.Failed() {
			f.t.Logf("%.500s", list)
		}
	}()
	testwait.Until(f.t, fmt.Sprintf("replica %d shows the fleet", i), func() bool {
		list = get(f.t, "http://"+f.admins[i]+"/readyz") + get(f.t, "http://"+f.admins[i]+"/api/v1/cars")
		// The addresses of their networks are all that differs.
		ready := strings.ReplaceAll(list, "not ready: the configuration differs from that of", "")
		return !strings.Contains(ready, "not ready") && strings.Contains(list, fmt.Sprintf(`"running":%d,`, len(f.cars)))
	})
}

// spoil changes the network of a replica.
func (f *fleetOf) spoil(i int, faults badnetwork.Faults) {
	for _, n := range f.networks[i] {
		n.Set(faults)
	}
}

// end stops a replica in order.
func (f *fleetOf) end(i int) {
	f.t.Helper()
	if code := f.replicas[i].Stop(); code != 0 {
		f.t.Errorf("exit code %d of replica %d", code, i)
	}
}

// Three replicas share 60 cars. One is drained, one is stopped in order, one stands still, one is cut off
// from broker and etcd, one is killed; etcd stands still and is killed: no car loses its
// session.
func TestReplicasShareCars(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, 60)
	f.start(0, 1, 2)
	f.spread(32, 0, 1, 2)
	f.drive()
	f.seen(0)
	f.step("etcd stands still", func() {
		f.etcd.Freeze()
		f.served(12) // longer than the leases last
		f.etcd.Thaw()
	})
	f.step("a replica is drained", func() {
		out, notes, code := servertest.Run(t, t.TempDir(), "drain", "--admin", "http://"+f.admins[1], "r0")
		if code != 0 || !strings.Contains(out, "replica r0 serves no car") {
			t.Errorf("%d\n%s\n%s", code, out, notes)
		}
	})
	f.end(0)
	f.start(0)
	f.step("a replica stands still", func() {
		f.replicas[1].Signal(syscall.SIGSTOP)
		f.served(2)
		f.replicas[1].Signal(syscall.SIGCONT)
	})
	f.step("a replica is stopped", func() { f.end(1) })
	f.start(1)
	f.step("a replica is cut off", func() {
		f.spoil(2, badnetwork.Faults{Silent: true})
		f.served(2)
		f.spoil(2, badnetwork.Faults{})
	})
	f.step("a replica is killed", func() { f.replicas[0].Kill() })
	f.step("etcd restarts", func() {
		f.etcd.Kill()
		f.etcd.Restart()
	})
	f.seen(1)
	f.end(1)
	f.end(2)
}
