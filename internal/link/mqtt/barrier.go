package mqtt

import (
	"log/slog"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt/barrier"
	"external-server/internal/link/mqtt/outbox"
	"external-server/internal/link/mqtt/wire"
)

// See package barrier for what it does and why.

// beginBarrier asks for the private topic; c.mu is held.
func (c *conn) beginBarrier() {
	c.greetings, c.greetingID = outbox.Box{Topic: privatePrefix + c.shardID()}, 0
	c.barrier.Begin(time.Now(), c.Continued, c.stats.MessagesIn.Load())
	c.subscribe(request{private: true}, false, c.greetings.Topic)
	if !c.served {
		c.greet() // whatever is found there is of an earlier process
	}
}

// greet queues the next greeting; c.mu is held.
func (c *conn) greet() {
	if !c.greetings.Empty() || c.link.keeping.dead.Load() != nil { // the window is full, or we are silent for good
		return
	}
	g := barrier.Greeting{Connection: c.generation, Number: c.barrier.Send(), Token: c.link.keeping.token, Self: c.link.opts.Sessions.Self}
	c.out.Push(&c.greetings, outbox.Message{Payload: g.Encode(), Retain: c.Retain})
}

// privateAnswered handles the answer to the subscription; c.mu is held.
func (c *conn) privateAnswered(code byte) {
	switch {
	case code == 0 || code >= wire.SubackRefused:
		c.privateRefused()
	case c.barrier.Granted():
		c.ping()
	}
}

// privateRefused gives the private topic up; c.mu is held.
func (c *conn) privateRefused() {
	c.barrier.Refuse()
	topic := c.greetings.Topic
	c.notes = append(c.notes, func() {
		if !c.link.keeping.said.noBarrier.Swap(true) {
			c.log.Warn("the broker refuses a topic that this server has for itself, so it cannot tell when it has read what was sent during a restart: "+
				"allow the user of this server to read and write "+privatePrefix+"#", slog.String("topic", topic), slog.String("user", c.link.tuning.Load().Username))
		}
	})
}

// checkBarrier repeats or gives up; c.mu is held.
func (c *conn) checkBarrier(now time.Time) {
	again, givenUp := c.barrier.Look(now)
	if again {
		c.greet()
	}
	if givenUp {
		c.stats.BarrierGivenUp.Add(1)
		c.ping() // the reader goes on with its answer
		c.notes = append(c.notes, func() {
			c.log.Warn("what the broker held may not have been read completely: the message that follows it has not come back; it needs the right to read and write "+privatePrefix+"#", "after", barrier.Limit.String())
		})
	}
}

// slowBacklog tells receivers that nothing has come for a while, although what the
// broker held is not read: it may have a window that is full.
func (c *conn) slowBacklog() {
	c.mu.Lock()
	var told []link.Withholder
	if c.barrier.Slow(c.stats.MessagesIn.Load()) {
		for _, p := range c.ports {
			if w, ok := p.receiver.(link.Withholder); ok && p.continues && p.up {
				told = append(told, w)
			}
		}
	}
	c.mu.Unlock()
	for _, w := range told {
		w.BacklogSlow()
	}
}

// pastBarrier tells the receivers that the backlog is read.
func (c *conn) pastBarrier() {
	c.mu.Lock()
	if !c.barrier.Pass() {
		c.mu.Unlock()
		return
	}
	var told []link.Receiver
	for _, p := range c.ports {
		if p.continues && p.up {
			p.continues = false
			told = append(told, p.receiver)
		}
	}
	c.mu.Unlock()
	for _, r := range told {
		r.BacklogRead()
	}
}

// private handles a message on a private topic of ours or of another shard.
func (c *conn) private(m *wire.Packet) {
	g, ok := barrier.Parse(m.Payload)
	if !ok {
		return // a stranger's
	}
	own := string(m.Topic) == privatePrefix+c.shardID()
	if !own {
		if g.Token == c.link.keeping.token {
			c.link.fallBack(oneIdentifier)
		}
		return
	}
	if g.Token != c.link.keeping.token {
		c.metRival(g)
		return
	}
	c.mu.Lock()
	c.barrier.Back(g.Number, m.Retain)
	c.mu.Unlock()
}

// metRival counts the take-overs by another process. The first shard alone decides: otherwise each of
// the two could give way over another shard.
func (c *conn) metRival(g barrier.Greeting) {
	c.mu.Lock()
	// What another process has left comes before this connection's first greeting; afterwards only a
	// stranger can publish there.
	late := c.served && c.barrier.Greeted()
	takenOver, again := false, false
	if !late {
		takenOver, again = c.rival.Meet(g, time.Now(), !c.served)
	}
	c.mu.Unlock()
	if !takenOver {
		return
	}
	c.stats.TakenOver.Add(1)
	c.link.reports.Limit.Log(c.log, slog.LevelWarn, "another server has taken this connection over and was taken over in turn",
		slog.String("other", g.Self), slog.String("this", c.link.opts.Sessions.Self))
	if !c.link.opts.Sessions.fenced() && c.index == 0 && again {
		c.link.giveWay(g.Self)
	}
}
