package bench

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"external-server/internal/lab/simulate"
)

//go:embed library/null.c
var nullSource []byte

// compiler is what builds the library, "" if there is none.
func compiler() string {
	for _, name := range []string{"cc", "gcc", "clang"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// buildLibrary compiles the library that does nothing into the directory.
func buildLibrary(dir string) (string, error) {
	source, library := filepath.Join(dir, "null.c"), filepath.Join(dir, "libnull.so")
	if err := os.WriteFile(source, nullSource, 0o600); err != nil {
		return "", err
	}
	cc := compiler()
	if cc == "" {
		return "", errors.New("no C compiler: install gcc, or choose other rows with --rows")
	}
	if text, err := exec.Command(cc, "-std=gnu11", "-O2", "-shared", "-fPIC", "-pthread", "-o", library, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", cc, err, text)
	}
	return library, nil
}

// withCompiler says that a scenario needs a C library.
func withCompiler(*place) bool { return compiler() != "" }

// isolated are the measurements with what users run: a C library in a process of its own.
// CPU is that of the server and of that process together.
func (b *bencher) isolated() []scenario {
	pair := []string{RoleLibrary, RoleEcho}
	var out []scenario
	for _, row := range []struct {
		cars  int
		limit float64 // × echo
	}{{1, 4}, {10, 4}, {100, 1.3}} {
		out = append(out, libraryLoop(row.cars, row.limit))
	}
	s := openLoop("library-open-100", 100, 1,
		metric{"p50", "C library, 100 cars × 1 status/s, latency p50", "ms", target{kind: '+', limit: 0.5}},
		metric{"p99", "the same, p99", "ms", target{}})
	s.roles, s.needs = pair, withCompiler
	many := b.big(RoleLibrary, RoleEcho)
	many.needs = withCompiler
	return append(out, s, startLibrary(b.opts.Big), idleLibrary(b.opts.Big), connectedLibrary(b.opts.Big), many)
}

// libraryLoop measures cars that send their next status when the last one is answered;
// limit is for the CPU, × echo.
func libraryLoop(cars int, limit float64) scenario {
	s := closedLoop(cars,
		metric{"cpu", fmt.Sprintf("C library, %d cars, closed loop: CPU of server and module process per 1000 statuses", cars), "s", target{kind: '<', limit: limit}},
		metric{"cpumodule", "the same, module process alone", "s", target{}},
		metric{"rate", "the same, status round trips", "1/s", target{}})
	s.name, s.roles, s.needs = fmt.Sprintf("library-%d", cars), []string{RoleLibrary, RoleEcho}, withCompiler
	return s
}

// startLibrary measures how long it takes until the contexts of all cars are made and the
// server serves.
func startLibrary(cars int) scenario {
	s := start(cars, target{})
	s.name, s.roles, s.needs = fmt.Sprintf("library-start-%d", cars), []string{RoleLibrary, RoleEcho}, withCompiler
	s.metrics[0].title = fmt.Sprintf("C library, start to first answer, %d configured cars", cars)
	return s
}

// idleLibrary measures configured cars without gateway.
func idleLibrary(cars int) scenario {
	s := idle(cars)
	s.name, s.roles, s.needs = fmt.Sprintf("library-idle-%d", cars), []string{RoleLibrary}, withCompiler
	s.metrics = []metric{
		{"cpu", fmt.Sprintf("C library, %d configured cars without gateway: CPU of both", cars), "% of a core", target{kind: '=', limit: 5}},
		{"threads", "the same, threads of both", "", target{}},
	}
	return s
}

// connectedLibrary measures cars that are connected and report nothing.
func connectedLibrary(cars int) scenario {
	return scenario{
		name: fmt.Sprintf("library-connected-%d", cars), roles: []string{RoleLibrary}, needs: withCompiler, runs: 1,
		metrics: []metric{
			{"cpu", fmt.Sprintf("C library, %d connected cars that report nothing: CPU of both", cars), "% of a core", target{kind: '=', limit: 60}},
			{"threads", "the same, threads of both", "", target{}},
			{"rss", "the same, memory of both", "MB", target{}},
			{"connect", fmt.Sprintf("the same, until all are connected (they start within %v s)", rampSeconds(cars)), "s", target{}},
		},
		run: func(ctx context.Context, b *bencher, role string) (map[string]float64, error) {
			l, err := b.startLoad(ctx, Child{Role: role, Cars: cars}, simulate.Options{
				Cars: cars, Ramp: ramp(cars), ConnectTimeout: 3 * time.Minute})
			if err != nil {
				return nil, err
			}
			defer l.stop()
			before, err := l.child.usage()
			if err != nil {
				return nil, err
			}
			d := max(5*time.Second, b.opts.seconds())
			if err := wait(ctx, d); err != nil {
				return nil, err
			}
			after, err := l.child.usage()
			return map[string]float64{"cpu": 100 * (after.cpu - before.cpu).Seconds() / d.Seconds(), "threads": float64(after.threads),
				"rss": float64(after.rss) / 1e6, "connect": l.connect.Seconds()}, err
		},
	}
}

// ramp is how long many cars take to start: a thousand a second.
func ramp(cars int) time.Duration { return time.Duration(rampSeconds(cars) * float64(time.Second)) }

func rampSeconds(cars int) float64 { return float64(cars) / 1000 }
