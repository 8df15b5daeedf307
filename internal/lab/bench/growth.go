package bench

import (
	"context"
	"fmt"
	"time"

	"external-server/internal/lab/simulate"
)

// Point is what was measured with one number of cars.
type Point struct {
	Cars int    `json:"cars"`
	Role string `json:"role"`
	// Closed loop; zero above closedUpTo cars.
	PerSecond float64 `json:"round_trips_per_second,omitempty"`
	P99       float64 `json:"p99_ms,omitempty"`
	// At a steady rate, with a built-in module; of the server only.
	Memory  float64 `json:"kb_per_car,omitempty"` // beyond the process without cars
	CPU     float64 `json:"cpu_ms_per_1000_statuses,omitempty"`
	RSS     float64 `json:"rss_mb,omitempty"`
	Threads int     `json:"threads,omitempty"`
}

const closedUpTo = 1000

// Growth measures the same over growing numbers of cars, up to Options.Big, for the
// plot.
func Growth(ctx context.Context, opts Options) (Report, error) {
	return run(ctx, opts, func(ctx context.Context, b *bencher, r *Report) error {
		empty, err := b.empty(ctx)
		if err != nil {
			return err
		}
		for _, cars := range []int{1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000} {
			if cars > b.opts.Big {
				break
			}
			for _, role := range []string{RoleServer, RoleEcho, RoleBuiltin} {
				p, err := b.point(ctx, cars, role, empty)
				if err != nil {
					return fmt.Errorf("%d cars, %s: %w", cars, role, err)
				}
				if p != (Point{}) {
					r.Growth = append(r.Growth, p)
					b.opts.Progress("%+v", p)
				}
			}
		}
		return nil
	})
}

// empty returns the memory of a server with one car that is not connected.
func (b *bencher) empty(ctx context.Context) (float64, error) {
	l, err := b.startLoad(ctx, Child{Role: RoleBuiltin, Cars: 1}, simulate.Options{})
	if err != nil {
		return 0, err
	}
	defer l.stop()
	u, err := l.child.usage()
	return float64(u.rss), err
}

func (b *bencher) point(ctx context.Context, cars int, role string, empty float64) (Point, error) {
	p := Point{Cars: cars, Role: role}
	if role != RoleBuiltin {
		if cars > closedUpTo {
			return Point{}, nil
		}
		var rates, p99s []float64
		for range b.opts.Runs {
			v, err := closedLoop(cars).run(ctx, b, role)
			if err != nil {
				return p, err
			}
			rates, p99s = append(rates, v["rate"]), append(p99s, v["p99"])
		}
		p.PerSecond, p.P99 = statOf(rates).Median, statOf(p99s).Median
		return p, nil
	}
	// The same number of statuses per car, so that the cost per car can be compared,
	// unless that would be more than the machine takes.
	rate := min(1, b.opts.BigRate/float64(cars))
	l, err := b.startLoad(ctx, Child{Role: role, Cars: cars}, simulate.Options{
		Cars: cars, Rate: rate, Ramp: time.Duration(float64(cars) / 1000 * float64(time.Second)), ConnectTimeout: 3 * time.Minute})
	if err != nil {
		return p, err
	}
	defer l.stop()
	r, u, err := l.drive(ctx, max(5*time.Second, 2*b.opts.seconds()))
	if err != nil {
		return p, err
	}
	p.RSS, p.Threads = float64(u.rss)/1e6, u.threads
	p.Memory = max(0, float64(u.rss)-empty) / 1e3 / float64(cars)
	p.CPU = u.cpu.Seconds() * 1e6 / float64(r.Answered)
	return p, nil
}
