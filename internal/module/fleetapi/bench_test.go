package fleetapi

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
)

// BenchmarkFleet opens 10 000 cars with two modules each, driven by workers as in
// the server, and reports the memory of the process once all of them wait in
// their long polls. Run it alone:
//
//	go test ./internal/module/fleetapi -run xxx -bench Fleet -benchtime 1x
func BenchmarkFleet(b *testing.B) {
	for _, way := range []string{"in process", "over HTTP"} {
		cars := 10_000
		if way == "over HTTP" {
			cars = 1000 // both ends of each connection are in this process
		}
		b.Run(fmt.Sprintf("%s, %d cars x 2 modules", way, cars), func(b *testing.B) {
			for b.Loop() {
				measureFleet(b, way == "over HTTP", cars)
			}
		})
	}
}

func measureFleet(b *testing.B, remote bool, cars int) {
	server, _ := embed(b, filepath.Join(b.TempDir(), "api.db"), "127.0.0.1:0", 5*time.Second)
	empty := memory(b)
	pool := NewPool(nil)
	var workers []*module.Worker
	var instances []*Instance
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for _, builtin := range []string{Mission, IO} {
		opts := Options{Builtin: builtin, Pool: pool}
		s := module.InstanceSpec{}
		if remote {
			s.Config = []module.Pair{{Key: keyURL, Value: "http://" + server.Addr().String() + "/v2/protocol"}}
		} else {
			opts.API = server.API()
		}
		m, err := New(opts)
		if err != nil {
			b.Fatal(err)
		}
		for n := range cars {
			s.Car = fleet.CarID{Company: "acme", Car: "car_" + strconv.Itoa(n)}
			i, err := m.Open(b.Context(), s)
			if err != nil {
				b.Fatal(err)
			}
			w := module.NewWorker(i, m.Number(), module.WorkerOptions{})
			workers, instances = append(workers, w), append(instances, i.(*Instance))
			running.Go(func() { w.Run(ctx) })
		}
	}
	until(b, "all polls to wait", func() bool { return server.Stats().Waiting >= len(workers)*95/100 })
	before := cpu(b)
	started := time.Now()
	time.Sleep(10 * time.Second)
	b.ReportMetric((cpu(b)-before)/time.Since(started).Seconds()*100, "%CPU-idle")
	full := memory(b)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapInuse)/1e6, "heap-MB")
	b.ReportMetric(float64(m.StackInuse)/1e6, "stack-MB")
	b.ReportMetric(full-empty, "MB")
	b.ReportMetric((full-empty)*1e6/float64(len(workers)), "B/instance")
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")

	started = time.Now()
	var closing sync.WaitGroup
	for _, w := range workers {
		closing.Go(func() {
			if err := w.Close(context.Background()); err != nil {
				b.Error(err)
			}
		})
	}
	closing.Wait()
	b.ReportMetric(time.Since(started).Seconds(), "s-to-stop")
	cancel()
	running.Wait()
	for _, i := range instances {
		if s := i.Stats(); s.Lost != 0 {
			b.Errorf("%+v", s)
		}
	}
	pool.Close()
}

// memory is the resident memory of the process in MB after a collection.
func memory(b *testing.B) float64 {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb * 1024 / 1e6
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// BenchmarkForward is the way of one status from the worker's call to the
// request, with an API that takes no time.
func BenchmarkForward(b *testing.B) {
	i := open(b, Options{Builtin: Mission, API: &faultyAPI{}})
	d := fleet.Device{Module: 1, Type: 1, Role: "autonomy", Name: "n"}
	b.ReportAllocs()
	for b.Loop() {
		if err := i.ForwardStatus(b.Context(), d, []byte(goodStatus)); err != nil {
			b.Fatal(err)
		}
	}
}

// cpu is the processor time of the process in seconds.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
