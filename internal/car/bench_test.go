package car

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/module"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// taker is a module and its instance, which take everything.
type taker struct{}

func (taker) Number() int32                                             { return 2 }
func (taker) Supports(uint32) bool                                      { return true }
func (taker) DeviceConnected(context.Context, fleet.Device) error       { return nil }
func (taker) ForwardStatus(context.Context, fleet.Device, []byte) error { return nil }
func (taker) ForwardError(context.Context, fleet.Device, []byte) error  { return nil }
func (taker) DeviceDisconnected(context.Context, fleet.DisconnectType, fleet.Device) error {
	return nil
}
func (taker) CommandAck(context.Context, fleet.Command) error { return nil }
func (taker) Close(context.Context) error                     { return nil }
func (taker) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	<-ctx.Done()
	return nil, nil
}

type takerModule struct{ taker }

func (takerModule) Open(context.Context, module.InstanceSpec) (module.Instance, error) {
	return taker{}, nil
}
func (takerModule) Close() error { return nil }

type blackHole struct{}

func (blackHole) Publish([]byte, link.Ack) bool { return true }
func (blackHole) Acknowledge(link.Ack)          {}
func (blackHole) NotifyDisconnect() bool        { return true }
func (blackHole) Lost() bool                    { return false }
func (blackHole) DiscardPending()               {}
func (blackHole) Close()                        {}

// runningCar is a car in normal communication; next makes the payload of the next
// status.
func runningCar(tb testing.TB, opts Options) (c *Seat, next func() []byte) {
	tb.Helper()
	opts.ID, opts.Logger, opts.Limits = carID, newLogger(), Limits{Queue: 1 << 20}
	c, err := New(opts)
	if err != nil {
		tb.Fatal(err)
	}
	c.port = blackHole{}
	if _, err := c.Replace(tb.Context(), Occupant{Modules: []Binding{{Module: takerModule{}, Instance: taker{}}}}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := c.Run(ctx); err != nil {
			tb.Error(err)
		}
	})
	say := func(m fleet.ClientMessage) {
		m.SessionID = "abcdefgh"
		raw, err := protocol.EncodeClient(m, carID)
		if err != nil {
			tb.Fatal(err)
		}
		c.Message(raw, link.Delivery{})
		c.Sent()
	}
	say(fleet.ClientMessage{Kind: fleet.ClientConnect, Devices: []fleet.Device{button}})
	reaches := func(want session.Phase) { // another goroutine may still be at work
		for limit := time.Now().Add(20 * time.Second); c.Snapshot().Phase != want; runtime.Gosched() {
			if time.Now().After(limit) {
				tb.Fatalf("phase is %v, want %v", c.Snapshot().Phase, want)
			}
		}
	}
	reaches(session.PhaseStatuses)
	say(fleet.ClientMessage{Kind: fleet.ClientStatus, Counter: 1, Device: button})
	say(fleet.ClientMessage{Kind: fleet.ClientCommandResponse})
	reaches(session.PhaseRunning)
	counter := uint32(1)
	data := make([]byte, 100)
	return c, func() []byte {
		counter++
		raw, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "abcdefgh", State: fleet.StateRunning,
			Counter: counter, Device: button, Data: data}, carID)
		if err != nil {
			tb.Fatal(err)
		}
		return raw
	}
}

// counting is an observer that costs next to nothing.
type counting struct{ n atomic.Uint64 }

func (c *counting) Observe(*Event) { c.n.Add(1) }

// BenchmarkStatus is the whole way of one status inside a car: decoding, session,
// queue and call of the module, answer. The answer is its one allocation,
// observed or not.
func BenchmarkStatus(b *testing.B) {
	for name, opts := range benchmarked() {
		b.Run(name, func(b *testing.B) { benchmarkStatus(b, opts) })
	}
}

// benchmarked are the kinds of cars that are measured.
func benchmarked() map[string]Options {
	return map[string]Options{
		"unobserved": {},
		"observed":   {Observer: &counting{}},
		"durable":    {Journal: nowhere{}},
		"carried":    {Journal: nowhere{}, Carrier: nowhere{}},
	}
}

// nowhere is a journal and a carrier that keep nothing.
type nowhere struct{}

func (nowhere) Append(...[]byte)                              {}
func (nowhere) AppendAt(e uint64, _ ...[]byte) (uint64, bool) { return e, true }
func (nowhere) Flush() error                                  { return nil }
func (nowhere) Put(fleet.CarID, []byte)                       {}

func benchmarkStatus(b *testing.B, opts Options) {
	c, next := runningCar(b, opts)
	items := make([][]byte, 10_000)
	for i := range items {
		items[i] = next()
	}
	expected := c.counters.statuses.Load()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%len(items) == 0 && i > 0 { // the counters of the items come again
			b.StopTimer()
			for j := range items {
				items[j] = next()
			}
			b.StartTimer()
		}
		c.Message(items[i%len(items)], link.Delivery{})
		c.Sent()
		expected++
	}
	b.StopTimer()
	for limit := time.Now().Add(20 * time.Second); c.counters.statuses.Load() < expected && time.Now().Before(limit); {
		runtime.Gosched() // see reaches
	}
	if n := c.counters.statuses.Load(); n != expected {
		b.Fatalf("%d statuses were queued, want %d", n, expected)
	}
}

// The way of a status allocates its answer and nothing else, but for the queue,
// which grows now and then.
func TestStatusAllocatesItsAnswer(t *testing.T) {
	for name, opts := range benchmarked() {
		t.Run(name, func(t *testing.T) { statusAllocatesItsAnswer(t, opts) })
	}
}

func statusAllocatesItsAnswer(t *testing.T, opts Options) {
	c, next := runningCar(t, opts)
	const runs = 2000
	items := make([][]byte, 0, runs+1)
	for range runs + 1 {
		items = append(items, next())
	}
	i := 0
	allocs := testing.AllocsPerRun(runs, func() {
		c.Message(items[i], link.Delivery{})
		c.Sent()
		i++
	})
	if allocs > 1 {
		t.Errorf("%v allocations per status, want 1", allocs)
	}
}
