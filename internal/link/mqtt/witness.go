package mqtt

import (
	"fmt"
	"time"
)

// witness judges one connection by what the broker answers over others. A network may lose one
// connection among many without a word, and the keepalive notices that late. The time that counts is
// not that of a clock: it passes while the broker answers others, and stands still while it answers no
// connection at all, or while this process does not run.
type witness struct {
	signs  signs
	others time.Time     // newest answer over another connection
	silent time.Duration // for how long others have been answered since the last sign
}

// signs are what a connection knows of its broker.
type signs struct {
	answered int64  // conn.answeredAt
	reads    uint64 // conn.reads
}

// look takes in what is known now and returns for how long the broker was silent. fair says that the silence is
// the broker's: it was asked, and this process waits for its answer. most bounds what counts of
// the time between two answers to others: a broker that stood still begins with one of its connections.
func (w *witness) look(now signs, others time.Time, fair bool, most time.Duration) time.Duration {
	passed := time.Duration(0)
	if !w.others.IsZero() {
		passed = max(0, min(others.Sub(w.others), most))
	}
	if others.After(w.others) {
		w.others = others
	}
	switch {
	case now != w.signs:
		w.signs, w.silent = now, 0
	case fair:
		w.silent += passed
	}
	return w.silent
}

// Witness tells the link when the broker has answered over a connection of another link, last. It is to be called more
// often than Options.Heartbeat says, which it needs. A connection over which nothing comes while others are answered
// for two heartbeats is lost, and made anew.
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
		silent, drop := c.witness.look(signs{c.answeredAt.Load(), c.reads.Load()}, others, c.waits(), h), c.drop
		c.mu.Unlock()
		if silent >= 2*h && drop != nil {
			drop(fmt.Errorf("the broker has not answered for %v over this connection, and has over others", silent.Round(time.Millisecond)))
		}
	}
}

// waits tells whether this side has done its part: a question has left, or the broker does not take
// it, and everything that has come was read; c.mu is held.
func (c *conn) waits() bool {
	asked := c.proof.asked > c.proof.answered && len(c.control) == 0 && !c.flushing.Load()
	return c.alive && c.reading.Load() && (asked || c.writing.Load())
}
