package mqtt

import (
	"fmt"
	"time"

	"external-server/internal/link/mqtt/liveness"
	"external-server/internal/link/mqtt/wire"
)

// tick looks after what time has to do with; it returns an error when the broker gives no
// sign of life, or acknowledges nothing.
func (c *conn) tick(now time.Time, alive *liveness.Pinger) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ask, err := alive.Look(now, c.signs())
	if err != nil {
		return err
	}
	if ask {
		c.ping()
	}
	c.retryRefused(now)
	c.expireOverlaps()
	c.doDelayed(now)
	patience := c.link.opts.AckTimeout
	if err := c.messages.Check(now, patience); err != nil {
		return err
	}
	return c.requests.Check(now, patience)
}

func (c *conn) signs() liveness.Signs {
	return liveness.Signs{Answered: c.answeredAt.Load(), Reads: c.reads.Load()}
}

// ping asks for a sign of life; c.mu is held.
func (c *conn) ping() {
	c.control = wire.AppendPingreq(c.control)
	c.pings.Ask()
}

// Prove asks the broker whether the link's connections are still the ones of their client identifiers. Proved tells
// when it has answered.
func (l *Link) Prove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.mu.Lock()
		if c.alive && c.pings.Prove(time.Now()) {
			c.ping()
		}
		c.unlockAndWake()
	}
}

// Proved returns the last time at which the connections certainly were the ones of their client identifiers;
// zero: of the present connections that is not known.
func (l *Link) Proved() (at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, c := range l.conns {
		c.mu.Lock()
		proved := c.pings.Proved()
		if !c.alive {
			proved = time.Time{}
		}
		c.mu.Unlock()
		if i == 0 || proved.Before(at) {
			at = proved
		}
	}
	return at
}

// Witness tells the link when the broker last answered over a connection of another link. It needs Options.Heartbeat,
// and is to be called more often than that. If nothing comes over a connection while others are answered for two
// heartbeats, the connection counts as lost and is made anew.
func (l *Link) Witness(others time.Time) {
	h := l.opts.Heartbeat
	if h <= 0 || others.IsZero() {
		return
	}
	l.mu.Lock()
	conns := l.conns[:len(l.conns):len(l.conns)]
	l.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		silent, drop := c.witness.Look(c.signs(), others, c.waits(), h), c.drop
		c.mu.Unlock()
		if silent >= 2*h && drop != nil {
			drop(fmt.Errorf("the broker has not answered for %v over this connection, and has over others", silent.Round(time.Millisecond)))
		}
	}
}

// waits tells whether this side has done its part: a question has left, or the broker does not take
// it, and everything that has come was read; c.mu is held.
func (c *conn) waits() bool {
	asked := c.pings.Unanswered() && len(c.control) == 0 && !c.flushing.Load()
	return c.alive && c.reading.Load() && (asked || c.writing.Load())
}
