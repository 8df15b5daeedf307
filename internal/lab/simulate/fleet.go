package simulate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
)

// Fleet is a fleet of simulated cars. Connect starts them, Drive lets them report,
// Report tells what they saw, Close ends them. The methods are called one after
// the other; Figures may be called at any time.
type Fleet struct {
	opts  Options
	pool  *gateway.Pool // nil: connections of their own
	cars  []*car
	order []int // the cars in the order in which they start and report

	latency Histogram
	tally   tally

	loading atomic.Bool  // Drive runs: cars in a closed loop send
	began   atomic.Int64 // Unix ns, answers to statuses planned before do not count
}

// car is one simulated car.
type car struct {
	fleet   *Fleet
	gateway *gateway.Gateway
	devices []fleet.Device
	source  source
	faulty  bool

	next      atomic.Uint32 // device that reports next
	connected atomic.Bool
	ever      atomic.Bool // was connected once
	unserved  atomic.Bool // no server answered its last Connect
	started   atomic.Bool // closed loop: a status is on its way
}

// New connects to the broker and makes the cars; they do nothing yet. The caller
// must Close the Fleet.
func New(opts Options) (*Fleet, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	f := &Fleet{opts: opts}
	f.tally.init()
	if n := opts.connections(); n > 0 {
		pool, err := gateway.NewPool(opts.Broker, n)
		if err != nil {
			return nil, err
		}
		f.pool = pool
	}
	chance := rand.New(rand.NewPCG(opts.Seed, 0))
	f.order = chance.Perm(opts.Cars)
	faulty := int(opts.Faults.Share*float64(opts.Cars) + 0.5)
	chosen := make(map[int]bool, faulty)
	for _, i := range chance.Perm(opts.Cars)[:faulty] {
		chosen[i] = true
	}
	for i := range opts.Cars {
		c, err := f.newCar(i, chosen[i])
		if err != nil {
			f.Close()
			return nil, err
		}
		f.cars = append(f.cars, c)
	}
	return f, nil
}

func (f *Fleet) newCar(i int, faulty bool) (*car, error) {
	c := &car{fleet: f, faulty: faulty, source: f.opts.newSource(i)}
	for d := range f.opts.Devices {
		c.devices = append(c.devices, fleet.Device{
			Module: f.opts.Module, Type: uint32(f.opts.DeviceType), Role: fmt.Sprintf("device_%d", d+1), Name: fmt.Sprintf("Device %d", d+1),
		})
	}
	core := gateway.Options{Steady: true, Rand: rand.New(rand.NewPCG(f.opts.Seed, uint64(i)+1))}
	if f.opts.Closed {
		core.Timing.ForcedStatus = -1 // it would begin a second loop
	}
	if f.opts.Cars > 1000 {
		core.Timing.LinkTimeout = time.Minute // thousands subscribe at once
	}
	settings := gateway.Settings{
		Car: fleet.CarID{Company: f.opts.Company, Car: f.opts.carName(i)}, Core: core,
		Pool: f.pool, Broker: f.opts.Broker, Observe: c.observe,
	}
	var err error
	if c.gateway, err = gateway.Start(settings); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends all cars, as when they are switched off.
func (f *Fleet) Close() {
	var closing sync.WaitGroup
	for part := range 8 { // those with a connection of their own say goodbye one by one
		closing.Go(func() {
			for i := part; i < len(f.cars); i += 8 {
				f.cars[i].gateway.Close()
			}
		})
	}
	closing.Wait()
	if f.pool != nil {
		f.pool.Close()
	}
}

// Connect starts the cars over the ramp and waits until all have been connected
// once. It returns how long that took; an error when some are not connected in
// time, or ctx ended.
func (f *Fleet) Connect(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	for n, i := range f.order {
		if f.opts.Ramp > 0 {
			if err := sleepUntil(ctx, start.Add(f.opts.Ramp*time.Duration(n)/time.Duration(len(f.order)))); err != nil {
				return 0, err
			}
		}
		c := f.cars[i]
		for d := range c.devices {
			c.gateway.Status(c.devices[d], c.source.status(d, time.Now()), time.Time{})
		}
	}
	limit := time.NewTimer(f.opts.ConnectTimeout)
	defer limit.Stop()
	select {
	case <-f.tally.allConnected:
		return time.Unix(0, f.tally.lastFirst.Load()).Sub(start), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-limit.C:
		n := int(f.tally.everConnected.Load())
		return 0, fmt.Errorf("%d of %d cars are connected after %v%s", n, len(f.cars), f.opts.ConnectTimeout, f.why())
	}
}

// why names what keeps a car from being connected.
func (f *Fleet) why() string {
	for _, c := range f.cars {
		if c.ever.Load() {
			continue
		}
		if err := c.gateway.LinkError(); err != nil {
			return fmt.Sprintf("; car %s: %v", c.gateway.Car().Car, err)
		}
	}
	if reason := f.tally.mostFailed(); reason != "" {
		return "; most frequent reason: " + reason
	}
	return "; no server answers: does it run, on this broker, for this company, with these cars?"
}

// AwaitConnected waits until all cars are connected at the same time and returns
// when the last one became so.
func (f *Fleet) AwaitConnected(ctx context.Context) (time.Time, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for f.tally.connected.Load() < int64(len(f.cars)) {
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%d of %d cars are connected: %w", f.tally.connected.Load(), len(f.cars), ctx.Err())
		case <-tick.C:
		}
	}
	return time.Unix(0, f.tally.lastConnect.Load()), nil
}

// observe is told what the gateway does.
func (c *car) observe(e gateway.Effect) {
	f := c.fleet
	t := &f.tally
	switch e.Kind {
	case gateway.EffectAnswered:
		c.answered(&e)
	case gateway.EffectConnected:
		now := time.Now().UnixNano()
		c.connected.Store(true)
		c.unserved.Store(false)
		t.sessions.Add(1)
		t.connected.Add(1)
		t.lastConnect.Store(now)
		if c.ever.CompareAndSwap(false, true) {
			t.lastFirst.Store(now)
			if t.everConnected.Add(1) == int64(f.opts.Cars) {
				close(t.allConnected)
			}
		}
		c.startLoop()
	case gateway.EffectDisconnected:
		c.connected.Store(false)
		c.started.Store(false)
		t.connected.Add(-1)
		if e.Reason != gateway.ReasonStopped {
			t.count(t.dropped, e.Reason)
		}
	case gateway.EffectSequenceFailed:
		if e.Reason != gateway.ReasonStopped {
			t.count(t.failed, e.Reason)
		}
		c.unserved.Store(e.Reason == gateway.ReasonNoConnectResponse)
	case gateway.EffectViolation:
		// Silence is no violation: the operator has removed the car, or the server is away.
		if e.Reason != gateway.ReasonNoConnectResponse {
			t.count(t.violations, e.Reason)
		}
	case gateway.EffectCommand:
		if on := f.opts.OnCommand; on != nil && len(e.Data) > 0 {
			on(e.Data, time.Now())
		}
		t.command(&e)
	case gateway.EffectDeliver:
		for i := range c.devices {
			if c.devices[i].ID() == e.Device.ID() {
				c.source.command(i, e.Data)
			}
		}
	}
}

func (c *car) answered(e *gateway.Effect) {
	f := c.fleet
	if f.opts.Closed {
		switch {
		case !c.started.Load(): // a first status
		case f.loading.Load():
			f.latency.Add(time.Since(e.Sent))
			c.report(time.Time{})
		default:
			c.started.Store(false)
			c.startLoop() // the next Drive may have begun meanwhile
		}
		return
	}
	if !f.loading.Load() {
		return
	}
	// The gateway's own statuses are planned for the moment they are sent.
	if e.Planned.Equal(e.Sent) || e.Planned.UnixNano() < f.began.Load() {
		return
	}
	f.latency.Add(time.Since(e.Planned))
}

// startLoop sends the first status of a closed loop, once per session.
func (c *car) startLoop() {
	if c.fleet.opts.Closed && c.fleet.loading.Load() && c.connected.Load() && c.started.CompareAndSwap(false, true) {
		c.report(time.Time{})
	}
}

// report sends the next status of the car.
func (c *car) report(planned time.Time) {
	d := int((c.next.Add(1) - 1) % uint32(len(c.devices)))
	now := planned
	if now.IsZero() {
		now = time.Now()
	}
	status := c.source.status(d, now)
	c.fleet.tally.sized(len(status))
	c.fleet.tally.planned.Add(1)
	c.gateway.Status(c.devices[d], status, planned)
}
