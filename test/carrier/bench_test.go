package carrier

import (
	"bytes"
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"external-server/internal/cluster/fence"
	"external-server/internal/fleet"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
)

func quantile(all []time.Duration, q float64) float64 {
	slices.Sort(all)
	return float64(all[min(len(all)-1, int(q*float64(len(all))))].Microseconds())
}

// BenchmarkRecord leaves one record after the other: what a command of a quiet car waits for.
func BenchmarkRecord(b *testing.B) {
	ways(b, func(b *testing.B, w way) {
		record := bytes.Repeat([]byte("r"), recordBytes)
		var took []time.Duration
		for n := 0; b.Loop(); n++ {
			begin := time.Now()
			if err := w.put(b.Context(), n%1000, record); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(begin))
		}
		b.ReportMetric(quantile(took, 0.5), "p50-µs")
		b.ReportMetric(quantile(took, 0.99), "p99-µs")
	})
}

// BenchmarkCommand is the way of a command to a car with its record: by a retained message in
// front of it, and without any record.
func BenchmarkCommand(b *testing.B) {
	for name, with := range map[string]bool{"without-record": false, "retained": true} {
		b.Run(name, func(b *testing.B) {
			r := newRetained(b)
			car, err := brokertest.Dial(brokertest.PeerOptions{Address: r.broker.Address()})
			if err != nil {
				b.Fatal(err)
			}
			defer car.Conn.Close()
			topic := carID(1).String() + fleet.TopicFromServer
			if err := car.Subscribe(1, topic); err != nil {
				b.Fatal(err)
			}
			record, command := bytes.Repeat([]byte("r"), recordBytes), bytes.Repeat([]byte("c"), 100)
			var took []time.Duration
			var buf []byte
			for n := 0; b.Loop(); n++ {
				begin := time.Now()
				buf = buf[:0]
				if with {
					buf = wire.V5.AppendPublish(buf, fence.RecordTopic("test", 1, carID(1)), record, 0, 0, true, false)
				}
				buf = wire.V5.AppendPublish(buf, topic, command, 1, uint16(n%60000+1), false, false)
				if _, err := r.conn.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := car.Receive(time.Minute); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begin))
			}
			b.ReportMetric(quantile(took, 0.5), "p50-µs")
			b.ReportMetric(quantile(took, 0.99), "p99-µs")
		})
	}
}

// BenchmarkRate leaves records as fast as they are taken, from 64 goroutines.
func BenchmarkRate(b *testing.B) {
	ways(b, func(b *testing.B, w way) {
		record := bytes.Repeat([]byte("r"), recordBytes)
		before, own := cpu(b, w.pid()), cpu(b, os.Getpid())
		b.SetParallelism(32)
		b.RunParallel(func(p *testing.PB) {
			for n := 0; p.Next(); n++ {
				if err := w.put(b.Context(), n%10_000, record); err != nil {
					b.Error(err)
					return
				}
			}
		})
		if err := w.settle(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		b.ReportMetric(float64((cpu(b, w.pid())-before).Microseconds())/float64(b.N), "etcd-or-broker-cpu-µs/record")
		b.ReportMetric(float64((cpu(b, os.Getpid())-own).Microseconds())/float64(b.N), "our-cpu-µs/record")
	})
}

// BenchmarkFleetConnects is a fleet that connects: 10 000 cars in 10 s, two records each, and what
// a command waits for meanwhile. One iteration is one fleet.
func BenchmarkFleetConnects(b *testing.B) {
	ways(b, func(b *testing.B, w way) {
		for b.Loop() {
			fleetConnects(b, w)
		}
	})
}

func fleetConnects(b *testing.B, w way) {
	const cars, in = 10_000, 10 * time.Second
	record := bytes.Repeat([]byte("r"), recordBytes)
	processor, memoryBefore := cpu(b, w.pid()), memory(b, w.pid())
	var mu sync.Mutex
	var took []time.Duration
	var waiting sync.WaitGroup
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	begin := time.Now()
	for n := range cars {
		if wait := time.Until(begin.Add(in * time.Duration(n) / cars)); wait > 0 {
			time.Sleep(wait)
		}
		waiting.Go(func() {
			for range 2 {
				before := time.Now()
				if err := w.put(ctx, n, record); err != nil {
					b.Error(err)
					return
				}
				d := time.Since(before)
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	waiting.Wait()
	if err := w.settle(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(begin).Seconds(), "s")
	b.ReportMetric(quantile(took, 0.5), "p50-µs")
	b.ReportMetric(quantile(took, 0.99), "p99-µs")
	b.ReportMetric((cpu(b, w.pid()) - processor).Seconds(), "etcd-or-broker-cpu-s")
	b.ReportMetric(memory(b, w.pid())-memoryBefore, "etcd-or-broker-MB")
}
