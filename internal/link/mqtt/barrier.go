package mqtt

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt/outbox"
	"external-server/internal/link/mqtt/wire"
)

// The broker does not say when it has sent all that it held. So the connection sends a
// numbered message to itself, over a topic that it alone has: when it comes back, what
// the broker held has come before it. A broker whose queue is full acknowledges and drops
// it, so it is repeated (RES-15).
//
// It is retained and names its sender: a process that finds another one's when it
// comes back has a rival.

const (
	barrierEvery = 500 * time.Millisecond
	barrierLimit = 5 * time.Second
	// rivalWithin is the time in which a second take-over makes the link give way.
	rivalWithin = 60 * time.Second
)

// barrier belongs to one connection; guarded by conn.mu.
type barrier struct {
	box     *outbox.Box // of its topic
	first   uint64
	sent    uint64 // number of the last message
	packet  uint16 // and its packet identifier
	since   time.Time
	open    bool // the backlog is being read
	over    bool // the reader is to end it, see pastBarrier
	refused bool
	probing bool   // waits for the broker's answer before the first message
	heard   uint64 // messages of the connection at the last look
	quiet   int    // looks since which none has come
}

// beginBarrier asks for the private topic; c.mu is held.
func (c *conn) beginBarrier() {
	topic := privatePrefix + c.shardID()
	b := &c.barrier
	b.box = &outbox.Box{Topic: topic}
	b.first = b.sent + 1
	b.since, b.open, b.over = time.Now(), c.continued, false
	b.refused, b.probing, b.packet = false, false, 0
	b.heard, b.quiet = c.stats.messagesIn.Load(), 0
	c.subscribe(&request{private: true}, topic)
	if !c.served {
		c.sendBarrier() // whatever is found there is of an earlier process
	}
}

// sendBarrier queues the next message; c.mu is held.
func (c *conn) sendBarrier() {
	b := &c.barrier
	if !b.box.Empty() || c.link.keeping.dead.Load() != nil { // the window is full, or we are silent for good
		return
	}
	b.sent++
	m := greeting{c.generation, b.sent, c.link.keeping.token, c.link.opts.Sessions.Self}
	c.out.Push(b.box, outbox.Message{Payload: m.encode(), Retain: c.retain})
}

// privateAnswered handles the answer to the subscription; c.mu is held.
func (c *conn) privateAnswered(code byte) {
	b := &c.barrier
	if code < wire.SubackRefused && code > 0 {
		if b.sent < b.first { // a rival's message comes before the answer to this
			b.probing = true
			c.ping()
		}
		return
	}
	c.privateRefused()
}

// privateRefused gives the private topic up; c.mu is held.
func (c *conn) privateRefused() {
	b := &c.barrier
	b.refused, b.over = true, true
	topic := b.box.Topic
	c.notes = append(c.notes, func() {
		if !c.link.keeping.said.noBarrier.Swap(true) {
			c.log.Warn("the broker refuses a topic that this server has for itself, so it cannot tell when it has read what was sent during a restart: "+
				"allow the user of this server to read and write "+privatePrefix+"#", slog.String("topic", topic), slog.String("user", c.link.tuning.Load().Username))
		}
	})
}

// probed handles a PINGRESP; c.mu is held.
func (c *conn) probed() {
	if b := &c.barrier; b.probing {
		b.probing = false
		c.sendBarrier()
	}
}

// checkBarrier repeats or gives up; c.mu is held.
func (c *conn) checkBarrier(now time.Time) {
	b := &c.barrier
	switch {
	case !b.open || b.over:
	case now.Sub(b.since) >= barrierLimit:
		b.over = true
		c.stats.barrierGivenUp.Add(1)
		c.ping() // the reader goes on with its answer
		c.notes = append(c.notes, func() {
			c.log.Warn("what the broker held may not have been read completely: the message that follows it has not come back; it needs the right to read and write "+privatePrefix+"#", "after", barrierLimit.String())
		})
	case b.sent >= b.first:
		c.sendBarrier()
	}
}

// quietLooks is after how many looks without a message the broker is taken for one that
// waits for acknowledgements.
const quietLooks = 4

// slowBacklog tells receivers that nothing has come for a while, although what the
// broker held is not read: it may have a window that is full.
func (c *conn) slowBacklog() {
	c.mu.Lock()
	b := &c.barrier
	heard := c.stats.messagesIn.Load()
	if b.quiet++; heard != b.heard {
		b.heard, b.quiet = heard, 0
	}
	slow := b.open && !b.over && b.quiet == quietLooks
	var told []link.Withholder
	if slow {
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
	b := &c.barrier
	if !b.open || !b.over {
		c.mu.Unlock()
		return
	}
	b.open = false
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
	g, ok := parseGreeting(m.Payload)
	if !ok {
		return // a stranger's
	}
	own := string(m.Topic) == privatePrefix+c.shardID()
	if !own {
		if g.token == c.link.keeping.token {
			c.link.fallBack(oneIdentifier)
		}
		return
	}
	if g.token != c.link.keeping.token {
		c.metRival(g)
		return
	}
	c.mu.Lock()
	if b := &c.barrier; b.open && g.number >= b.first && !m.Retain {
		b.over = true
	}
	c.mu.Unlock()
}

// greeting is what a connection sends to itself.
type greeting struct {
	connection uint32 // number of the connection in its process
	number     uint64 // of the greeting
	token      string // of the process
	self       string // Sessions.Self
}

func (g greeting) encode() []byte {
	return fmt.Appendf(nil, "1 %d %d %s %s", g.connection, g.number, g.token, g.self)
}

// parseGreeting reads what encode has written, here or in another process.
func parseGreeting(payload []byte) (g greeting, ok bool) {
	if len(payload) > maxSelf+64 {
		return g, false
	}
	parts := strings.SplitN(string(payload), " ", 5)
	if len(parts) != 5 || parts[0] != "1" || parts[3] == "" {
		return g, false
	}
	connection, err := strconv.ParseUint(parts[1], 10, 32)
	number, err2 := strconv.ParseUint(parts[2], 10, 64)
	return greeting{uint32(connection), number, parts[3], strings.ToValidUTF8(parts[4], "?")}, err == nil && err2 == nil
}

// rival is another process that uses the same client identifier.
type rival struct {
	token      string
	connection uint32    // its last one that was met
	at         time.Time // when
}

// metRival counts the take-overs by another process; what is met on the first connection
// is of the process before this one. Each connection of the other counts once, however
// often the session brings what it has said. The first shard alone decides: otherwise each of
// the two could give way over another shard.
func (c *conn) metRival(g greeting) {
	now := time.Now()
	c.mu.Lock()
	old := c.rival
	if old.token == g.token && g.connection <= old.connection {
		c.mu.Unlock()
		return
	}
	c.rival = rival{g.token, g.connection, now}
	first := !c.served
	if first {
		c.rival.at = time.Time{}
	}
	c.mu.Unlock()
	if first {
		return
	}
	c.stats.takenOver.Add(1)
	c.link.reports.limit.Log(c.log, slog.LevelWarn, "another server has taken this connection over and was taken over in turn",
		slog.String("other", g.self), slog.String("this", c.link.opts.Sessions.Self))
	if !c.link.opts.Sessions.fenced() && c.index == 0 && !old.at.IsZero() && now.Sub(old.at) < rivalWithin {
		c.link.giveWay(g.self)
	}
}
