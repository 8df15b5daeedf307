// Package counts holds what is counted for one connection, and its state as operators see it.
package counts

import (
	"sync/atomic"
	"time"

	"external-server/internal/link"
)

// Counts are those of one connection. The counters of link.ConnectionState only grow and are
// added to by any goroutine; the methods need the connection's lock.
type Counts struct {
	MessagesIn, MessagesOut, BytesIn, BytesOut, Connects     atomic.Uint64
	QueueFull, LinkDown, Discarded, TooLarge                 atomic.Uint64
	Oversized, Foreign, BadName, Repeated, Refused, Retained atomic.Uint64

	Resumed, Backlog, Redelivered, BarrierGivenUp, Leftovers atomic.Uint64
	TakenOver, FlushFailed, RefusedMessages                  atomic.Uint64

	up        bool
	since     time.Time
	lastError string
}

// Connected says that the connection serves its cars.
func (c *Counts) Connected() {
	c.Connects.Add(1)
	c.up, c.since = true, time.Now()
}

// Disconnected says that it does not any more; more than once changes nothing.
func (c *Counts) Disconnected() {
	if c.up {
		c.up, c.since = false, time.Now()
	}
}

// Failed says why there is no connection.
func (c *Counts) Failed(err error) { c.lastError = err.Error() }

// State returns what is known here of the connection's state.
func (c *Counts) State() link.ConnectionState {
	return link.ConnectionState{
		Up: c.up, Since: c.since, LastError: c.lastError, Connects: c.Connects.Load(),
		MessagesIn: c.MessagesIn.Load(), BytesIn: c.BytesIn.Load(),
		MessagesOut: c.MessagesOut.Load(), BytesOut: c.BytesOut.Load(),
		SubscriptionsRefused: c.Refused.Load(),
		DroppedQueueFull:     c.QueueFull.Load(), DroppedLinkDown: c.LinkDown.Load(),
		DroppedDiscarded: c.Discarded.Load(), DroppedTooLarge: c.TooLarge.Load(),
		IgnoredOversized: c.Oversized.Load(), IgnoredForeign: c.Foreign.Load(), IgnoredRetained: c.Retained.Load(),
		Resumed: c.Resumed.Load(), Backlog: c.Backlog.Load(), Redelivered: c.Redelivered.Load(),
		BarriersGivenUp: c.BarrierGivenUp.Load(), Leftovers: c.Leftovers.Load(), TakenOver: c.TakenOver.Load(),
		FlushFailed: c.FlushFailed.Load(), MessagesRefused: c.RefusedMessages.Load(),
		IgnoredBadName: c.BadName.Load(), IgnoredRepeatedForeign: c.Repeated.Load(),
	}
}
