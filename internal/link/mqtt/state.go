package mqtt

import (
	"time"

	"external-server/internal/link"
)

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
	c.mu.Lock()
	out := c.stats.State()
	out.ClientID = c.clientID
	out.InFlight, out.Queued = c.messages.Len(), c.out.Queued()
	if !c.alive {
		out.InFlight = 0
	}
	out.Refused, out.RefusedTopic = c.deaf()
	out.Version, out.Kept, out.Continued = c.Version.String(), c.Persistent, c.Continued
	out.Reading = c.alive && c.barrier.Open()
	out.Unacknowledged = c.owed.Len()
	if c.Persistent {
		out.ClientID = c.shardID()
	}
	c.mu.Unlock()
	if at := c.answeredAt.Load(); at > 0 {
		out.Answered = c.link.born.Add(time.Duration(at))
	}
	return out
}

// deaf counts the cars, and the watched companies, whose subscription the broker refuses,
// and names one topic; c.mu is held.
func (c *conn) deaf() (n int, topic string) {
	if c.stats.Refused.Load() == 0 { // usually, and there may be many cars
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
