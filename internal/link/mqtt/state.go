package mqtt

import (
	"sync"
	"sync/atomic"
	"time"
)

// State is what can be said about the link at one moment.
type State struct {
	// Up tells whether every connection is made and its subscriptions are
	// restored.
	Up bool
	// Since is when Up last changed for one of the connections; zero: not yet
	// connected.
	Since time.Time
	// LastError is why the last connection failed or was lost; "" if none was.
	LastError string
	Cars      int // attached
	// Stopped is why the link has stopped serving for good; "" if it has not.
	Stopped string
	// Declined is why sessions are not kept although they should be; "" if they are. A
	// broker that keeps none shows in the connections only.
	Declined    string
	Connections []ConnectionState
}

// ConnectionState describes one connection. Counters count since the start.
type ConnectionState struct {
	ClientID               string
	Up                     bool
	Since                  time.Time
	LastError              string
	Cars                   int
	Connects               uint64 // successful ones; all but the first are reconnects
	MessagesIn, BytesIn    uint64
	MessagesOut, BytesOut  uint64
	InFlight, Queued       int
	SubscriptionsRefused   uint64
	DroppedQueueFull       uint64 // Publish found the queue of the car full
	DroppedLinkDown        uint64 // queued or published while the connection was lost
	DroppedDiscarded       uint64 // DiscardPending and Close (DEF-20)
	DroppedTooLarge        uint64 // Publish was given more than MaxPayload
	IgnoredOversized       uint64 // received, payload above MaxPayload
	IgnoredForeign         uint64 // received, of no attached car
	IgnoredRetained        uint64 // received, kept by the broker from before the subscription
	IgnoredBadName         uint64 // received for a watch, name of the car not allowed
	IgnoredRepeatedForeign uint64 // second copies while a watch began or ended

	Version         string // of MQTT: "3.1.1" or "5"
	Kept            bool   // the broker keeps the session when the connection is lost
	Continued       bool   // it had kept the session before this connection
	Unacknowledged  int    // received, not acknowledged yet by the receivers
	Resumed         uint64 // connections whose session continued
	Backlog         uint64 // messages that the broker had kept
	Redelivered     uint64 // messages that the broker sent once more
	BarriersGivenUp uint64 // ends of the backlog that could not be told
	Leftovers       uint64 // cars that a kept session knew and this process did not
	TakenOver       uint64 // times that another server had the connection meanwhile
	FlushFailed     uint64 // calls of Sessions.Flush
	MessagesRefused uint64 // by the broker
}

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

// State may be called from any goroutine.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := State{Up: true, Cars: len(l.ports)}
	if err := l.keeping.dead.Load(); err != nil {
		out.Stopped, out.Up = (*err).Error(), false
	}
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
		out.Up = out.Up && cs.Up
		if cs.Since.After(out.Since) {
			out.Since = cs.Since
		}
		if cs.LastError != "" && (out.LastError == "" || !cs.Up) {
			out.LastError = cs.LastError
		}
	}
	if out.Stopped != "" {
		out.LastError = out.Stopped
	}
	return out
}

func (c *conn) state() ConnectionState {
	s := &c.stats
	s.mu.Lock()
	out := ConnectionState{ClientID: c.clientID, Up: s.up, Since: s.since, LastError: s.lastError}
	s.mu.Unlock()
	c.mu.Lock()
	out.InFlight, out.Queued = c.inflights, c.queued
	if !c.alive {
		out.InFlight = 0
	}
	out.Version, out.Kept, out.Continued = c.version.String(), c.persistent, c.continued
	out.Unacknowledged = len(c.owed)
	if c.persistent {
		out.ClientID = c.shardID()
	}
	c.mu.Unlock()
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
