package mqtt

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"log/slog"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link/mqtt/wire"
)

// filtersPerPacket keeps a SUBSCRIBE below the packet limits of common brokers.
const filtersPerPacket = 200

// refusedRetry is the pause after which refused topics are asked for again: the
// rights at the broker may have been changed.
const refusedRetry = 30 * time.Second

// watch is the subscription to all cars of a company.
type watch struct {
	conn    *conn
	company string
	filter  string
	unknown func(fleet.CarID)

	// Guarded by conn.mu.
	granted, refused bool
}

// request is a SUBSCRIBE or UNSUBSCRIBE that was not answered yet.
type request struct {
	sent    time.Time
	ports   []*port // SUBSCRIBE: one per filter
	watch   *watch  // SUBSCRIBE of one watch
	filters int     // SUBSCRIBE: how many
	initial bool    // belongs to the restoration after a connect
	then    func()  // called with c.mu held
}

// Watch implements link.Link. A company can be watched once at a time. Cars that
// are attached over another connection keep their own subscription; all others
// are served by the watch alone.
func (l *Link) Watch(company string, unknown func(fleet.CarID)) (func(), error) {
	if !validName(company) {
		return nil, fmt.Errorf("company %q: expected a-z, 0-9 and _", company)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watches[company] != nil {
		return nil, fmt.Errorf("company %s is watched already", company)
	}
	c := l.conns[0]
	w := &watch{conn: c, company: company, filter: company + "/+/module_gateway", unknown: unknown}
	l.watches[company] = w
	c.mu.Lock()
	c.watches[company] = w
	if c.alive {
		c.open(company)
		c.subscribeWatch(w, false)
	}
	c.unlockAndWake()
	return func() { l.unwatch(w) }, nil
}

func (l *Link) unwatch(w *watch) {
	l.mu.Lock()
	if l.watches[w.company] == w {
		delete(l.watches, w.company)
	}
	l.mu.Unlock()
	c := w.conn
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
			if pending--; pending == 0 && c.watches[w.company] == nil {
				c.unsubscribe(func() { c.close(w.company) }, w.filter)
			}
		}
		for _, batch := range batches(c.exact(w.company, false)) {
			pending++
			c.subscribePorts(batch, false, done)
		}
		done()
	}
	c.unlockAndWake()
}

// covered tells whether a watch brings the messages of a port; c.mu is held.
func (c *conn) covered(p *port) bool {
	w := c.watches[p.id.Company]
	return w != nil && !w.refused
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

// attach adds a port and subscribes it if the broker is connected.
func (c *conn) attach(p *port) {
	c.mu.Lock()
	c.ports[p.in] = p
	if c.alive {
		switch {
		case !c.covered(p):
			c.joining = append(c.joining, p)
		case c.watches[p.id.Company].granted:
			// The reader says LinkUp with the next packet, so ask for one.
			c.up = append(c.up, p)
			c.control = wire.AppendPingreq(c.control)
		}
	}
	c.unlockAndWake()
}

// subscribeAll restores all subscriptions after a connect; c.mu is held.
func (c *conn) subscribeAll() {
	for _, w := range c.watches {
		c.subscribeWatch(w, true)
	}
	var ports []*port
	for _, p := range c.ports {
		if !c.covered(p) {
			ports = append(ports, p)
		}
	}
	for _, batch := range batches(ports) {
		c.subscribePorts(batch, true, nil)
	}
}

func batches[T any](all []T) [][]T {
	var out [][]T
	for len(all) > filtersPerPacket {
		out = append(out, all[:filtersPerPacket:filtersPerPacket])
		all = all[filtersPerPacket:]
	}
	if len(all) > 0 {
		out = append(out, all)
	}
	return out
}

// requestTopics encodes what Attach and Close have asked for since the last
// time; c.mu is held.
func (c *conn) requestTopics() {
	if len(c.leaving) > 0 {
		for _, batch := range batches(c.leaving) {
			c.unsubscribe(nil, batch...)
		}
		c.leaving = nil
	}
	if len(c.joining) == 0 {
		return
	}
	open := c.joining[:0]
	for _, p := range c.joining {
		if !p.closed && !p.subscribed && !c.covered(p) {
			open = append(open, p)
		}
	}
	c.joining = nil
	for _, batch := range batches(open) {
		c.subscribePorts(batch, false, nil)
	}
}

func (c *conn) subscribePorts(ports []*port, initial bool, then func()) {
	filters := make([]string, len(ports))
	for i, p := range ports {
		filters[i] = p.in
		p.subscribed, p.refused = true, false
	}
	c.subscribe(&request{ports: ports, initial: initial, then: then}, filters...)
}

func (c *conn) subscribeWatch(w *watch, initial bool) {
	w.granted, w.refused = false, false
	c.subscribe(&request{watch: w, initial: initial}, w.filter)
}

func (c *conn) subscribe(r *request, filters ...string) {
	r.filters = len(filters)
	if r.initial {
		c.initial++
	}
	c.control = wire.AppendSubscribe(c.control, c.register(r), 1, filters...)
}

func (c *conn) unsubscribe(then func(), filters ...string) {
	c.control = wire.AppendUnsubscribe(c.control, c.register(&request{then: then}), filters...)
}

// register returns a packet identifier for a request. There are 4096 and each
// stands for up to 200 topics; a broker that leaves so many unanswered has been
// given up by then.
func (c *conn) register(r *request) uint16 {
	r.sent = time.Now()
	for range 1 << 12 {
		if c.lastSubID++; c.lastSubID < firstSubID {
			c.lastSubID = firstSubID
		}
		if c.requests[c.lastSubID] == nil {
			break
		}
	}
	c.requests[c.lastSubID] = r
	return c.lastSubID
}

// answered handles SUBACK and UNSUBACK.
func (c *conn) answered(a *wire.Packet) error {
	c.mu.Lock()
	defer c.unlockAndNote()
	c.batch = true
	r := c.requests[a.ID]
	if r == nil {
		return fmt.Errorf("%w: %v for a packet that was not sent", wire.ErrMalformed, a.Type)
	}
	if (a.Type == wire.Suback) != (r.filters > 0) || len(a.Codes) != r.filters {
		return fmt.Errorf("%w: %v with %d results for %d topics", wire.ErrMalformed, a.Type, len(a.Codes), r.filters)
	}
	delete(c.requests, a.ID)
	for i, code := range a.Codes {
		if code > 2 && code < wire.SubackRefused { // some brokers use the codes of MQTT 5
			return fmt.Errorf("%w: SUBACK with result %#x", wire.ErrMalformed, code)
		}
		if r.watch != nil {
			c.watchAnswered(r.watch, code)
		} else {
			c.portAnswered(r.ports[i], code)
		}
	}
	if r.then != nil {
		r.then()
	}
	if r.initial {
		if c.initial--; c.initial == 0 {
			c.complete()
		}
	}
	return nil
}

func (c *conn) portAnswered(p *port, code byte) {
	switch {
	case p.closed:
	case code >= wire.SubackRefused:
		p.refused, p.subscribed = true, false
		c.refused(p.in)
		c.up = append(c.up, p)
	default:
		c.weaker(p.in, code)
		c.up = append(c.up, p)
	}
}

func (c *conn) watchAnswered(w *watch, code byte) {
	if c.watches[w.company] != w {
		return // ended meanwhile
	}
	if code >= wire.SubackRefused {
		w.refused = true
		c.refused(w.filter)
		c.joining = append(c.joining, c.exact(w.company, false)...)
		c.close(w.company)
		return
	}
	w.granted = true
	c.weaker(w.filter, code)
	var topics []string
	for _, p := range c.ports {
		if p.id.Company != w.company {
			continue
		}
		if p.subscribed {
			topics = append(topics, p.in)
			p.subscribed = false
		}
		c.up = append(c.up, p)
	}
	left := batches(topics)
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

func (c *conn) refused(topic string) {
	c.stats.refused.Add(1)
	c.stats.refusedAt = time.Now()
	c.notes = append(c.notes, func() {
		c.link.reports.limit.Log(c.log, slog.LevelWarn, "the broker refuses a subscription; no message can arrive: "+
			"allow the user of this server to read the topic", slog.String("topic", topic),
			slog.String("user", c.link.opts.Username), slog.String("next_attempt_in", refusedRetry.String()))
	})
}

func (c *conn) weaker(topic string, code byte) {
	if code == 0 { // CONN-5
		c.notes = append(c.notes, func() {
			c.link.reports.limit.Log(c.log, slog.LevelWarn, "the broker grants only QoS 0; messages may be lost", slog.String("topic", topic))
		})
	}
}

// retryRefused asks again for what was refused; c.mu is held.
func (c *conn) retryRefused(now time.Time) {
	if c.stats.refused.Load() == 0 || now.Sub(c.stats.refusedAt) < refusedRetry {
		return
	}
	c.stats.refusedAt = now
	for _, w := range c.watches {
		if w.refused {
			c.open(w.company)
			c.subscribeWatch(w, false)
		}
	}
	for _, p := range c.ports {
		if p.refused && !c.covered(p) {
			p.refused = false
			c.joining = append(c.joining, p)
		}
	}
}

// overlap removes the second copies of messages while both the topic of a car
// and the watch of its company are subscribed: brokers send one copy for both or
// one for each, and MQTT 3.1.1 has no mark that tells.
type overlap struct {
	seed   maphash.Seed
	seen   map[uint64]struct{} // delivered once
	expiry time.Time           // zero: both are subscribed
}

// A broker may send messages that it had queued after it has answered.
const overlapAfter = 2 * time.Second

// maxOverlap bounds the memory of an overlap.
const maxOverlap = 1 << 16

func (c *conn) open(company string) {
	c.overlaps[company] = &overlap{seed: maphash.MakeSeed(), seen: make(map[uint64]struct{})}
}

func (c *conn) close(company string) {
	if o := c.overlaps[company]; o != nil {
		o.expiry = time.Now().Add(overlapAfter)
	}
}

func (c *conn) expireOverlaps(now time.Time) {
	for company, o := range c.overlaps {
		if !o.expiry.IsZero() && now.After(o.expiry) {
			delete(c.overlaps, company)
		}
	}
}

// repeated tells whether m is the second copy of a message; c.mu is held.
func (c *conn) repeated(o *overlap, company string, m *wire.Packet) bool {
	var h maphash.Hash
	h.SetSeed(o.seed)
	h.Write(m.Topic)
	h.WriteByte(0)
	h.Write(m.Payload)
	sum := h.Sum64()
	if _, ok := o.seen[sum]; ok {
		delete(o.seen, sum)
		return true
	}
	if len(o.seen) < maxOverlap && (o.expiry.IsZero() || time.Now().Before(o.expiry)) {
		o.seen[sum] = struct{}{}
	}
	return false
}

// splitTopic takes company and car out of a gateway's topic (CONN-2).
func splitTopic(topic []byte) (company, car []byte, ok bool) {
	rest, ok := bytes.CutSuffix(topic, []byte("/module_gateway"))
	if !ok {
		return nil, nil, false
	}
	company, car, ok = bytes.Cut(rest, []byte("/"))
	return company, car, ok && !bytes.Contains(car, []byte("/"))
}
