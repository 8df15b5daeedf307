package simulate

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"external-server/internal/lab/gateway"
)

// drainTime is how long no answer has come when Drive waits for no more of them after the
// last status, and drainLimit bounds it all: a slow server goes on answering.
const drainTime, drainLimit = 2 * time.Second, 20 * time.Second

// Drive lets the cars report for the given time, or until ctx ends, then waits a
// moment for the last answers. What was measured before is forgotten.
func (f *Fleet) Drive(parent context.Context, duration time.Duration) {
	ctx, cancel := context.WithTimeout(parent, duration)
	defer cancel()
	f.latency.Reset()
	f.tally.planned.Store(0)
	f.tally.bytes.Store(0)
	start := time.Now()
	f.began.Store(start.UnixNano())
	f.tally.start.Store(start.UnixNano())
	f.tally.end.Store(0)
	f.loading.Store(true)
	var faults sync.WaitGroup
	if f.opts.Faults.any() {
		for _, c := range f.cars {
			if c.faulty {
				c.setFaults(f.opts.Faults.Messages)
			}
		}
		faults.Go(func() { f.inject(ctx) })
	}
	if f.opts.Closed {
		for _, i := range f.order {
			f.cars[i].startLoop()
		}
		<-ctx.Done()
		f.loading.Store(false)
	} else {
		f.pace(parent, start, duration)
	}
	f.tally.end.Store(time.Now().UnixNano())
	faults.Wait()
	if !f.opts.Closed {
		f.drain(parent)
		f.loading.Store(false)
	}
}

// pace sends the statuses at their planned moments, evenly spread over the cars.
// A late one is sent all the same and keeps its planned moment, from which its
// latency counts: a server that stalls cannot make the load wait for it
// (coordinated omission).
func (f *Fleet) pace(ctx context.Context, start time.Time, duration time.Duration) {
	perSecond := f.opts.Rate * float64(len(f.cars))
	for n := 0; perSecond > 0; n++ {
		after := time.Duration(float64(n) / perSecond * float64(time.Second))
		if after >= duration {
			break
		}
		planned := start.Add(after)
		if err := sleepUntil(ctx, planned); err != nil {
			return
		}
		f.cars[f.order[n%len(f.order)]].report(planned)
	}
	_ = sleepUntil(ctx, start.Add(duration)) // ends early when the run does
}

// drain waits until every status is answered, for a bounded time, a short one when ctx has ended.
func (f *Fleet) drain(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begun := time.Now()
	last, lastAt := f.latency.Count(), begun
	limit := drainLimit
	for last < f.tally.planned.Load() && time.Since(lastAt) < drainTime && time.Since(begun) < limit {
		<-tick.C
		if ctx.Err() != nil {
			limit = drainTime
		}
		if n := f.latency.Count(); n != last {
			last, lastAt = n, time.Now()
		}
	}
}

// sleepUntil returns at the moment, or with an error when ctx ends before.
func sleepUntil(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inject makes the faults that are events until ctx ends, and ends what has been
// begun.
func (f *Fleet) inject(ctx context.Context) {
	var faulty []*car
	for _, c := range f.cars {
		if c.faulty {
			faulty = append(faulty, c)
		}
	}
	if len(faulty) == 0 {
		return
	}
	chance := rand.New(rand.NewPCG(f.opts.Seed, 1<<63))
	o := &f.opts.Faults
	perMinute := float64(len(faulty)) * (o.Silence + o.Restart + o.Flap)
	next := func() time.Duration { // exponential: events know nothing of each other
		if perMinute == 0 {
			return time.Hour
		}
		return min(time.Hour, time.Duration(chance.ExpFloat64()*float64(time.Minute)/perMinute))
	}
	event, storm := time.NewTimer(next()), time.NewTimer(time.Hour)
	defer event.Stop()
	defer storm.Stop()
	if o.Storm > 0 {
		storm.Reset(o.Storm)
	}
	var ending sync.WaitGroup
	defer ending.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-event.C:
			c := faulty[chance.IntN(len(faulty))]
			switch x := chance.Float64() * (o.Silence + o.Restart + o.Flap); {
			case x < o.Silence:
				ending.Go(func() { c.silence(ctx) })
			case x < o.Silence+o.Restart:
				f.tally.restarts.Add(1)
				c.gateway.Restart()
			default:
				device := chance.IntN(len(c.devices))
				ending.Go(func() { c.flap(ctx, device) })
			}
			event.Reset(next())
		case <-storm.C:
			if o.Storm > 0 {
				for _, c := range faulty {
					f.tally.restarts.Add(1)
					c.gateway.Restart()
				}
			}
			storm.Reset(max(o.Storm, time.Second))
		}
	}
}

// silence cuts the gateway off for a while.
func (c *car) silence(ctx context.Context) {
	o := &c.fleet.opts.Faults
	c.fleet.tally.silences.Add(1)
	silent := o.Messages
	silent.Silent = true
	c.setFaults(silent)
	_ = sleepUntil(ctx, time.Now().Add(o.SilenceFor)) // ends early when the run does
	c.setFaults(o.Messages)
}

// flap takes a device away and brings it back.
func (c *car) flap(ctx context.Context, device int) {
	c.fleet.tally.flaps.Add(1)
	c.gateway.Leave(c.devices[device])
	_ = sleepUntil(ctx, time.Now().Add(time.Second)) // ends early when the run does
	c.gateway.Status(c.devices[device], c.source.status(device, time.Now()), time.Time{})
}

func (c *car) setFaults(m gateway.Faults) {
	if err := c.gateway.SetFaults(m); err != nil {
		panic(err) // New has checked the probabilities
	}
}
