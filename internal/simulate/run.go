package simulate

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Plain lines come this often, those of a terminal every second.
const plainEvery = 5 * time.Second

// Run makes a fleet, connects it, lets it report for the given time and returns
// what it saw, also when not all cars were connected: then with an error. out gets
// the progress, one line that is written over again on a terminal.
func Run(ctx context.Context, opts Options, duration time.Duration, out io.Writer, terminal bool) (Report, error) {
	f, err := New(opts)
	if err != nil {
		return Report{}, err
	}
	defer f.Close()
	shown, stop := context.WithCancel(ctx)
	var display sync.WaitGroup
	total := opts.Ramp + duration
	display.Go(func() { f.show(shown, out, terminal, total) })
	took, connecting := f.Connect(ctx)
	if ctx.Err() == nil {
		f.Drive(ctx, duration)
	}
	stop()
	display.Wait()
	r := f.Report()
	r.ConnectSeconds = took.Seconds()
	return r, connecting
}

// show prints the progress until ctx ends.
func (f *Fleet) show(ctx context.Context, out io.Writer, terminal bool, total time.Duration) {
	every := plainEvery
	if terminal {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	start := time.Now()
	last, lastAnswered := start, uint64(0)
	for {
		select {
		case <-ctx.Done():
			if terminal {
				fmt.Fprintln(out)
			}
			return
		case now := <-tick.C:
			g := f.Figures()
			answered := g.Answered
			rate := float64(0)
			if answered >= lastAnswered {
				rate = float64(answered-lastAnswered) / now.Sub(last).Seconds()
			}
			last, lastAnswered = now, answered
			line := fmt.Sprintf("%d/%d cars connected, %.0f round trips/s, p50 %s, p99 %s, %d sessions dropped, %d violations",
				g.Connected, g.Cars, rate, short(g.P50), short(g.P99), g.Dropped, g.Violations)
			if terminal {
				fmt.Fprintf(out, "\r%s %s\x1b[K", bar(now.Sub(start), total), line)
			} else {
				fmt.Fprintf(out, "%4.0f s: %s\n", now.Sub(start).Seconds(), line)
			}
		}
	}
}

func short(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// bar draws how much of the time has passed.
func bar(passed, total time.Duration) string {
	const width = 20
	done := width
	if total > 0 {
		done = int(min(width, width*passed/total))
	}
	return "[" + strings.Repeat("#", done) + strings.Repeat(".", width-done) + "]"
}
