package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"external-server/internal/support/badnetwork"

	"external-server/internal/fleet"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/testwait"
)

// queueGone is why a replica that was taken for dead may lose what it has answered.
const queueGone = "the queue of a replica is its own; it counts what it discards"

// clusterFault is a scenario with three replicas.
func clusterFault(name, fault string, v verdict, do func(f *replicas)) scenario {
	return scenario{"cluster-" + name, "three replicas: " + fault, false, func(r *rig) {
		f := r.share(3, "")
		do(f)
		f.judge(v)
	}}
}

// Waits at which a row fails. They are generous, because the machine may be busy: the row says
// what was measured.
const (
	takeover = 30 * time.Second // more would end sessions (GW-42)
	smooth   = 5 * time.Second
	cutOff   = 8 * time.Second // the broker is silent for one, which gives its shards away
)

func clusterFaults() []scenario {
	suspects := max(1, *carsFlag/100) // a command may be under way in a session when its replica dies (RES-22)
	gone := verdict{excused: suspects, longest: takeover, loss: queueGone}
	kept := verdict{longest: smooth}
	cut := verdict{longest: cutOff}
	all := []scenario{
		clusterFault("kill", "one killed (SIGKILL) under load, started again 10 s later", gone, func(f *replicas) {
			m := f.all[1]
			m.server.Kill()
			pause(10 * time.Second)
			f.start(m)
			f.serves(m)
		}),
	}
	for _, d := range []time.Duration{time.Second, 5 * time.Second, 20 * time.Second} {
		v := gone
		if d < 2*time.Second { // shorter than the lease, and than what the others wait for
			v = kept
		}
		v.once = true
		all = append(all, clusterFault(fmt.Sprintf("halt-%d", int(d.Seconds())), fmt.Sprintf("one halted (SIGSTOP) for %v", d), v, func(f *replicas) {
			f.all[1].server.Signal(syscall.SIGSTOP)
			pause(d)
			f.all[1].server.Signal(syscall.SIGCONT)
			pause(5 * time.Second)
		}))
	}
	return append(all,
		scenario{"cluster-delivered", `three replicas: one killed (SIGKILL) whose modules have hung for 3 s, "answer": "delivered"`, false, func(r *rig) {
			r.answer = "delivered"
			f := r.share(3, "")
			r.touch(r.trigger(recorder, "hang"))
			pause(3 * time.Second)
			m := f.all[1]
			m.server.Kill()
			r.remove(r.trigger(recorder, "hang"))
			pause(10 * time.Second)
			f.start(m)
			f.serves(m)
			f.judge(verdict{excused: suspects, longest: takeover}) // nothing may be lost
		}},
		clusterFault("stops", "each one stopped (SIGTERM) under load and started again, one after the other", kept, func(f *replicas) {
			for _, m := range f.all {
				f.stop(m)
				f.start(m)
				f.serves(m)
			}
		}),
		clusterFault("joins", "a fourth one joins and leaves, three times", kept, func(f *replicas) {
			m := f.another("r3")
			for range 3 {
				f.start(m)
				f.serves(m)
				pause(3 * time.Second)
				f.stop(m)
			}
		}),
		clusterFault("no-etcd", "one cut off from etcd for 15 s", kept, func(f *replicas) {
			f.spoiled(15*time.Second, badnetwork.Faults{Silent: true}, f.all[1].etcd)
		}),
		clusterFault("no-broker", "one cut off from the broker for 25 s", cut, func(f *replicas) {
			f.spoiled(25*time.Second, badnetwork.Faults{Silent: true}, f.all[1].broker)
		}),
		clusterFault("no-both", "one cut off from etcd and the broker for 15 s", gone.within(cutOff), func(f *replicas) {
			f.spoiled(15*time.Second, badnetwork.Faults{Silent: true}, f.all[1].etcd, f.all[1].broker)
		}),
		clusterFault("no-broker-for-any", "all cut off from the broker for 10 s", kept.within(10*time.Second+cutOff), func(f *replicas) {
			before := f.epochs.rises()
			f.spoiled(10*time.Second, badnetwork.Faults{Silent: true}, f.all[0].broker, f.all[1].broker, f.all[2].broker)
			pause(10 * time.Second)
			if now := f.epochs.rises(); now != before {
				f.Errorf("%d shards have changed their owner although no replica had a broker", now-before)
			}
		}),
		clusterFault("no-broker-no-peers", "one cut off from the broker, and all from each other, for 25 s", gone.within(2*cutOff), func(f *replicas) {
			f.spoiled(25*time.Second, badnetwork.Faults{Silent: true}, f.all[1].broker, f.all[0].peer, f.all[1].peer, f.all[2].peer)
		}),
		clusterFault("drain-no-broker", "one drained at the moment in which it is cut off from the broker", cut, func(f *replicas) {
			m := f.all[1]
			m.broker.Set(badnetwork.Faults{Silent: true})
			f.stop(m)
			m.broker.Set(badnetwork.Faults{})
			f.start(m)
			f.serves(m)
		}),
		clusterFault("dead-connections", "the network loses all connections of one to the broker without a word, and takes new ones", kept, func(f *replicas) {
			before := f.epochs.rises()
			f.all[1].broker.Lose()
			pause(10 * time.Second)
			if now := f.epochs.rises(); now != before {
				f.Errorf("%d shards have changed their owner although the broker answers all replicas", now-before)
			}
		}),
		clusterFault("mute-broker", "what one says does not reach the broker for 25 s", cut, func(f *replicas) {
			f.spoiled(25*time.Second, badnetwork.Faults{Mute: true}, f.all[1].broker)
		}),
		clusterFault("deaf-broker", "what the broker says does not reach one for 15 s", cut, func(f *replicas) {
			f.spoiled(15*time.Second, badnetwork.Faults{Deaf: true}, f.all[1].broker)
		}),
		clusterFault("mute-etcd", "what one says does not reach etcd for 15 s", kept, func(f *replicas) {
			f.spoiled(15*time.Second, badnetwork.Faults{Mute: true}, f.all[1].etcd)
		}),
		clusterFault("deaf-etcd", "what etcd says does not reach one for 15 s", kept, func(f *replicas) {
			f.spoiled(15*time.Second, badnetwork.Faults{Deaf: true}, f.all[1].etcd)
		}),
		clusterFault("etcd-halt-10", "etcd halted (SIGSTOP) for 10 s", kept, func(f *replicas) { f.withoutEtcd(10 * time.Second) }),
		clusterFault("etcd-halt-60", "etcd halted (SIGSTOP) for 60 s", kept, func(f *replicas) { f.withoutEtcd(time.Minute) }),
		clusterFault("leases", "all leases revoked, five times", kept, func(f *replicas) {
			for range 5 {
				f.revokeLeases()
				pause(5 * time.Second)
			}
		}),
		clusterFault("one-name", "a fourth one with the name of another one", kept, func(f *replicas) {
			twin := f.another(f.all[1].name)
			f.start(twin)
			f.await("the twin is refused", func() bool { return strings.Contains(twin.server.Log(), "this server is no member of the cluster") })
			pause(10 * time.Second)
			if strings.Contains(twin.server.Log(), "serving a shard") {
				f.Error("two replicas of one name serve cars")
			}
			f.stop(twin)
		}),
		scenario{"cluster-one-shard", "three replicas: the owner of a shard of 312 cars killed (SIGKILL), max_queued_messages 10000", false, func(r *rig) {
			// With the 1000 messages that mosquitto queues by default they lose their sessions (docs/cluster.md, sizing).
			f := r.shareCars(3, "max_queued_messages 10000\n", carsOfShard(0, 312))
			f.all[f.ownerOf(0)].server.Kill()
			claimed := f.claimed(0)
			note := fmt.Sprintf("all answered %v after the claim", f.answered(claimed).Round(10*time.Millisecond))
			f.judge(gone)
			f.row.Note += "; " + note
		}},
		// Leases and epochs are not measured by the wall clock.
		scenario{"cluster-clock", "three replicas: the wall clock of one steps an hour ahead, two hours back and to the right time, 10 s each", false, func(r *rig) {
			f := r.share(3, "", "r1")
			for _, ahead := range []time.Duration{time.Hour, -time.Hour, 0} {
				f.all[1].clock.jump(ahead)
				pause(10 * time.Second)
			}
			f.judge(kept)
		}},
		// The cars lose their connections, too: their sessions end by GW-43.
		scenario{"cluster-broker", "three replicas: mosquitto with persistence restarted (SIGTERM) under load", false, func(r *rig) {
			f := r.share(3, "persistence true\npersistence_location "+r.TempDir()+"/\n")
			f.rig.broker.End()
			f.rig.broker.Restart()
			r.recovered(time.Now())
			f.judge(verdict{excused: 2 * *carsFlag, longest: time.Minute})
		}},
	)
}

// carsOfShard returns a fleet of which all cars belong to one shard.
func carsOfShard(shard, n int) map[string]int32 {
	cars := make(map[string]int32)
	for i := 0; len(cars) < n; i++ {
		name := fmt.Sprintf("car_%04d", i)
		if mqtt.Shard(fleet.CarID{Company: company, Car: name}, clusterShards) == shard {
			cars[name] = recorder
		}
	}
	return cars
}

// ownerOf returns the number of the replica that has told the epoch of the shard last.
func (f *replicas) ownerOf(shard int) int {
	f.Helper()
	name := f.epochs.owner(shard)
	i := slices.IndexFunc(f.all, func(m *replica) bool { return m.name == name })
	if i < 0 {
		f.Fatalf("shard %d is owned by %q", shard, name)
	}
	return i
}

// claimed waits until etcd has a new claim of the shard, and returns when it was heard of.
func (f *replicas) claimed(shard int) time.Time {
	f.Helper()
	client := f.etcdClient()
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), testwait.Patience)
	defer cancel()
	for answer := range client.Watch(ctx, fmt.Sprintf("/external-server/%s/shards/%04d", clusterName, shard), clientv3.WithPrefix()) {
		for _, ev := range answer.Events {
			if ev.IsCreate() {
				return time.Now()
			}
		}
	}
	f.Fatalf("shard %d is not claimed", shard)
	return time.Time{}
}

// answered waits until every car has had an answer from now on, and returns how long after
// the time that was.
func (f *replicas) answered(at time.Time) time.Duration {
	f.Helper()
	for _, c := range f.crew.cars {
		c.mu.Lock()
		c.first = time.Time{}
		c.mu.Unlock()
	}
	last := at
	for _, c := range f.crew.cars {
		f.await("car "+c.name+" is answered", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.first.After(last) {
				last = c.first
			}
			return !c.first.IsZero()
		})
	}
	return last.Sub(at)
}

// withoutEtcd lets etcd stand still.
func (f *replicas) withoutEtcd(d time.Duration) {
	f.etcd.Freeze()
	pause(d)
	f.etcd.Thaw()
	pause(5 * time.Second)
}

func (f *replicas) etcdClient() *clientv3.Client {
	f.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{f.etcd.URL()}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		f.Fatal(err)
	}
	return client
}

// revokeLeases ends all leases, as an operator could do by mistake.
func (f *replicas) revokeLeases() {
	f.Helper()
	client := f.etcdClient()
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	leases, err := client.Leases(ctx)
	if err != nil {
		f.Fatal(err)
	}
	if len(leases.Leases) < len(f.all) {
		f.Fatalf("%d leases for %d replicas", len(leases.Leases), len(f.all))
	}
	for _, l := range leases.Leases {
		if _, err := client.Revoke(ctx, l.ID); err != nil && ctx.Err() != nil {
			f.Fatal(err)
		}
	}
}
