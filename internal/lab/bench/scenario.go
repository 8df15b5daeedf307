package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/lab/simulate"
)

// company of all benchmarks.
const company = "bench"

// metric is one figure that a scenario yields.
type metric struct {
	key, title, unit string
	target           target
}

// scenario is something that is measured, with one process per run.
type scenario struct {
	name    string
	roles   []string // measured, in turns; the first is reported as the server
	metrics []metric
	runs    int // 0: Options.Runs
	needs   func(*place) bool
	run     func(ctx context.Context, b *bencher, role string) (map[string]float64, error)
}

var both = []string{RoleServer, RoleEcho} //nolint:gochecknoglobals // never changed

// load is a child with a connected fleet, or several that share it.
type load struct {
	child   *process
	others  []*process // replicas beside child
	etcd    *etcd      // of replicas
	fleet   *simulate.Fleet
	connect time.Duration
}

// startLoad starts the child and, if there is one, the fleet.
func (b *bencher) startLoad(ctx context.Context, c Child, fleet simulate.Options) (*load, error) {
	b.serial++
	if c.Role == RoleLibrary {
		var err error
		if c.Library, err = b.library(); err != nil {
			return nil, err
		}
	}
	c.Address, c.Company = b.place.address, company
	c.Prefix = fmt.Sprintf("r%d_", b.serial) // nothing of an earlier run is taken for ours
	if b.opts.Profiles != "" {
		c.Profile = filepath.Join(b.opts.Profiles, fmt.Sprintf("%d-%s-%d", b.serial, c.Role, c.Cars))
	}
	l := &load{}
	if c.Role == RoleReplica {
		children, etcd, err := b.startReplicas(ctx, max(1, c.Replicas), c)
		if err != nil {
			return nil, err
		}
		l.child, l.others, l.etcd = children[0], children[1:], etcd
	} else {
		child, err := spawn(ctx, b.opts.Self, c)
		if err != nil {
			return nil, err
		}
		l.child = child
	}
	if fleet.Cars == 0 {
		return l, nil
	}
	if c.Role == RoleBuiltin {
		fleet.Module = 3
	}
	if err := b.connect(ctx, l, fleet); err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

// connect gives a load that has none its fleet.
func (b *bencher) connect(ctx context.Context, l *load, fleet simulate.Options) (err error) {
	fleet.Broker = gateway.Broker{Address: b.place.address}
	fleet.Company, fleet.Prefix, fleet.DeviceType = company, fmt.Sprintf("r%d_", b.serial), -1
	if fleet.Module == 0 {
		fleet.Module = NullNumber
	}
	fleet.Devices = 2
	if fleet.Payload == 0 {
		fleet.Payload = 100
	}
	fleet.Seed = uint64(b.serial)
	if l.fleet, err = simulate.New(fleet); err != nil {
		return err
	}
	l.connect, err = l.fleet.Connect(ctx)
	return err
}

// usage is that of all children.
func (l *load) usage() (usage, error) {
	sum, err := l.child.usage()
	for _, p := range l.others {
		one, fault := p.usage()
		err = errors.Join(err, fault)
		sum.cpu, sum.module, sum.rss, sum.threads = sum.cpu+one.cpu, sum.module+one.module, sum.rss+one.rss, sum.threads+one.threads
	}
	return sum, err
}

func (l *load) stop() {
	if l.fleet != nil {
		l.fleet.Close()
	}
	for _, p := range append([]*process{l.child}, l.others...) {
		p.stop()
	}
	if l.etcd != nil {
		l.etcd.stop()
	}
}

// drive lets the fleet report and returns what it saw and what the child used.
func (l *load) drive(ctx context.Context, d time.Duration) (simulate.Report, usage, error) {
	before, err := l.usage()
	if err != nil {
		return simulate.Report{}, usage{}, err
	}
	l.fleet.Drive(ctx, d)
	after, err := l.usage()
	after.cpu, after.module = after.cpu-before.cpu, after.module-before.module
	r := l.fleet.Report()
	if err == nil && r.Answered == 0 {
		err = fmt.Errorf("no status was answered in %v", d)
	}
	return r, after, err
}

// values are the figures of a driven fleet.
func values(r simulate.Report, u usage) map[string]float64 {
	return map[string]float64{
		"rate": r.PerSecond, "p50": r.Latency.P50, "p99": r.Latency.P99,
		"cpu":       u.cpu.Seconds() * 1000 / float64(r.Answered),
		"cpumodule": u.module.Seconds() * 1000 / float64(r.Answered),
		"lost":      float64(r.Lost()),
		"missing":   float64(r.Planned) - float64(r.Answered),
		"rss":       float64(u.rss) / 1e6,
		"threads":   float64(u.threads),
	}
}

// closedLoop measures cars that send their next status when the last one is answered.
func closedLoop(cars int, m ...metric) scenario {
	return scenario{
		name: fmt.Sprintf("closed-%d", cars), roles: both, metrics: m,
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			l, err := b.startLoad(ctx, Child{Role: role, Cars: cars}, simulate.Options{Cars: cars, Closed: true})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			l.fleet.Drive(ctx, b.opts.seconds()/4) // both processes warm up
			r, u, err := l.drive(ctx, b.opts.seconds())
			return values(r, u), err
		},
	}
}

// openLoop measures cars that send at a rate, whatever is answered.
func openLoop(name string, cars int, rate float64, m ...metric) scenario {
	return scenario{
		name: name, roles: both, metrics: m,
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			l, err := b.startLoad(ctx, Child{Role: role, Cars: cars}, simulate.Options{
				Cars: cars, Rate: rate, Ramp: ramp(cars), ConnectTimeout: 3 * time.Minute})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			l.fleet.Drive(ctx, b.opts.seconds()/4) // both processes warm up
			r, u, err := l.drive(ctx, 2*b.opts.seconds())
			return values(r, u), err
		},
	}
}

// storm measures how long it takes until all cars, starting at once, are connected.
func storm(cars int) scenario {
	return scenario{
		name: fmt.Sprintf("storm-%d", cars), roles: both,
		metrics: []metric{{"connect", fmt.Sprintf("connect storm, %d cars", cars), "s", target{'<', 2, 0.03}}},
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			l, err := b.startLoad(ctx, Child{Role: role, Cars: cars}, simulate.Options{Cars: cars, Closed: true})
			if err != nil {
				return nil, err
			}
			l.stop()
			return map[string]float64{"connect": l.connect.Seconds()}, nil
		},
	}
}
