package car

import (
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// Limits bound what a car's gateway may do. They may change while the car runs;
// zero values mean the defaults.
type Limits struct {
	Session session.Options
	// Payload is the largest message accepted, in bytes; zero means 4 MiB.
	Payload int
	// MessagesPerSec is the rate up to which messages are accepted, what exceeds
	// it is dropped and counted; zero means any. MessageBurst may come at once;
	// zero means twice the rate.
	MessagesPerSec int
	MessageBurst   int
	// Queue bounds the statuses that wait per module; zero means 1000. What waits
	// already when it is lowered stays.
	Queue int
	// Stop bounds the delivery of what was accepted and the end of the modules at
	// stop; zero means 3 s (CLI-24).
	Stop time.Duration
}

// Configure puts other limits in force, from the next message on. A running
// session goes on; time limits it has already set stay as they are. It may be
// called from any goroutine.
func (s *Seat) Configure(limits Limits) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.setLimits(limits)
	o := s.occupant.Load()
	if o == nil {
		return // the next one begins with them
	}
	for _, m := range o.modules {
		m.worker.SetQueueSize(limits.Queue)
	}
	options := s.sessionOptions()
	o.options.Store(&options)
	if s.mail.poke() { // the session belongs to the working goroutine
		go s.work(nil, false)
	}
}

func (s *Seat) setLimits(limits Limits) {
	s.limits = limits
	s.payload.Store(int64(positive(limits.Payload, fleet.DefaultPayload)))
	s.stop.Store(int64(positive(limits.Stop, defaultStopTimeout)))
	s.mail.setRate(limits.MessagesPerSec, limits.MessageBurst)
}

// tellWithin is session.Options.TellWithin without Carrier. Then it costs nothing to tell the broker soon, and one that speaks MQTT
// 3.1.1 has 20 messages of a connection under way, not more.
const tellWithin = 20 * time.Millisecond

// sessionOptions are those in force; turn is held.
func (s *Seat) sessionOptions() session.Options {
	opts := s.limits.Session
	if s.opts.Carrier == nil && opts.TellWithin == 0 {
		opts.TellWithin = tellWithin
	}
	return opts
}

// positive returns v, or what is used in its place.
func positive[T ~int | ~int64](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// bucket limits a rate: tokens of time, as many as the burst at most.
type bucket struct {
	perSecond float64
	burst     float64
	tokens    float64
	last      time.Time
}

// set changes the rate; a burst of 0 is twice the rate.
func (b *bucket) set(perSecond, burst int) {
	if burst <= 0 {
		burst = 2 * perSecond
	}
	if b.perSecond == 0 {
		b.tokens, b.last = float64(burst), time.Now()
	}
	b.perSecond, b.burst = float64(perSecond), float64(burst)
}

func (b *bucket) take(now time.Time) bool {
	b.tokens = min(b.burst, b.tokens+now.Sub(b.last).Seconds()*b.perSecond)
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
