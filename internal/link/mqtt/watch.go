package mqtt

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link/mqtt/topics"
	"external-server/internal/link/mqtt/wire"
)

// watch is the subscription to all cars of a company.
type watch struct {
	conn    *conn
	company string
	filter  string
	unknown func(fleet.CarID, []byte)

	// Guarded by conn.mu.
	granted, refused bool
	denied           bool // the last answer was a refusal; stays while it is asked again
}

// Watch implements link.Link. A company can be watched once at a time. Cars that
// are attached over another connection keep their own subscription; all others
// are served by the watch alone.
func (l *Link) Watch(company string, unknown func(fleet.CarID, []byte)) (func(), error) {
	if !topics.Valid(company) {
		return nil, fmt.Errorf("company %q: expected a-z, 0-9 and _", company)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watches[company] != nil {
		return nil, fmt.Errorf("company %s is watched already", company)
	}
	c := l.watcher()
	w := &watch{conn: c, company: company, filter: company + "/+" + fleet.TopicFromGateway, unknown: unknown}
	l.watches[company] = w
	c.addWatch(w)
	return func() { l.unwatch(w) }, nil
}

// watcher returns the connection of the watches. With Sessions it is one that serves no
// car: a session must not keep what other cars send. l.mu is held.
func (l *Link) watcher() *conn {
	if l.opts.Sessions == nil || l.keeping.declined.Load() != nil {
		return l.conns[0]
	}
	last := l.conns[len(l.conns)-1]
	if !last.scout {
		last = newConn(l, len(l.conns))
		last.scout = true
		l.keeping.scouts.Store(1)
		l.conns = append(l.conns, last)
		l.start(last)
	}
	return last
}

// addWatch subscribes a watch if the broker is connected.
func (c *conn) addWatch(w *watch) {
	c.mu.Lock()
	c.watches[w.company] = w
	if c.alive {
		c.open(w.company)
		c.subscribeWatch(w, false)
	}
	c.unlockAndWake()
}

func (l *Link) watchOf(company []byte) *watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.watches[string(company)]
}

func (l *Link) unwatch(w *watch) {
	l.mu.Lock()
	if l.watches[w.company] == w {
		delete(l.watches, w.company)
	}
	c := w.conn
	l.mu.Unlock()
	c.mu.Lock()
	if c.watches[w.company] != w {
		c.mu.Unlock()
		return
	}
	delete(c.watches, w.company)
	if c.alive {
		c.open(w.company)
		pending := 1
		done := func() {
			if pending--; pending == 0 {
				c.later(func() {
					if c.watches[w.company] == nil {
						c.unsubscribe(func() { c.close(w.company) }, w.filter)
					}
				})
			}
		}
		for _, batch := range topics.Batches(c.exact(w.company, false)) {
			pending++
			c.subscribePorts(batch, false, done)
		}
		done()
	}
	c.unlockAndWake()
}

// exact returns the open ports of a company whose exact topic is, or is not,
// subscribed; c.mu is held.
func (c *conn) exact(company string, subscribed bool) []*port {
	var out []*port
	for _, p := range c.ports {
		if p.id.Company == company && p.subscribed == subscribed {
			out = append(out, p)
		}
	}
	return out
}

func (c *conn) watchAnswered(w *watch, code byte) {
	if c.watches[w.company] != w {
		return // ended meanwhile
	}
	if code >= wire.SubackRefused {
		w.refused, w.denied = true, true
		c.refused(w.filter)
		c.joining = append(c.joining, c.exact(w.company, false)...)
		c.close(w.company)
		return
	}
	w.granted, w.denied = true, false
	c.weaker(w.filter, code)
	var exact []string
	for _, p := range c.ports {
		if p.id.Company != w.company {
			continue
		}
		p.denied = false
		if p.subscribed {
			exact = append(exact, p.in)
			p.subscribed = false
		}
		c.up = append(c.up, p)
	}
	if len(exact) == 0 {
		c.close(w.company)
		return
	}
	c.later(func() { c.leaveExact(w, exact) })
}

// leaveExact unsubscribes the cars' own topics, unless the watch has ended meanwhile and
// they are needed again.
func (c *conn) leaveExact(w *watch, exact []string) {
	if c.watches[w.company] != w {
		return
	}
	exact = slices.DeleteFunc(exact, func(topic string) bool {
		p := c.ports[topic]
		return p != nil && p.subscribed
	})
	left := topics.Batches(exact)
	if len(left) == 0 {
		c.close(w.company)
	}
	for i, batch := range left {
		var then func()
		if i == len(left)-1 {
			then = func() { c.close(w.company) }
		}
		c.unsubscribe(then, batch...)
	}
}

// bothFor is for how long the watch and the cars' own topics stay subscribed together. A
// broker that looks for the receivers of a message while the one takes the place of the
// other may have looked for the new one before it came, and for the old one after it went.
const bothFor = time.Second

// later does something, with c.mu held, when both kinds of topics were subscribed for
// bothFor; c.mu is held.
func (c *conn) later(do func()) { c.delayed = append(c.delayed, delayed{time.Now().Add(bothFor), do}) }

// delayed is what a connection will do.
type delayed struct {
	at time.Time
	do func()
}

// doDelayed does what is due; c.mu is held.
func (c *conn) doDelayed(now time.Time) {
	for len(c.delayed) > 0 && !now.Before(c.delayed[0].at) {
		first := c.delayed[0]
		c.delayed = c.delayed[1:]
		first.do()
	}
}

func (c *conn) open(company string) {
	c.overlaps[company] = topics.NewOverlap()
}

func (c *conn) close(company string) {
	if o := c.overlaps[company]; o != nil {
		o.End()
	}
}

func (c *conn) expireOverlaps() {
	maps.DeleteFunc(c.overlaps, func(_ string, o *topics.Overlap) bool { return o.Over() })
}
