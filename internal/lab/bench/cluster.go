package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"external-server/internal/lab/freeport"
	"external-server/internal/lab/simulate"
)

// clusterShards is the number of shards of a measured cluster, the default.
const clusterShards = 32

func readAll(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, 4<<20))
	return string(text), err
}

// withEtcd says that a scenario needs etcd, and a broker that keeps sessions.
func withEtcd(p *place) bool { return p.own != nil && etcdProgram() != "" }

// clusterOf are the measurements of replicas. The second column of the first two is the same server
// without cluster, with a state directory, which a cluster needs.
func (b *bencher) clusterOf() []scenario {
	closed := closedLoop(100, metric{"cpu", "CPU per 1000 statuses, 100 cars, closed loop, cluster of one replica beside none", "s", target{kind: '<', limit: 1.1}},
		metric{"rate", "the same, status round trips", "1/s", target{kind: '>', limit: 0.9}})
	open := openLoop("", 1000, 1, metric{"cpu", "CPU per 1000 statuses, 1000 cars × 1/s, cluster of one replica beside none", "s", target{kind: '<', limit: 1.1}},
		metric{"p50", "the same, latency p50", "ms", target{kind: '+', limit: 0.5}})
	closed.name, open.name = "cluster-100", "cluster-open"
	all := []scenario{closed, open, b.threeReplicas(), b.etcdLoad()}
	for i := range all {
		all[i].needs = withEtcd
	}
	all[0].roles, all[1].roles = []string{RoleReplica, RoleKept}, []string{RoleReplica, RoleKept}
	return all
}

// startReplicas starts n replicas, which share the cars of c, and an etcd of their own.
func (b *bencher) startReplicas(ctx context.Context, n int, c Child) (children []*process, e *etcd, err error) {
	if e, err = startEtcd(ctx); err != nil {
		return nil, nil, err
	}
	children = make([]*process, n)
	faults := make([]error, n)
	var starts sync.WaitGroup
	for i := range children {
		one := c
		one.Etcd, one.Replica = e.url, fmt.Sprintf("r%d", i)
		if one.Profile != "" {
			one.Profile += "-" + one.Replica
		}
		if one.Peers, err = freeport.Address(); err != nil {
			break
		}
		starts.Go(func() { children[i], faults[i] = spawn(ctx, b.opts.Self, one) })
	}
	starts.Wait()
	if err = errors.Join(append(faults, err)...); err == nil {
		err = e.waitServed(ctx, clusterShards)
	}
	if err != nil {
		for _, p := range children {
			if p != nil {
				p.stop()
			}
		}
		e.stop()
		return nil, nil, err
	}
	return children, e, nil
}

// threeReplicas measures many cars that three replicas share.
func (b *bencher) threeReplicas() scenario {
	cars := fmt.Sprintf("three replicas, %d cars", b.opts.Big)
	return scenario{
		name: "cluster-big", roles: []string{RoleReplica}, runs: 1,
		metrics: []metric{
			{"rate", cars + ": statuses answered", "1/s", target{}},
			{"lost", "the same, sessions lost", "", target{kind: '='}},
			{"missing", "the same, statuses not answered", "", target{kind: '='}},
			{"p50", "the same, latency p50", "ms", target{}},
			{"p99", "the same, latency p99", "ms", target{}},
			{"cpu", "the same, CPU of the three per 1000 statuses", "s", target{}},
			{"rss", "the same, memory of the three", "MB", target{}},
			{"brokercpu", "the same, CPU of the broker per 1000 statuses", "s", target{}},
			{"brokerrss", "the same, memory of the broker", "MB", target{}},
			{"etcdcpu", "the same, etcd", "% of a core", target{}},
			{"proposals", "the same, entries of etcd's log", "1/s", target{}},
		},
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			o := &b.opts
			l, err := b.startLoad(ctx, Child{Role: role, Cars: o.Big, Replicas: 3}, simulate.Options{
				Cars: o.Big, Rate: o.BigRate / float64(o.Big), Ramp: ramp(o.Big), ConnectTimeout: 3 * time.Minute})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			before, err := l.etcd.load(ctx)
			if err != nil {
				return nil, err
			}
			broker := b.place.own.process.PID()
			idle, err := usageOf(broker)
			if err != nil {
				return nil, err
			}
			r, u, err := l.drive(ctx, time.Duration(o.BigSeconds*float64(time.Second)))
			if err != nil {
				return nil, err
			}
			busy, err := usageOf(broker)
			if err != nil {
				return nil, err
			}
			after, err := l.etcd.load(ctx)
			v := values(r, u)
			v["brokercpu"], v["brokerrss"] = (busy.cpu-idle.cpu).Seconds()*1000/float64(r.Answered), float64(busy.rss)/1e6
			for key, x := range after.since(before) {
				v[key] = x
			}
			v["cpucore"] = 100 * u.cpu.Seconds() / r.Seconds
			return v, err
		},
	}
}

// etcdLoad measures what etcd does while all cars of three replicas connect, a thousand per second.
func (b *bencher) etcdLoad() scenario {
	cars := fmt.Sprintf("%d cars of three replicas connect in %v", b.opts.Big, ramp(b.opts.Big).Round(time.Second))
	return scenario{
		name: "cluster-etcd", roles: []string{RoleReplica}, runs: 1,
		metrics: []metric{
			{"writes", cars + ": writes of etcd", "", target{kind: '=', limit: 10}},
			{"proposals", "the same, entries of etcd's log", "1/s", target{}},
			{"etcdcpu", "the same, CPU of etcd", "% of a core", target{}},
			{"received", "the same, bytes to etcd", "kB/s", target{}},
			{"sent", "the same, bytes from etcd", "kB/s", target{}},
			{"keys", "the same, keys in etcd", "", target{}},
			{"db", "the same, etcd's database", "MB", target{}},
			{"connect", "the same, until the last car is connected", "s", target{}},
		},
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			o := &b.opts
			l, err := b.startLoad(ctx, Child{Role: role, Cars: o.Big, Replicas: 3}, simulate.Options{})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			before, err := l.etcd.load(ctx)
			if err != nil {
				return nil, err
			}
			if err := b.connect(ctx, l, simulate.Options{Cars: o.Big, Rate: 0.1, Ramp: ramp(o.Big), ConnectTimeout: 3 * time.Minute}); err != nil {
				return nil, err
			}
			after, err := l.etcd.load(ctx)
			v := after.since(before)
			v["connect"] = l.connect.Seconds()
			return v, err
		},
	}
}
