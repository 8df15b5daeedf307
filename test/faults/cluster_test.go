package faults

import (
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

const (
	clusterName   = "fleet"
	clusterShards = 32
)

var carsFlag = flag.Int("cars", 1000, "`number` of cars that three replicas share")

// replicas is a cluster of servers that share the cars of a rig. Each of them reaches broker
// and etcd over networks of its own.
type replicas struct {
	*rig
	cars   map[string]int32
	etcd   *etcdtest.Etcd
	all    []*replica
	starts int // of servers so far
	epochs *epochRecorder
	ended  []*servertest.Server // earlier lives
}

type replica struct {
	name         string
	broker, etcd *badnetwork.Proxy
	peer         *badnetwork.Proxy // from the others to it
	dir          string            // of the state
	peers        string            // where it listens to the others
	clock        *clock            // of its own; nil: that of the machine
	opts         servertest.Options
	server       *servertest.Server
}

// share starts a broker, etcd and n replicas, and cars that report once per second. The
// replicas are the build that is shipped, because the rows say how long the cars had no answer.
// make test has the same with the race detector: TestReplicasShareCars of e2e. Those that are
// named in clocked have wall clocks of their own.
func (r *rig) share(n int, conf string, clocked ...string) *replicas {
	r.Helper()
	return r.shareCars(n, conf, fleetOf("car", *carsFlag, recorder, nil), clocked...)
}

// shareCars is share with certain cars.
func (r *rig) shareCars(n int, conf string, cars map[string]int32, clocked ...string) *replicas {
	r.Helper()
	r.opts.Binary = servertest.Plain(r)
	path := filepath.Join(r.dir, "mosquitto.conf")
	r.write(path, []byte("listener 1883\nallow_anonymous true\nlog_dest stderr\nuser root\n"+conf))
	r.broker = brokertest.Start(r, brokertest.Options{File: path})
	f := &replicas{rig: r, cars: cars, etcd: etcdtest.Start(r, etcdtest.Options{})}
	f.epochs = newRecorder(r, r.broker.Address())
	for range n {
		m := f.another(fmt.Sprintf("r%d", len(f.all)))
		if slices.Contains(clocked, m.name) {
			m.clock, m.opts.Prefix = newClock(r)
			m.opts.Binary = askingBuild(r, m.opts.Binary)
		}
		f.start(m)
	}
	f.spread()
	r.startCars(f.cars, time.Second)
	f.await("the sessions run", func() bool { return f.said("session running") >= len(f.cars) })
	r.forgetWaits()
	return f
}

// another adds a replica, which is not started.
func (f *replicas) another(name string) *replica {
	m := &replica{
		name: name, broker: badnetwork.New(f, f.epochs.Address()), etcd: badnetwork.New(f, f.etcd.Address()),
		dir: filepath.Join(f.dir, fmt.Sprint("state", len(f.all))), peers: brokertest.FreeAddress(f), opts: f.opts,
	}
	m.peer = badnetwork.New(f, m.peers)
	f.all = append(f.all, m)
	return m
}

// start starts a replica that does not run. Its modules write down what they get in
// a file of this life.
func (f *replicas) start(m *replica) {
	f.Helper()
	if m.server != nil {
		f.ended = append(f.ended, m.server)
	}
	f.life = f.starts
	f.starts++
	f.configure(f.cars)
	config := maps.Clone(f.config)
	config["external_communication"].(obj)["server_port"] = m.broker.Port()
	config["state_directory"] = m.dir
	config["cluster"] = obj{
		"etcd": []string{"http://" + m.etcd.Address()}, "name": clusterName, "replica": m.name,
		"peer_listen": m.peers, "peer_address": m.peer.Address(), "peer_token": "0123456789abcdef", "shards": clusterShards,
	}
	o := m.opts
	o.Config = config
	m.server = servertest.Start(f, o)
}

// await is testwait.Until for conditions that read long logs.
func (f *replicas) await(what string, condition func() bool) {
	f.Helper()
	for deadline := time.Now().Add(2 * testwait.Patience); !condition(); pause(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("did not happen within %v: %s", 2*testwait.Patience, what)
		}
	}
}

// said counts a text in the logs of all replicas and of their earlier lives.
func (f *replicas) said(text string) (n int) {
	for _, m := range f.all {
		if m.server != nil {
			n += strings.Count(m.server.Log(), text)
		}
	}
	for _, s := range f.ended {
		n += strings.Count(s.Log(), text)
	}
	return n
}

// serves waits until the replica serves shards in this life.
func (f *replicas) serves(m *replica) {
	f.Helper()
	f.await("replica "+m.name+" serves cars", func() bool { return strings.Contains(m.server.Log(), "serving a shard") })
}

// spread waits until all shards are served and each replica has some.
func (f *replicas) spread() {
	f.Helper()
	for _, m := range f.all {
		f.serves(m)
	}
	f.await("every shard has an owner", func() bool { return f.epochs.shards() == clusterShards })
}

// stop ends a replica in order.
func (f *replicas) stop(m *replica) {
	f.Helper()
	if code := m.server.Stop(); code != 0 {
		f.Errorf("replica %s: exit code %d", m.name, code)
	}
}

// spoiled breaks the network, waits and heals it.
func (f *replicas) spoiled(d time.Duration, n badnetwork.Faults, ways ...*badnetwork.Proxy) {
	for _, p := range ways {
		p.Set(n)
	}
	pause(d)
	for _, p := range ways {
		p.Set(badnetwork.Faults{})
	}
}

// verdict of a row.
type verdict struct {
	excused int           // sessions that may be lost
	longest time.Duration // wait for an answer
	loss    string        // why an answered status may be lost; "": none may
	// once demands that no status is delivered twice: not by the process whose cars another one serves, which
	// goes on with what it had read.
	once bool
}

// within returns the verdict with another bound of the waits.
func (v verdict) within(longest time.Duration) verdict {
	v.longest = longest
	return v
}

// judge waits until all cars are served, says what they noticed, ends the replicas and
// settles the account.
func (f *replicas) judge(v verdict) {
	f.Helper()
	f.crew.served(time.Now(), 2*time.Minute)
	lost, doubles, gaps, longest := 0, 0, 0, time.Duration(0)
	for _, c := range f.crew.cars {
		n := c.lostSessions()
		if lost += n; n > 0 && (lost > v.excused || v.excused < len(f.cars)) {
			f.Logf("car %s lost its session: %s", c.name, c.reasons(c.ends))
		}
		c.mu.Lock()
		doubles += c.ends[gateway.ReasonUnknownResponse]
		gaps += c.ends[gateway.ReasonCommandGap]
		longest = max(longest, c.longest)
		c.mu.Unlock()
	}
	if lost > v.excused {
		f.Errorf("%d sessions lost, %d are excused", lost, v.excused)
	}
	if longest > v.longest {
		f.Errorf("a car waited %v for an answer, longer than %v", longest, v.longest)
	}
	f.crew.halt()
	f.crew.settle(35 * time.Second)
	f.row.Note = "" // of awaitDelivery, which is said again below
	if v.loss == "" {
		f.awaitDelivery(func() bool { return f.missing(f.recorded()) == 0 })
	}
	late := f.row.Note
	for _, m := range f.all {
		if m.server.Running() {
			f.stop(m)
		}
	}
	f.account(v.loss)
	discarded := f.discarded()
	if f.row.Lost > discarded {
		f.Errorf("%d answered statuses were not delivered, %d are accounted for", f.row.Lost, discarded)
	}
	f.row.Note = fmt.Sprintf("sessions lost %d, double answers %d, counter gaps %d, longest wait for an answer %v, %s",
		lost, doubles, gaps, longest.Round(10*time.Millisecond), f.epochs.verdict(f)) + prefixed("; ", late)
	if v.once && f.row.Again > 0 {
		f.Errorf("%d statuses were delivered twice", f.row.Again)
	}
	if f.row.Again > 0 {
		f.row.Note += fmt.Sprintf("; %d delivered again by another process", f.row.Again)
	}
	if f.row.Lost > 0 {
		f.row.Note += "; lost: " + v.loss
	}
	if discarded > 0 {
		f.row.Note += fmt.Sprintf("; %d counted as discarded", discarded)
	}
}

var discardedLine = regexp.MustCompile(`are discarded.*\bstatuses=(\d+)`)

// discarded sums up what the replicas say they have not given to a module.
func (f *replicas) discarded() (n int) {
	servers := f.ended
	for _, m := range f.all {
		servers = append(servers, m.server)
	}
	for _, s := range servers {
		for _, hit := range discardedLine.FindAllStringSubmatch(s.Log(), -1) {
			if count, err := strconv.Atoi(hit[1]); err == nil {
				n += count
			}
		}
	}
	return n
}
