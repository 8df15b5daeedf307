package fleetapi

import "time"

// guardSettings are the parameters of the request-rate guard (MM-6).
type guardSettings struct {
	count  int           // K: polls
	period time.Duration // P: within
	long   time.Duration // L: pause after K polls within P
	short  time.Duration // S: pause after each of the next K polls
}

// guard is the request-rate guard of MM-6. It only computes: the caller says
// what time it is and makes the pause.
type guard struct {
	guardSettings
	slow  bool        // F
	calls []time.Time // Q, oldest first
}

// after records one poll that ended now. It returns the pause to make before
// anything else is asked, and whether the poll counts as DELAYED (MM-5).
func (g *guard) after(now time.Time) (pause time.Duration, delayed bool) {
	g.calls = append(g.calls, now)
	if !g.slow {
		if len(g.calls) < g.count {
			return 0, false
		}
		over := now.Sub(g.calls[0]) < g.period
		if over {
			g.slow = true
			g.calls = g.calls[:0]
			return g.long, true
		}
		g.dropOldest()
		return 0, false
	}
	if len(g.calls) >= g.count {
		g.slow = false
		g.dropOldest()
	}
	return g.short, false
}

func (g *guard) dropOldest() {
	copy(g.calls, g.calls[1:])
	g.calls = g.calls[:len(g.calls)-1]
}
