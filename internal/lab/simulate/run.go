package simulate

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
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
	display.Go(func() { f.show(shown, out, terminal, duration) })
	took, connecting := f.Connect(ctx)
	if ctx.Err() == nil {
		f.Drive(ctx, duration)
	}
	stop()
	display.Wait()
	r := f.Report()
	r.ConnectSeconds = took.Seconds()
	r.Explain(out)
	return r, connecting
}

// show prints the progress until ctx ends.
func (f *Fleet) show(ctx context.Context, out io.Writer, terminal bool, duration time.Duration) {
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
			rate := float64(0)
			if g.Answered >= lastAnswered {
				rate = float64(g.Answered-lastAnswered) / now.Sub(last).Seconds()
			}
			last, lastAnswered = now, g.Answered
			if terminal {
				fmt.Fprintf(out, "\r%s\x1b[K", cut(f.progress(now, duration)+" "+g.line(rate, true), columns(out)-1))
			} else {
				fmt.Fprintf(out, "%4.0f s: %s\n", now.Sub(start).Seconds(), g.line(rate, false))
			}
		}
	}
}

// line is what a person wants to know, on a terminal with the shortest words.
func (g *Figures) line(rate float64, brief bool) string {
	format := "%d/%d cars connected, %.0f round trips/s, p50 %s, p99 %s, %d sessions dropped, %d violations"
	if brief {
		format = "%d/%d cars, %.0f/s, p50 %s, p99 %s, %d dropped, %d violations"
	}
	line := fmt.Sprintf(format, g.Connected, g.Cars, rate, short(g.P50), short(g.P99), g.Dropped, g.Violations)
	if g.Unserved > 0 {
		line += fmt.Sprintf(", %d without a server", g.Unserved)
	}
	return line
}

func short(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// progress tells how much of the time has passed and how much is left. The cars
// connect first, which takes as long as the server needs.
func (f *Fleet) progress(now time.Time, duration time.Duration) string {
	start := f.tally.start.Load()
	if start == 0 {
		return bar(f.tally.everConnected.Load(), int64(f.opts.Cars)) + " connecting:"
	}
	passed := min(now.Sub(time.Unix(0, start)), duration)
	return fmt.Sprintf("%s %3d %%, %v left:", bar(int64(passed), int64(duration)), 100*passed/duration, (duration - passed).Round(time.Second))
}

// bar draws a share.
func bar(part, whole int64) string {
	const width = 10
	done := int(min(width, float64(width)*float64(part)/float64(max(1, whole))))
	return "[" + strings.Repeat("#", done) + strings.Repeat(".", width-done) + "]"
}

// columns returns the width of the terminal, 80 when it is not known.
func columns(out io.Writer) int {
	if f, ok := out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
	}
	return 80
}

// cut shortens a line of ASCII to so many characters: one that wraps could not be
// written over.
func cut(line string, width int) string {
	if len(line) > width {
		return line[:max(0, width)]
	}
	return line
}

// Explain writes what the cars saw in a few lines for a person. Nothing is said about
// what did not happen.
func (r *Report) Explain(out io.Writer) {
	fmt.Fprintf(out, "%d of %d cars were connected; %d of %d statuses answered, p50 %.1f ms, p99 %.1f ms.\n",
		r.EverConnected, r.Cars, r.Answered, r.Planned, r.Latency.P50, r.Latency.P99)
	if r.Unserved > 0 {
		fmt.Fprintf(out, "%d cars are not connected because no server answers them: they were removed from its configuration, or it is away.\n", r.Unserved)
	}
	for _, group := range []struct {
		name    string
		reasons []Reason
	}{{"sessions dropped", r.Dropped}, {"attempts failed", r.Failed}, {"violations of the protocol", r.Violations}} {
		for _, reason := range group.reasons {
			fmt.Fprintf(out, "%d %s: %s", reason.Count, group.name, reason.Reason)
			if reason.Rule != "" {
				fmt.Fprintf(out, " (rule %s, docs/protocol.md)", reason.Rule)
			}
			fmt.Fprintf(out, ". %s\n", reason.Meaning)
		}
	}
}
