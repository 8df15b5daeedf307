package gateway

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/support/brokertest"
)

// BenchmarkRoundTrips measures status round trips of cars that send their next status as
// soon as the last one is answered, through mosquitto and the scripted server. It
// reports the memory of one connected gateway as well.
func BenchmarkRoundTrips(b *testing.B) {
	for _, cars := range []int{1, 100, 10000} {
		b.Run(fmt.Sprintf("cars=%d", cars), func(b *testing.B) { benchmarkRoundTrips(b, cars) })
	}
}

func benchmarkRoundTrips(b *testing.B, cars int) {
	broker := Broker{Address: brokertest.Start(b, brokertest.Options{Extra: "log_type none\nset_tcp_nodelay true\n"}).Address()}
	newServer(b, broker, "bench").forgetful = true
	pool, err := NewPool(broker, 4)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	before := heap()
	payload := make([]byte, 100)
	var left, connected atomic.Int64
	ready, done := make(chan struct{}), make(chan struct{})
	gateways := make([]*Gateway, cars)
	for i := range gateways {
		g, err := Start(Settings{Car: fleet.CarID{Company: "bench", Car: fmt.Sprintf("car%d", i)}, Pool: pool,
			Core: Options{Steady: true, Timing: Timing{ForcedStatus: -1, MessageTimeout: time.Minute, LinkTimeout: time.Minute}},
			Observe: func(e Effect) {
				switch e.Kind {
				case EffectConnected:
					if connected.Add(1) == int64(cars) {
						close(ready)
					}
				case EffectAnswered:
					if e.Counter <= 1 {
						return
					}
					switch n := left.Add(-1); {
					case n == 0:
						close(done)
					case n > 0:
						gateways[i].Status(autonomy, payload, time.Time{})
					}
				case EffectDisconnected, EffectSequenceFailed:
					if e.Reason != ReasonStopped {
						b.Errorf("car %d: %v", i, e.Reason)
					}
				}
			}})
		if err != nil {
			b.Fatal(err)
		}
		defer g.Close()
		gateways[i] = g
	}
	began := time.Now()
	for _, g := range gateways {
		g.Status(autonomy, payload, time.Time{})
	}
	select {
	case <-ready:
	case <-time.After(2 * time.Minute):
		b.Fatalf("%d of %d cars connected", connected.Load(), cars)
	}
	storm := time.Since(began)
	perCar := (heap() - before) / float64(cars)
	b.ReportAllocs()
	b.ResetTimer()
	left.Store(int64(b.N))
	for i := range min(cars, b.N) {
		gateways[i].Status(autonomy, payload, time.Time{})
	}
	<-done
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "roundtrips/s")
	b.ReportMetric(storm.Seconds(), "connect-s")
	b.ReportMetric(perCar, "B/car")
}

func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}
