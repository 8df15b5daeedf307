package mqtt

import (
	"context"
	"errors"
	"runtime"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt/barrier"
	"external-server/internal/link/mqtt/liveness"
	"external-server/internal/link/mqtt/outbox"
	"external-server/internal/link/mqtt/wire"
)

// batchBytes bounds what one write sends. What is in a batch cannot be discarded any
// more (DEF-20).
const batchBytes = 64 << 10

// write sends what is queued until the connection fails, done is closed, or ctx
// ends and everything was sent and acknowledged or StopTimeout has passed.
func (c *conn) write(ctx context.Context, done <-chan struct{}) error {
	alive := liveness.NewPinger(c.link.opts.Heartbeat, c.KeepAlive, time.Now())
	tick := time.NewTimer(liveness.UntilNext(time.Now(), alive.Period()))
	defer tick.Stop()
	var looks <-chan time.Time // at the barrier
	if c.Persistent {
		t := time.NewTicker(barrier.Every)
		defer t.Stop()
		looks = t.C
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
			now := time.Now()
			if err := c.tick(now, alive); err != nil {
				return err
			}
			tick.Reset(liveness.UntilNext(now, alive.Period()))
		case now := <-looks:
			c.mu.Lock()
			c.checkBarrier(now)
			if !c.barrier.Open() {
				looks = nil
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
			c.suspending = c.Persistent && errors.Is(cause, link.ErrSuspend)
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
	for !c.out.Idle() && c.messages.Len() < c.Window && len(buf) < batchBytes {
		box, m := c.out.Next()
		if m.Ack != 0 {
			buf = wire.AppendPuback(buf, m.Ack)
		}
		if m.Kind == outbox.Ack || box == nil {
			continue
		}
		sent++
		buf = c.publish(buf, box.TopicOf(m), m.Payload, m.Retain)
		if box == &c.greetings {
			c.greetingID = c.messages.Last()
		}
	}
	if sent > 0 {
		c.stats.MessagesOut.Add(uint64(sent))
	}
	return buf
}

// publish appends a message with the best QoS that the broker allows; c.mu is held.
func (c *conn) publish(buf []byte, topic string, payload []byte, retain bool) []byte {
	id := uint16(0)
	if c.QoS > 0 {
		id = c.messages.Take()
	}
	return c.Version.AppendPublish(buf, topic, payload, c.QoS, id, retain, false)
}

// idle tells whether everything was sent and acknowledged.
func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Idle() && len(c.control) == 0 && c.messages.Len() == 0
}

// farewell ends the connection in order, so that the broker does not publish
// the last will. A session that shall be continued stays: "offline" is published
// unless another process continues it.
func (c *conn) farewell(done <-chan struct{}) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	buf := c.send.TakeRest() // half a packet must not be followed by another one
	c.mu.Lock()
	suspending := c.suspending
	if !suspending {
		if c.Persistent && c.Retain && !c.barrier.Refused() {
			buf = c.publish(buf, c.greetings.Topic, nil, true)
		}
		if c.hasPresence() {
			buf = c.publish(buf, c.link.opts.Presence, []byte("offline"), c.Retain)
		}
	}
	c.mu.Unlock()
	switch {
	case c.Version != wire.V5:
		buf = wire.AppendDisconnect(buf)
	case suspending:
		buf = wire.AppendDisconnectWithWill(buf)
	case c.Persistent:
		buf = wire.AppendForget(buf)
	default:
		buf = wire.AppendDisconnect(buf)
	}
	if err := c.send.WriteLast(buf, c.link.opts.StopTimeout); err != nil || !c.Persistent {
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
