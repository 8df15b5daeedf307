package server

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/core"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testwait"
)

func newTestClient(t testing.TB, o httpapi.ClientOptions) *httpapi.Client {
	t.Helper()
	c, err := httpapi.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// benchStore is the store that FLEET_BENCH_STORE names: "postgres", "cluster" for
// PostgreSQL in a cluster of one replica, or a file of SQLite's.
func benchStore(b *testing.B) config.Secret {
	if name := os.Getenv("FLEET_BENCH_STORE"); name == "postgres" || name == "cluster" {
		return config.NewSecret(sharedPostgres.Database(b))
	}
	return apitest.TempStore(b)
}

// benchCluster is nil, or a cluster in which this server has all cars.
func benchCluster() *Cluster {
	if os.Getenv("FLEET_BENCH_STORE") != "cluster" {
		return nil
	}
	v := &view{self: "a", changed: make(chan struct{})}
	for n := range testShards {
		v.set(n, core.Owner{Replica: "a", Epoch: 1})
	}
	return &Cluster{Replica: "a", Owners: v}
}

func benchStatus(i int) httpapi.Message {
	return apitest.Status(1, 1, "driving", fmt.Sprintf(`{"nextStop":null,"state":"DRIVE","telemetry":{"fuel":0.5,"position":{"altitude":230,"latitude":49.2,"longitude":16.6},"speed":%d}}`, i%50))
}

// BenchmarkFleet posts b.N statuses of 1000 cars at a fixed rate of 1000 a second
// over HTTP and reports the latency of a POST. Retention deletes as much as comes
// in from the second half on.
func BenchmarkFleet(b *testing.B) {
	const cars, rate = 1000, 1000
	s := startServer(b, Options{Cluster: benchCluster(), Config: config.HTTPAPI{Store: benchStore(b), Retention: max(time.Second, time.Duration(b.N)*time.Second/rate/2)}})
	c := newTestClient(b, httpapi.ClientOptions{URL: "http://" + s.Addr().String() + httpapi.BasePath})
	latencies := make([]time.Duration, b.N)
	var wg sync.WaitGroup
	b.ResetTimer()
	start := time.Now()
	for i := range b.N {
		due := start.Add(time.Duration(i) * time.Second / rate)
		time.Sleep(time.Until(due))
		wg.Go(func() {
			car := fleet.CarID{Company: "company", Car: "car_" + strconv.Itoa(i%cars)}
			if err := c.PostStatuses(context.Background(), car, []httpapi.Message{benchStatus(i)}); err != nil {
				b.Error(err)
			}
			latencies[i] = time.Since(due)
		})
	}
	wg.Wait()
	b.StopTimer()
	report(b, "", latencies)
	report(b, "second-half-", latencies[len(latencies)/2:])
	st := s.Stats()
	b.ReportMetric(float64(st.Posts)/float64(max(1, st.Transactions)), "posts/transaction")
	b.ReportMetric(float64(st.Deleted), "deleted")
	b.ReportMetric(float64(st.SlowestWrite.Microseconds())/1000, "slowest-write-ms")
}

func report(b *testing.B, name string, latencies []time.Duration) {
	sorted := slices.Clone(latencies)
	slices.Sort(sorted)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(sorted[(len(sorted)-1)*p/100].Microseconds())/1000, fmt.Sprintf("%sp%d-ms", name, p))
	}
}

// BenchmarkPost stores statuses of 100 posters as fast as the store takes them,
// without HTTP.
func BenchmarkPost(b *testing.B) {
	s := startServer(b, Options{Cluster: benchCluster(), Config: config.HTTPAPI{Store: benchStore(b)}})
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range 100 {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if err := s.API().PostStatuses(context.Background(), fleet.CarID{Company: "company", Car: "car_" + strconv.Itoa(i%1000)}, []httpapi.Message{benchStatus(i)}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkParkedPolls measures the memory and goroutines of 20 000 polls that
// wait: 10 000 cars with two modules each. FLEET_BENCH_HTTP=1 parks 2000 of them
// over HTTP instead.
func BenchmarkParkedPolls(b *testing.B) {
	polls := 20_000
	s := startServer(b, Options{Config: config.HTTPAPI{Store: benchStore(b), WaitTimeout: time.Hour}})
	api := s.API()
	if os.Getenv("FLEET_BENCH_HTTP") != "" {
		polls = 2000
		api = newTestClient(b, httpapi.ClientOptions{URL: "http://" + s.Addr().String() + httpapi.BasePath, Timeout: time.Hour})
	}
	memory := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse + m.StackInuse)
	}
	for b.Loop() {
		before, goroutines := memory(), runtime.NumGoroutine()
		stops := make([]func() bool, polls)
		for i := range stops {
			stops[i] = api.PollCommands(fleet.CarID{Company: "company", Car: "car_" + strconv.Itoa(i/2)}, 1, func([]httpapi.Message, error) {})
		}
		testwait.Until(b, "all wait", func() bool { return s.Stats().Waiting == polls })
		b.ReportMetric((memory()-before)/float64(polls), "B/poll")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(polls), "goroutines/poll")
		for _, stop := range stops {
			stop()
		}
		testwait.Until(b, "none waits", func() bool { return s.Stats().Waiting == 0 })
	}
}

func BenchmarkDecode(b *testing.B) {
	body := []byte("[" + strings.Repeat(message(1, 1, "driving", "Autonomy", "STATUS", string(benchStatus(1).Payload.Data))+",", 9) + message(1, 1, "driving", "Autonomy", "STATUS", `{}`) + "]")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := httpapi.DecodeMessages(httpapi.KindStatus, body); err != nil {
			b.Fatal(err)
		}
	}
}
