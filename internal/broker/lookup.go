package broker

import (
	"strings"
	"sync"
	"time"

	mqtt "github.com/wind-c/comqtt/v2/mqtt"
	"github.com/wind-c/comqtt/v2/mqtt/packets"
)

const (
	// The library compares every filter of a SUBSCRIBE with every retained message: 60 KB
	// of filters and a full table keep a core busy for seconds. A client has freeLookups
	// comparisons at once, which is a full table for 2000 filters, and lookupsPerSecond
	// after that, a few percent of a core; it waits for more.
	freeLookups      = 2000 * maxRetained
	lookupsPerSecond = 200_000
)

// lookups is what a client has left of its comparisons.
type lookups struct {
	mu    sync.Mutex
	spent float64
	at    time.Time // when spent was right
}

// spend counts n comparisons and returns how long the client has to wait for them.
func (l *lookups) spend(n int, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.at.IsZero() {
		l.spent = max(0, l.spent-now.Sub(l.at).Seconds()*lookupsPerSecond)
	}
	l.at = now
	l.spent += float64(n)
	return time.Duration(max(0, l.spent-freeLookups) / lookupsPerSecond * float64(time.Second))
}

// sparing keeps the library from looking for retained messages where there is none, and
// lets the client wait for its turn where there may be. It is called after the filters
// are in force and before the library looks, so that no message is missed; the filters
// are the library's own.
func (g *guard) sparing(c *conn, filters []packets.Subscription, codes []byte) {
	messages, cost := g.broker.retained.len(), 0
	for i := range filters {
		f := &filters[i]
		switch {
		case i >= len(codes) || codes[i] > packets.CodeGrantedQos2.Code || mqtt.IsSharedFilter(f.Filter):
		case !strings.ContainsAny(f.Filter, "+#") && !g.broker.retained.has(f.Filter):
			f.RetainHandling = 2 // do not send
		default:
			cost += messages
		}
	}
	wait := c.lookups.spend(cost, time.Now())
	if wait <= 0 {
		return
	}
	turn := time.NewTimer(wait)
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-c.quit:
	}
}
