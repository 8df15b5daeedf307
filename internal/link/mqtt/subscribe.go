package mqtt

import (
	"log/slog"
	"time"

	"external-server/internal/link/mqtt/topics"
	"external-server/internal/link/mqtt/wire"
)

// refusedRetry is the pause after which refused topics are asked for again: the
// rights at the broker may have been changed.
const refusedRetry = 30 * time.Second

// request is what a SUBSCRIBE or UNSUBSCRIBE is for.
type request struct {
	ports   []*port // SUBSCRIBE: one per filter
	watch   *watch  // SUBSCRIBE of one watch
	private bool    // SUBSCRIBE of the private topic
	then    func()  // called with c.mu held
}

// covered tells whether a watch brings the messages of a port; c.mu is held.
func (c *conn) covered(p *port) bool {
	w := c.watches[p.id.Company]
	return w != nil && !w.refused
}

// attach adds a port and subscribes it if the broker is connected.
func (c *conn) attach(p *port) {
	c.mu.Lock()
	c.ports[p.in] = p
	delete(c.leftovers, p.in)
	if c.alive {
		switch {
		case !c.covered(p):
			c.joining = append(c.joining, p)
		case c.watches[p.id.Company].granted:
			// The reader says LinkUp with the next packet, so ask for one.
			c.up = append(c.up, p)
			c.ping()
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
	for _, batch := range topics.Batches(ports) {
		c.subscribePorts(batch, true, nil)
	}
}

// requestTopics encodes what Attach and Close have asked for since the last
// time; c.mu is held.
func (c *conn) requestTopics() {
	if len(c.leaving) > 0 {
		for _, batch := range topics.Batches(c.leaving) {
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
	for _, batch := range topics.Batches(open) {
		c.subscribePorts(batch, false, nil)
	}
}

func (c *conn) subscribePorts(ports []*port, initial bool, then func()) {
	filters := make([]string, len(ports))
	for i, p := range ports {
		filters[i] = p.in
		p.subscribed, p.refused = true, false
	}
	c.subscribe(request{ports: ports, then: then}, initial, filters...)
}

func (c *conn) subscribeWatch(w *watch, initial bool) {
	w.granted, w.refused = false, false
	c.subscribe(request{watch: w}, initial, w.filter)
}

func (c *conn) subscribe(r request, initial bool, filters ...string) {
	options := byte(1)
	switch {
	case c.scout:
		options = 0 // beside the messages themselves acknowledgements would cost too much
	case c.Continued && initial:
		options |= wire.RetainNever
	}
	c.control = c.Version.AppendSubscribe(c.control, c.requests.Add(r, len(filters), initial, time.Now()), options, filters...)
}

func (c *conn) unsubscribe(then func(), filters ...string) {
	c.control = c.Version.AppendUnsubscribe(c.control, c.requests.Add(request{then: then}, 0, false, time.Now()), filters...)
}

// answered handles SUBACK and UNSUBACK.
func (c *conn) answered(a *wire.Packet) error {
	c.mu.Lock()
	defer c.unlockAndNote()
	c.batch = true
	r, initial, err := c.requests.Answer(a)
	if err != nil {
		return err
	}
	codes := a.Codes
	if a.Type == wire.Unsuback {
		codes = nil // there is nothing to be done about a refusal
	}
	for i, code := range codes {
		switch {
		case r.private:
			c.privateAnswered(code)
		case r.watch != nil:
			c.watchAnswered(r.watch, code)
		default:
			c.portAnswered(r.ports[i], code)
		}
	}
	if r.then != nil {
		r.then()
	}
	if initial && c.requests.Restored() {
		c.complete()
	}
	return nil
}

func (c *conn) portAnswered(p *port, code byte) {
	switch {
	case p.closed:
	case code >= wire.SubackRefused:
		p.refused, p.denied, p.subscribed = true, true, false
		c.refused(p.in)
		c.up = append(c.up, p)
	default:
		p.denied = false
		c.weaker(p.in, code)
		c.up = append(c.up, p)
		p.granted()
	}
}

func (c *conn) refused(topic string) {
	c.stats.Refused.Add(1)
	c.refusedAt = time.Now()
	c.notes = append(c.notes, func() {
		c.link.reports.Limit.Log(c.log, slog.LevelWarn, "the broker refuses a subscription; no message can arrive: "+
			"allow the user of this server to read the topic", slog.String("topic", topic),
			slog.String("user", c.link.tuning.Load().Username), slog.String("next_attempt_in", refusedRetry.String()))
	})
}

func (c *conn) weaker(topic string, code byte) {
	if code == 0 && !c.scout { // CONN-5
		c.notes = append(c.notes, func() {
			c.link.reports.Limit.Log(c.log, slog.LevelWarn, "the broker grants only QoS 0; messages may be lost", slog.String("topic", topic))
		})
	}
}

// retryRefused asks again for what was refused; c.mu is held.
func (c *conn) retryRefused(now time.Time) {
	if c.stats.Refused.Load() == 0 || now.Sub(c.refusedAt) < refusedRetry {
		return
	}
	c.refusedAt = now
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
