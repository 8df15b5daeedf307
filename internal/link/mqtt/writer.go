package mqtt

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt/outbox"
	"external-server/internal/link/mqtt/wire"
)

const (
	// batchBytes bounds what one write sends. What is in a batch cannot be
	// discarded any more (DEF-20).
	batchBytes = 64 << 10
	// writeTimeout ends a connection whose broker does not read.
	writeTimeout = 10 * time.Second
)

// write sends what is queued until the connection fails, done is closed, or ctx
// ends and everything was sent and acknowledged or StopTimeout has passed.
func (c *conn) write(ctx context.Context, done <-chan struct{}) error {
	alive := newPinger(c)
	tick := time.NewTicker(alive.period)
	defer tick.Stop()
	var barrier <-chan time.Time
	if c.persistent {
		t := time.NewTicker(barrierEvery)
		defer t.Stop()
		barrier = t.C
	}
	var (
		stopping = ctx.Done()
		giveUp   <-chan time.Time
	)
	for {
		select {
		case <-c.wake:
			// Those who are about to publish go first: one write for all of them.
			runtime.Gosched()
		case <-tick.C:
			if err := alive.check(time.Now()); err != nil {
				return err
			}
		case now := <-barrier:
			c.mu.Lock()
			c.checkBarrier(now)
			if !c.barrier.open {
				barrier = nil
			}
			c.unlockAndNote()
			c.slowBacklog()
		case <-stopping:
			stopping = nil
			cause := context.Cause(ctx)
			if errors.Is(cause, errGiveWay) || errors.Is(cause, link.ErrFenced) || errors.Is(cause, link.ErrUnheard) {
				return cause
			}
			c.mu.Lock()
			c.stopping = true
			c.suspending = c.persistent && errors.Is(cause, link.ErrSuspend)
			c.mu.Unlock()
			giveUp = time.After(c.link.opts.StopTimeout)
		case <-giveUp:
			return c.farewell(done)
		case <-done:
			return nil
		}
		c.mu.Lock()
		c.woken = false
		c.mu.Unlock()
		if err := c.sendAll(); err != nil {
			return err
		}
		if stopping == nil && c.idle() {
			c.settled.Store(true)
			return c.farewell(done)
		}
	}
}

// collect appends what may be sent now: first acknowledgements and
// subscriptions, then one message of each waiting car in turn.
func (c *conn) collect(buf []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requestTopics()
	buf = append(buf, c.control...)
	c.control, c.acks = c.control[:0], 0
	if cap(c.control) > 4*batchBytes {
		c.control = nil
	}
	sent := 0
	for !c.out.Idle() && c.inflights < c.window && len(buf) < batchBytes {
		box, m := c.out.Next()
		if m.Ack != 0 {
			buf = wire.AppendPuback(buf, m.Ack)
		}
		if m.Kind == outbox.Ack || box == nil {
			continue
		}
		sent++
		buf = c.publish(buf, box.TopicOf(m), m.Payload, m.Retain)
		if box == c.barrier.box {
			c.barrier.packet = c.lastID
		}
	}
	if sent > 0 {
		c.stats.messagesOut.Add(uint64(sent))
	}
	return buf
}

// publish appends a message with the best QoS that the broker allows; c.mu is held.
func (c *conn) publish(buf []byte, topic string, payload []byte, retain bool) []byte {
	id := uint16(0)
	if c.qos > 0 {
		id = c.takeID()
	}
	return c.version.AppendPublish(buf, topic, payload, c.qos, id, retain, false)
}

// takeID returns a packet identifier that is not in use; c.mu is held. There is
// one, because the window is smaller than the range.
func (c *conn) takeID() uint16 {
	for {
		if c.lastID++; c.lastID > lastPublishID {
			c.lastID = 1
		}
		if c.inflight[c.lastID/64]&(1<<(c.lastID%64)) == 0 {
			break
		}
	}
	c.inflight[c.lastID/64] |= 1 << (c.lastID % 64)
	if c.inflights++; c.inflights == 1 {
		c.progress = time.Time{}
	}
	return c.lastID
}

// releaseID handles an acknowledgement; one that is not awaited is ignored.
func (c *conn) releaseID(id uint16) {
	if id > lastPublishID || c.inflight[id/64]&(1<<(id%64)) == 0 {
		return
	}
	c.inflight[id/64] &^= 1 << (id % 64)
	c.inflights--
	c.progress = time.Time{}
}

// idle tells whether everything was sent and acknowledged.
func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Idle() && len(c.control) == 0 && c.inflights == 0
}

// farewell ends the connection in order, so that the broker does not publish
// the last will. A session that shall be continued stays: "offline" is published
// unless another process continues it.
func (c *conn) farewell(done <-chan struct{}) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	nc := c.send.nc
	buf := c.send.rest // half a packet must not be followed by another one
	c.mu.Lock()
	suspending := c.suspending
	if !suspending {
		if c.persistent && c.retain && !c.barrier.refused {
			buf = c.publish(buf, c.barrier.box.Topic, nil, true)
		}
		if c.hasPresence() {
			buf = c.publish(buf, c.link.opts.Presence, []byte("offline"), c.retain)
		}
	}
	c.mu.Unlock()
	switch {
	case c.version != wire.V5:
		buf = wire.AppendDisconnect(buf)
	case suspending:
		buf = wire.AppendDisconnectWithWill(buf)
	case c.persistent:
		buf = wire.AppendForget(buf)
	default:
		buf = wire.AppendDisconnect(buf)
	}
	if err := nc.SetWriteDeadline(time.Now().Add(c.link.opts.StopTimeout)); err != nil {
		return err
	}
	if _, err := nc.Write(buf); err != nil || !c.persistent {
		return err
	}
	// What the broker has sent meanwhile has to be read: closing before would reset the
	// connection and might cost what was just written.
	select {
	case <-done:
	case <-time.After(c.link.opts.StopTimeout):
	}
	return nil
}

// pinger notices a broker that is not there any more (CONN-6).
type pinger struct {
	c       *conn
	period  time.Duration // between two checks
	last    time.Time     // the last one
	sent    time.Time     // last PINGREQ, or begin of the connection
	signs   uint64        // of life, at that time
	waiting bool
}

func newPinger(c *conn) *pinger {
	period := min(time.Second, c.keepAlive/4)
	if h := c.link.opts.Heartbeat; h > 0 {
		period = min(period, h/2)
	}
	now := time.Now()
	return &pinger{c: c, period: period, last: now, sent: now}
}

// limits returns how long the broker may be quiet before it is asked, how long it may take to
// answer, and a number that changes with every sign of life. Without Heartbeat that
// is whatever comes: two thirds of the keepalive until the question, one third for the answer.
func (p *pinger) limits() (quiet, patience time.Duration, signs uint64) {
	c := p.c
	if h := c.link.opts.Heartbeat; h > 0 {
		return min(h, c.keepAlive/2), c.keepAlive, uint64(c.answeredAt.Load())
	}
	return c.keepAlive * 2 / 3, c.keepAlive / 3, c.reads.Load()
}

// ask sends a PINGREQ when it is time and returns an error when the broker gives no sign of
// life; c.mu is held.
func (p *pinger) ask(now time.Time) error {
	quiet, patience, signs := p.limits()
	if halt := now.Sub(p.last) - p.period; halt > p.period {
		p.sent = p.sent.Add(halt) // while this process did not run it could not hear the answer
	}
	p.last = now
	if signs != p.signs {
		p.signs, p.waiting = signs, false
		if p.c.link.opts.Heartbeat > 0 { // nor need it be asked
			p.sent = now
		}
	}
	switch asked := now.Sub(p.sent); {
	case p.waiting && asked >= patience:
		return fmt.Errorf("no answer to a ping within %v", patience)
	case !p.waiting && asked >= quiet:
		p.sent, p.signs, p.waiting = now, signs, true
		p.c.ping()
	}
	return nil
}

// check looks after what time has to do with; it returns an error when the broker gives no
// sign of life, or acknowledges nothing.
func (p *pinger) check(now time.Time) error {
	c, opts := p.c, &p.c.link.opts
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := p.ask(now); err != nil {
		return err
	}
	c.retryRefused(now)
	c.expireOverlaps(now)
	c.doDelayed(now)
	if c.progress.IsZero() {
		c.progress = now
	}
	if c.inflights > 0 && now.Sub(c.progress) > opts.AckTimeout {
		return fmt.Errorf("%d messages are not acknowledged, none for %v", c.inflights, opts.AckTimeout)
	}
	for _, r := range c.requests {
		if now.Sub(r.sent) > opts.AckTimeout {
			return fmt.Errorf("a subscription was not answered within %v", opts.AckTimeout)
		}
	}
	return nil
}
