package mqtt

import (
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/link"
)

// stats are the counters of one connection.
type stats struct {
	messagesIn, messagesOut, bytesIn, bytesOut, connects atomic.Uint64
	queueFull, linkDown, discarded, tooLarge             atomic.Uint64
	oversized, foreign, badName, repeated, refused       atomic.Uint64
	retained                                             atomic.Uint64

	resumed, backlog, redelivered, barrierGivenUp, leftovers atomic.Uint64
	takenOver, flushFailed, refusedMessages                  atomic.Uint64

	refusedAt time.Time // guarded by conn.mu
	mu        sync.Mutex
	up        bool
	since     time.Time
	lastError string
}

func (s *stats) connected() {
	s.connects.Add(1)
	s.mu.Lock()
	s.up, s.since = true, time.Now()
	s.mu.Unlock()
}

func (s *stats) disconnected() {
	s.mu.Lock()
	if s.up {
		s.up, s.since = false, time.Now()
	}
	s.mu.Unlock()
}

func (s *stats) failed(err error) {
	s.mu.Lock()
	s.lastError = err.Error()
	s.mu.Unlock()
}

// State implements link.Stater. It may be called from any goroutine.
func (l *Link) State() link.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := link.State{Up: true, Cars: len(l.ports)}
	declined := l.keeping.declined.Load()
	if declined != nil {
		out.Declined = *declined
	}
	for _, c := range l.conns {
		if declined != nil && c != l.conns[0] {
			continue
		}
		cs := c.state()
		cs.Cars = c.cars
		out.Connections = append(out.Connections, cs)
		out.Up = out.Up && cs.Up && cs.Refused == 0
		out.Refused += cs.Refused
		if out.RefusedTopic == "" {
			out.RefusedTopic = cs.RefusedTopic
		}
		if cs.Since.After(out.Since) {
			out.Since = cs.Since
		}
		if cs.LastError != "" && (out.LastError == "" || !cs.Up) {
			out.LastError = cs.LastError
		}
	}
	if err := l.keeping.dead.Load(); err != nil {
		out.Up, out.Stopped = false, (*err).Error()
		out.LastError = out.Stopped
	}
	return out
}

func (c *conn) state() link.ConnectionState {
	s := &c.stats
	s.mu.Lock()
	out := link.ConnectionState{ClientID: c.clientID, Up: s.up, Since: s.since, LastError: s.lastError}
	s.mu.Unlock()
	c.mu.Lock()
	out.InFlight, out.Queued = c.inflights, c.out.Queued()
	if !c.alive {
		out.InFlight = 0
	}
	out.Refused, out.RefusedTopic = c.deaf()
	out.Version, out.Kept, out.Continued = c.version.String(), c.persistent, c.continued
	out.Reading = c.alive && c.barrier.Open()
	out.Unacknowledged = len(c.owed)
	if c.persistent {
		out.ClientID = c.shardID()
	}
	c.mu.Unlock()
	if at := c.answeredAt.Load(); at > 0 {
		out.Answered = c.link.born.Add(time.Duration(at))
	}
	out.Connects = s.connects.Load()
	out.MessagesIn, out.BytesIn = s.messagesIn.Load(), s.bytesIn.Load()
	out.MessagesOut, out.BytesOut = s.messagesOut.Load(), s.bytesOut.Load()
	out.SubscriptionsRefused = s.refused.Load()
	out.DroppedQueueFull, out.DroppedLinkDown = s.queueFull.Load(), s.linkDown.Load()
	out.DroppedDiscarded, out.DroppedTooLarge = s.discarded.Load(), s.tooLarge.Load()
	out.IgnoredOversized, out.IgnoredForeign = s.oversized.Load(), s.foreign.Load()
	out.IgnoredRetained = s.retained.Load()
	out.Resumed, out.Backlog, out.Redelivered = s.resumed.Load(), s.backlog.Load(), s.redelivered.Load()
	out.BarriersGivenUp, out.Leftovers, out.TakenOver = s.barrierGivenUp.Load(), s.leftovers.Load(), s.takenOver.Load()
	out.FlushFailed, out.MessagesRefused = s.flushFailed.Load(), s.refusedMessages.Load()
	out.IgnoredBadName, out.IgnoredRepeatedForeign = s.badName.Load(), s.repeated.Load()
	return out
}

// deaf counts the cars, and the watched companies, whose subscription the broker refuses,
// and names one topic; c.mu is held.
func (c *conn) deaf() (n int, topic string) {
	if c.stats.refused.Load() == 0 { // usually, and there may be many cars
		return 0, ""
	}
	for _, w := range c.watches {
		if w.denied {
			n++
			topic = w.filter
		}
	}
	for _, p := range c.ports {
		if p.denied {
			n++
			if topic == "" || p.in < topic {
				topic = p.in
			}
		}
	}
	return n, topic
}
