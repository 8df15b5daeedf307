package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

// children returns the processes that a process has started.
func children(t testing.TB, pid int) []int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended
		}
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, child)
		}
	}
	return out
}

// hosts returns the processes that run module libraries for a server: each is the
// child of a reaper.
func hosts(t testing.TB, server int) []int {
	t.Helper()
	var out []int
	for _, reaper := range children(t, server) {
		out = append(out, children(t, reaper)...)
	}
	return out
}

// A module library dies under its cars: their sessions stay, every status is
// answered and reaches the library in order, and the library's process ends with
// the server.
func TestModuleProcessDies(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	record := filepath.Join(t.TempDir(), "record")
	modules := obj{"77": obj{"lib_path": servertest.Probe(t), "config": obj{"record": record}}}
	s := servertest.Start(t, servertest.Options{Config: formatD(m.Address(), modules, "car_a", "car_b")})
	s.WaitLog("connected to the broker")
	cars := []*testCar{startCar(t, open(m), "car_a"), startCar(t, open(m), "car_b")}
	n := 0
	report := func(statuses int) {
		for range statuses {
			n++
			for _, c := range cars {
				c.report(fmt.Sprintf("%s %d", c.Car().Car, n), probe1)
			}
		}
	}
	report(1)
	for _, c := range cars {
		c.await(1, 1, 0)
	}
	for death := 1; death <= 3; death++ {
		var running []int
		testwait.Until(t, "the server has one process of the module", func() bool { // the kernel's list is complete only while no child ends
			running = hosts(t, s.PID())
			return len(running) == 1
		})
		report(10)
		if err := syscall.Kill(running[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		report(10)
		testwait.Until(t, "the module is back", func() bool {
			return strings.Count(s.Log(), "module process replaced, all contexts are back") == death
		})
		// A call during which three processes end is given up.
		testwait.Until(t, "the library has what was accepted", func() bool {
			text, err := os.ReadFile(record)
			return err == nil && !slices.ContainsFunc(cars, func(c *testCar) bool {
				return !strings.Contains(string(text), "forward_status data="+fmt.Sprintf("%x", fmt.Sprintf("%s %d", c.Car().Car, n))+" ")
			})
		})
	}
	for _, c := range cars {
		c.await(1, n, 0)
		c.watch.mu.Lock()
		if len(c.watch.ends) > 0 || c.watch.connected != 1 {
			t.Errorf("car %v lost its session: %v", c.Car(), c.watch.ends)
		}
		c.watch.mu.Unlock()
	}
	s.WaitLog("SIGKILL")
	last := append(hosts(t, s.PID()), children(t, s.PID())...)
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, pid := range last {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("module process %d outlived the server", pid)
		}
	}
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cars {
		reached := 0
		for line := range strings.Lines(string(text)) {
			for i := reached + 1; i >= max(reached, 1); i-- { // the last one may come again
				if strings.HasPrefix(line, "forward_status data="+fmt.Sprintf("%x", fmt.Sprintf("%s %d", c.Car().Car, i))+" ") {
					reached = i
				}
			}
		}
		if reached != n {
			t.Errorf("car %v: statuses reached the library in order up to %d of %d; it has recorded\n%s", c.Car(), reached, n, text)
		}
	}
}

// BenchmarkIsolation is the price of a module process for the whole server: 100
// cars, each with one status on its way. One operation is one status answered and
// forwarded. Run: go -C test test -run '^$' -bench Isolation -benchtime 50000x ./e2e
func BenchmarkIsolation(b *testing.B) {
	binary := filepath.Join(b.TempDir(), "external-server")
	build := exec.Command("go", "build", "-o", binary, "./cmd/external-server")
	build.Dir = servertest.Root()
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	for _, isolation := range []string{"none", "process"} {
		b.Run(isolation, func(b *testing.B) { benchmarkIsolation(b, binary, isolation) })
	}
}

func benchmarkIsolation(b *testing.B, binary, isolation string) {
	const cars = 100
	m := brokertest.Start(b, brokertest.Options{})
	var names []string
	for i := range cars {
		names = append(names, fmt.Sprintf("car_%d", i))
	}
	modules := exampleModule(b)
	modules["1000"].(obj)["isolation"] = isolation
	modules["1000"].(obj)["config"] = obj{"command_interval_ms": "86400000"}
	path := filepath.Join(b.TempDir(), "config.json")
	servertest.WriteConfig(b, path, formatD(m.Address(), modules, names...))
	server := exec.Command(binary, "-c", path)
	server.Dir = b.TempDir()
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	pool, err := gateway.NewPool(open(m), 2)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()

	var left atomic.Int64
	var connected sync.WaitGroup
	started, answered := make(chan struct{}), make(chan struct{})
	connected.Add(cars)
	gateways := make([]*gateway.Gateway, cars)
	for i, name := range names {
		var once sync.Once
		g, err := gateway.Start(gateway.Settings{
			Car: fleet.CarID{Company: company, Car: name}, Pool: pool,
			Core: gateway.Options{Steady: true, Timing: gateway.Timing{RetryPause: 500 * time.Millisecond}},
			Observe: func(e gateway.Effect) {
				switch e.Kind {
				case gateway.EffectConnected:
					once.Do(connected.Done)
				case gateway.EffectAnswered:
					select {
					case <-started:
					default:
						return
					}
					switch n := left.Add(-1); {
					case n >= 0:
						gateways[i].Status(button, []byte(`{"pressed": false, "padding": "0123456789012345678901234567890123456789012345678901234567890"}`), time.Time{})
					case n == -cars:
						close(answered)
					}
				}
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		defer g.Close()
		gateways[i] = g
		g.Status(button, []byte(`{"pressed": false}`), time.Time{})
	}
	connected.Wait()
	left.Store(int64(b.N))
	b.ResetTimer()
	close(started)
	for _, g := range gateways {
		g.Status(button, []byte(`{"pressed": true}`), time.Time{})
	}
	<-answered
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "statuses/s")
	own, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", server.Process.Pid))
	b.ReportMetric(cpuSeconds(string(own))/float64(b.N)*1000, "server-cpu-s/1000")
	for _, child := range hosts(b, server.Process.Pid) {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		b.ReportMetric(cpuSeconds(string(stat))/float64(b.N)*1000, "module-cpu-s/1000")
	}
}

// cpuSeconds reads user and system time, in ticks of 10 ms.
func cpuSeconds(stat string) float64 {
	_, after, _ := strings.Cut(stat, ") ")
	fields := strings.Fields(after)
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

// A module in another language, started by the server as its configuration says.
func TestCommandModule(t *testing.T) {
	t.Parallel()
	python := testneed.PythonProtobuf(t)
	m := brokertest.Start(t, brokertest.Options{})
	script := filepath.Join(servertest.Root(), "modules", "example-python", "example_module.py")
	modules := obj{"1002": obj{"command": []string{python, script}, "config": obj{"lamp": "inverted"}}}
	s := servertest.Start(t, servertest.Options{Config: formatD(m.Address(), modules, "car_a")})
	s.WaitLog("connected to the broker")
	c := startCar(t, open(m), "car_a")
	lamp := fleet.Device{Module: 1002, Role: "button", Name: "button"}
	c.report(`{"pressed": true}`, lamp)
	c.await(1, 1, 1) // the first command of the sequence
	c.report(`{"pressed": false}`, lamp)
	c.await(1, 2, 2)
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
