package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"external-server/internal/lab/simulate"
)

// table returns what `bench` measures: the rows of the table in the design, then
// growth, isolation and the restart of the broker.
func (b *bencher) table() []scenario {
	o := &b.opts
	rate := func(cars int) metric {
		return metric{"rate", fmt.Sprintf("status round trips, %d cars, closed loop", cars), "1/s", target{kind: '>', limit: 0.8}}
	}
	cpu := func(cars int) metric {
		return metric{"cpu", fmt.Sprintf("CPU per 1000 statuses, %d cars", cars), "s", target{kind: '<', limit: 2}}
	}
	out := append(b.isolated(),
		closedLoop(1, rate(1), cpu(1)),
		closedLoop(10, rate(10), cpu(10)),
		closedLoop(100, rate(100), cpu(100),
			metric{"p50", "latency p50 of the same", "ms", target{kind: '<', limit: 1.25}},
			metric{"p99", "latency p99 of the same", "ms", target{kind: '<', limit: 1.25}}),
		openLoop("open-100", 100, 1,
			metric{"p50", "100 cars × 1 status/s, latency p50", "ms", target{kind: '+', limit: 0.5}},
			metric{"p99", "the same, p99", "ms", target{kind: '+', limit: 0.5}}),
		storm(100), storm(300),
		commands(),
		start(1, target{kind: '=', limit: 50}), start(300, target{kind: '=', limit: 100}), start(o.Big, target{kind: '=', limit: 2000}),
		idle(300), idle(1000), idle(o.Big),
		b.big(RoleServer, RoleEcho), b.big(RoleBuiltin),
		flood(), restart(o.Big),
	)
	out = append(out, kept()...)
	out = append(out, b.clusterOf()...)
	for _, cars := range []int{1, 100, 300, 1000} {
		out = append(out, memory(cars))
	}
	return out
}

// kept measures what a state directory costs: it has 32 connections to the broker and journals.
// The second column is the same server without one, with the few connections that it chooses, or
// with 32.
func kept() []scenario {
	const cars, many = 100, 1000
	cpu := func(cars int, load, what string, to target) metric {
		return metric{"cpu", fmt.Sprintf("CPU per 1000 statuses, %d cars%s, %s", cars, load, what), "s", to}
	}
	rate := func(to target) metric { return metric{"rate", "the same, status round trips", "1/s", to} }
	p50 := metric{"p50", "the same, latency p50", "ms", target{kind: '+', limit: 0.5}}
	cheap := target{kind: '<', limit: 1.1}
	return []scenario{
		keeping("kept-open", RoleKept, RoleServer, openLoop("", many, 1, cpu(many, " × 1/s", "state directory beside none", cheap), p50)),
		keeping("kept-open-5", RoleKept, RoleServer, openLoop("", many, 5, cpu(many, " × 5/s", "state directory beside none", cheap), p50)),
		keeping("kept-100", RoleKept, RoleMany, closedLoop(cars, cpu(cars, ", closed loop", "state directory beside 32 connections", cheap), rate(target{kind: '>', limit: 0.9}))),
		keeping("kept-connections", RoleMany, RoleServer, closedLoop(cars, cpu(cars, ", closed loop", "32 connections beside those chosen", target{}), rate(target{}))),
	}
}

func keeping(name, role, beside string, s scenario) scenario {
	s.name, s.roles = name, []string{role, beside}
	s.needs = func(p *place) bool { return p.own != nil } // the embedded broker keeps no sessions
	return s
}

// commands measures the way of a command from the module to the car.
func commands() scenario {
	const cars, every = 10, 50 * time.Millisecond
	return scenario{
		name: "commands", roles: both,
		metrics: []metric{
			{"p50", "command: module returns → car has it, p50", "ms", target{kind: '=', limit: 0.6}},
			{"p99", "the same, p99", "ms", target{kind: '=', limit: 1}},
		},
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			var h simulate.Histogram
			l, err := b.startLoad(ctx, Child{Role: role, Cars: cars, CommandEvery: every}, simulate.Options{Cars: cars,
				OnCommand: func(data []byte, at time.Time) {
					if sent, err := strconv.ParseInt(string(data), 10, 64); err == nil {
						h.Add(at.Sub(time.Unix(0, sent)))
					}
				}})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			if err := wait(ctx, b.opts.seconds()/4); err != nil {
				return nil, err
			}
			h.Reset()
			if err := wait(ctx, b.opts.seconds()); err != nil {
				return nil, err
			}
			if h.Count() == 0 {
				return nil, errors.New("no command reached a car")
			}
			d := simulate.Of(&h)
			return map[string]float64{"p50": d.P50, "p99": d.P99}, nil
		},
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// idle measures the CPU that configured cars without gateway use.
func idle(cars int) scenario {
	return scenario{
		name: fmt.Sprintf("idle-%d", cars), roles: []string{RoleBuiltin},
		metrics: []metric{{"cpu", fmt.Sprintf("idle CPU, %d configured cars without gateway", cars), "% of a core", target{kind: '=', limit: 1}}},
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			l, err := b.startLoad(ctx, Child{Role: role, Cars: cars}, simulate.Options{})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			if err := wait(ctx, 2*time.Second); err != nil { // the first polls of the modules
				return nil, err
			}
			before, err := l.child.usage()
			if err != nil {
				return nil, err
			}
			d := max(10*time.Second, b.opts.seconds()) // two long polls of the modules
			if err := wait(ctx, d); err != nil {
				return nil, err
			}
			after, err := l.child.usage()
			return map[string]float64{"cpu": 100 * (after.cpu - before.cpu).Seconds() / d.Seconds(), "threads": float64(after.threads)}, err
		},
	}
}

// big measures many cars for a long time.
func (b *bencher) big(roles ...string) scenario {
	cars := fmt.Sprintf("%d cars", b.opts.Big)
	metrics := []metric{
		{"rate", cars + ": statuses answered", "1/s", target{kind: '>', limit: 0.99}},
		{"lost", "the same, sessions lost", "", target{kind: '='}},
		{"missing", "the same, statuses not answered", "", target{kind: '='}},
		{"p50", "the same, latency p50", "ms", target{}},
		{"p99", "the same, latency p99", "ms", target{}},
		{"cpu", "the same, CPU per 1000 statuses", "s", target{kind: '<', limit: 2}},
		{"rss", "the same, memory", "MB", target{}},
		{"threads", "the same, threads", "", target{}},
	}
	switch roles[0] {
	case RoleLibrary:
		metrics[0].title = "C library, " + metrics[0].title
		metrics[5] = metric{"cpu", "the same, CPU of server and module process per 1000 statuses", "s", target{}}
		metrics[6].title, metrics[7].title = "the same, memory of both", "the same, threads of both"
	case RoleBuiltin:
		metrics = []metric{
			{"rss", cars + ", built-in module and HTTP API inside: memory", "MB", target{kind: '=', limit: 400}},
			{"threads", "the same, threads", "", target{kind: '=', limit: 30}},
			{"lost", "the same, sessions lost", "", target{kind: '='}},
			{"p99", "the same, latency p99", "ms", target{}},
		}
	}
	return scenario{
		name: "big-" + roles[0], roles: roles, runs: 1, metrics: metrics,
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			o := &b.opts
			l, err := b.startLoad(ctx, Child{Role: role, Cars: o.Big}, simulate.Options{
				Cars: o.Big, Rate: o.BigRate / float64(o.Big), Ramp: ramp(o.Big), ConnectTimeout: 3 * time.Minute})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			r, u, err := l.drive(ctx, time.Duration(o.BigSeconds*float64(time.Second)))
			v := values(r, u)
			v["cpucore"] = 100 * u.cpu.Seconds() / r.Seconds
			return v, err
		},
	}
}

// memory measures the resident memory and the threads of connected cars with a
// built-in module.
func memory(cars int) scenario {
	return scenario{
		name: fmt.Sprintf("memory-%d", cars), roles: []string{RoleBuiltin}, runs: 1,
		metrics: []metric{
			{"rss", fmt.Sprintf("memory, %d cars, built-in module", cars), "MB", target{}},
			{"threads", fmt.Sprintf("threads, %d cars", cars), "", target{}},
		},
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			l, err := b.startLoad(ctx, Child{Role: role, Cars: cars}, simulate.Options{Cars: cars, Rate: min(1, 1000/float64(cars))})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			r, u, err := l.drive(ctx, b.opts.seconds())
			return values(r, u), err
		},
	}
}

// flood measures what a thousand ordinary cars notice of one that sends a thousand
// statuses a second.
func flood() scenario {
	const cars, others = 1000, 1.0
	return scenario{
		name: "flood", roles: both,
		metrics: []metric{
			{"alone", "p99 of 1000 cars × 1/s", "ms", target{}},
			{"beside", "the same beside a car with 1000/s", "ms", target{}},
			{"limited", "the same, that car limited to 20/s", "ms", target{}},
		},
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			out := make(map[string]float64)
			for _, key := range []string{"alone", "beside", "limited"} {
				c := Child{Role: role, Cars: cars + 1}
				if key == "limited" {
					c.Limits = map[string]any{"messages_per_second": 20, "message_burst": 40}
				}
				p99, err := b.floodOnce(ctx, c, cars, others, key != "alone")
				if err != nil {
					return nil, err
				}
				out[key] = p99
			}
			return out, nil
		},
	}
}

func (b *bencher) floodOnce(ctx context.Context, c Child, cars int, rate float64, flooding bool) (float64, error) {
	l, err := b.startLoad(ctx, c, simulate.Options{Cars: cars, Rate: rate})
	if err != nil {
		return 0, err
	}
	defer l.stop()
	if flooding {
		bad, err := simulate.New(b.beside(simulate.Options{Cars: 1, Rate: 1000}, cars))
		if err != nil {
			return 0, err
		}
		defer bad.Close()
		if _, err := bad.Connect(ctx); err != nil {
			return 0, err
		}
		flood, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { bad.Drive(flood, time.Hour); close(done) }()
		defer func() { stop(); <-done }()
	}
	r, _, err := l.drive(ctx, b.opts.seconds())
	return r.Latency.P99, err
}

// restart measures how long after the return of a killed broker the last car is
// connected again, while all report.
func restart(cars int) scenario {
	return scenario{
		name: "restart", roles: both, runs: 1,
		needs:   func(p *place) bool { return p.own != nil },
		metrics: []metric{{"back", fmt.Sprintf("broker restart, %d cars: until the last one is running again", cars), "s", target{kind: '<', limit: 2}}},
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			l, err := b.startLoad(ctx, Child{Role: role, Cars: cars}, simulate.Options{
				Cars: cars, Rate: 0.2, Ramp: ramp(cars), ConnectTimeout: 3 * time.Minute})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			driving, stop := context.WithCancel(ctx)
			done := make(chan struct{})
			go func() { l.fleet.Drive(driving, time.Hour); close(done) }()
			defer func() { stop(); <-done }()
			if err := wait(ctx, time.Second); err != nil {
				return nil, err
			}
			b.place.own.kill()
			lost, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			for l.fleet.Figures().Connected > 0 {
				if err := wait(lost, 10*time.Millisecond); err != nil {
					return nil, fmt.Errorf("the cars do not notice that the broker is gone: %w", err)
				}
			}
			back := time.Now()
			if err := b.place.own.start(); err != nil {
				return nil, err
			}
			limit, cancel := context.WithTimeout(ctx, 5*time.Minute)
			defer cancel()
			at, err := l.fleet.AwaitConnected(limit)
			return map[string]float64{"back": at.Sub(back).Seconds()}, err
		},
	}
}
