package car

import (
	"sync"
	"time"

	"external-server/internal/session"
)

// Limits bound what a car's gateway may do. They may change while the car runs.
type Limits struct {
	Session session.Options
	// Payload is the largest message accepted, in bytes; zero means 4 MiB.
	Payload int
	// MessagesPerSec is the rate up to which messages are accepted; zero means
	// any. MessageBurst may come at once; zero means twice the rate.
	MessagesPerSec int
	MessageBurst   int
}

func (l Limits) withDefaults() Limits {
	if l.Payload <= 0 {
		l.Payload = 4 << 20
	}
	if l.MessageBurst <= 0 {
		l.MessageBurst = 2 * l.MessagesPerSec
	}
	return l
}

// Configure puts other limits in force, from the next message on. A running
// session goes on; time limits it has already set stay as they are. It may be
// called from any goroutine.
func (c *Car) Configure(limits Limits) {
	limits = limits.withDefaults()
	c.limits.Store(&limits)
	c.mail.put(item{}) // the session belongs to the car's goroutine
}

// bucket is a token bucket.
type bucket struct {
	mu     sync.Mutex
	tokens float64
	at     time.Time // of the last refill; zero: never used
}

// take takes one token; it reports false when there is none.
func (b *bucket) take(now time.Time, rate, burst int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at.IsZero() {
		b.tokens = float64(burst)
	} else {
		b.tokens = min(float64(burst), b.tokens+now.Sub(b.at).Seconds()*float64(rate))
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
