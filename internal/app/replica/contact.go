package replica

import (
	"time"

	"external-server/internal/cluster"
)

// contact judges whether the broker answers this replica. It does no I/O and reads no clock.
//
// An answer proves both directions. A replica that only hears the broker, or is only heard,
// has none, although its connections are open.
type contact struct {
	limit  time.Duration // Timing.Unwell: silence that counts
	last   time.Time     // of the last look
	answer time.Time     // newest answer known
	silent time.Duration // time since then in which this process ran
}

// maxGap is what counts of the time between two looks: while this process stands still it
// cannot hear what the broker answers.
const maxGap = 2 * healthTick

// look takes in the newest answer of the broker; zero: there was none.
func (c *contact) look(now, answer time.Time) {
	gap := now.Sub(c.last)
	if c.last.IsZero() || gap > maxGap {
		gap = maxGap
	}
	c.last = now
	c.silent += gap
	if answer.After(c.answer) {
		c.answer = answer
		c.silent = min(c.silent, max(0, now.Sub(answer)))
	}
}

// wantsProbe tells whether the broker has to be asked over a connection of its own.
func (c *contact) wantsProbe() bool { return c.silent >= c.limit*3/5 }

// lost is why this replica cannot serve, nil while the broker answers.
func (c *contact) lost() *cluster.NoBrokerError {
	if c.silent < c.limit {
		return nil
	}
	return &cluster.NoBrokerError{Since: c.last.Add(-c.silent)}
}
