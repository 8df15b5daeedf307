package fleetapi

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/server"
	"external-server/internal/module"
	"external-server/internal/support/testwait"
)

// BenchmarkFleet opens 10 000 cars with two modules each, driven by workers as in
// the server, and reports the memory of the process once all of them wait in
// their long polls. Over HTTP the API is another process; with HTTP/1.1 each poll
// needs a descriptor, so there are fewer cars. Run it alone:
//
//	go test ./internal/module/fleetapi -run xxx -bench Fleet -benchtime 1x
func BenchmarkFleet(b *testing.B) {
	b.Run("in process, 10000 cars", func(b *testing.B) {
		for b.Loop() {
			server, end := embed(b, filepath.Join(b.TempDir(), "api.db"), "127.0.0.1:0", 5*time.Second)
			measureFleet(b, 10_000, server.API(), nil, func(all []*Instance) bool {
				return server.Stats().Waiting >= len(all)*95/100
			})
			end()
		}
	})
	for _, way := range []string{"https", "http"} {
		cars := map[string]int{"https": 10_000, "http": 4000}[way]
		b.Run(fmt.Sprintf("%s, %d cars", way, cars), func(b *testing.B) {
			for b.Loop() {
				pairs, end := serveElsewhere(b, way)
				measureFleet(b, cars, nil, pairs, func(all []*Instance) bool {
					for _, i := range all {
						if !i.flushed.Load() {
							return false
						}
					}
					return true
				})
				end()
			}
		})
	}
}

func measureFleet(b *testing.B, cars int, a httpapi.API, pairs []module.Pair, ready func([]*Instance) bool) {
	empty := memory(b)
	pool := NewPool(nil)
	var workers []*module.Worker
	var instances []*Instance
	for _, builtin := range []string{Mission, IO} {
		m, err := New(Options{Builtin: builtin, Pool: pool, API: a})
		if err != nil {
			b.Fatal(err)
		}
		s := module.InstanceSpec{Config: pairs}
		for n := range cars {
			s.Car = fleet.CarID{Company: "acme", Car: "car_" + strconv.Itoa(n)}
			i, err := m.Open(b.Context(), s)
			if err != nil {
				b.Fatal(err)
			}
			w := module.NewWorker(i, m.Number(), module.WorkerOptions{})
			workers, instances = append(workers, w), append(instances, i.(*Instance))
			w.Start()
		}
	}
	testwait.Until(b, "all polls to wait", func() bool { return ready(instances) })
	before, started := cpu(b), time.Now()
	time.Sleep(10 * time.Second)
	b.ReportMetric((cpu(b)-before)/time.Since(started).Seconds()*100, "%CPU-idle")
	full := memory(b)
	b.ReportMetric(full-empty, "MB")
	b.ReportMetric((full-empty)*1e6/float64(len(workers)), "B/instance")
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
	var of runtime.MemStats
	runtime.ReadMemStats(&of)
	b.ReportMetric(float64(of.StackInuse)/1e6, "MB-stacks")
	b.ReportMetric(float64(of.HeapInuse)/1e6, "MB-heap")

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
	pool.Close()
}

// serveStore tells the test binary to be the API, with the store of that name,
// and with TLS if there are the two others.
const (
	serveStore = "FLEETAPI_TEST_SERVE"
	serveCert  = "FLEETAPI_TEST_CERT"
	serveKey   = "FLEETAPI_TEST_KEY"
)

// serve is the API as a process; it tells its address and ends with its input.
func serve(store string) {
	c := config.HTTPAPI{Listen: "127.0.0.1:0", Store: config.NewSecret("sqlite:" + store)}
	if cert := os.Getenv(serveCert); cert != "" {
		c.TLS = &config.ServerTLS{CertFile: cert, KeyFile: os.Getenv(serveKey)}
	}
	s, err := server.New(context.Background(), server.Options{Config: c})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(s.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
		cancel()
	}()
	if err := s.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveElsewhere(b *testing.B, scheme string) (pairs []module.Pair, end func()) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveStore+"="+filepath.Join(b.TempDir(), "api.db"))
	if scheme == "https" {
		ca := newAuthority(b, "ca")
		cert, key := ca.issue("server", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
		cmd.Env = append(cmd.Env, serveCert+"="+cert, serveKey+"="+key)
		pairs = append(pairs, module.Pair{Key: keyCA, Value: ca.file})
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	pairs = append(pairs, module.Pair{Key: keyURL, Value: scheme + "://" + strings.TrimSpace(line) + "/v2/protocol"})
	return pairs, func() {
		if err := in.Close(); err != nil {
			b.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	}
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
