package broker

import (
	"sync/atomic"
	"time"

	mqtt "github.com/wind-c/comqtt/v2/mqtt"
	"github.com/wind-c/comqtt/v2/mqtt/packets"
)

const (
	// drainTimeout bounds how long Close lets clients take what waits for them, and
	// drainStalled how long it goes on when no client takes anything.
	drainTimeout = 3 * time.Second
	drainStalled = 2 * time.Second
	drainLook    = 2 * time.Millisecond
)

// delivery counts what is on its way from publishers to one client. The library
// shows the length of its queue to no one, so the guard counts by the calls that the
// library makes for every message: OnACLCheck before it queues one, OnPacketEncode
// when it takes one from the queue, OnPacketSent when it has handed one to conn.
type delivery struct {
	queued   atomic.Int64 // in the library's queue for this client
	encoding atomic.Bool  // one is between the queue and conn
	busy     atomic.Bool  // a PUBLISH of this client is being processed
}

// waiting is the number of messages that conn has not been given.
func (d *delivery) waiting() int {
	n := int(max(0, d.queued.Load()))
	if d.encoding.Load() {
		n++
	}
	return n
}

// OnSubscribed corrects the count: the library asks OnACLCheck for every filter that
// it grants, as it does for a message.
func (g *guard) OnSubscribed(cl *mqtt.Client, pk packets.Packet, codes []byte, _ []int) {
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return
	}
	for _, code := range codes {
		if code <= packets.CodeGrantedQos2.Code {
			c.delivery.queued.Add(-1)
		}
	}
	c.sendRetained(pk.Filters, codes)
	g.sparing(c, pk.Filters, codes)
}

// OnPacketIDExhausted is called instead of queueing a message.
func (g *guard) OnPacketIDExhausted(cl *mqtt.Client, _ packets.Packet) {
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.delivery.queued.Add(-1)
	}
}

// OnPacketEncode is called when a packet has left the queue.
func (g *guard) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	if c, ok := cl.Net.Conn.(*conn); ok && pk.FixedHeader.Type == packets.Publish {
		// A packet that is larger than the client takes is dropped after this call
		// without another one.
		c.delivery.encoding.Store(cl.Properties.Props.MaximumPacketSize == 0)
		c.delivery.queued.Add(-1)
	}
	if c, ok := cl.Net.Conn.(*conn); ok {
		pk = c.tellPresent(pk)
		if pk.FixedHeader.Type == packets.Suback {
			pk.PacketID = c.subscribing
		}
	}
	return pk
}

// OnPacketSent is called when conn has been given a packet.
func (g *guard) OnPacketSent(cl *mqtt.Client, pk packets.Packet, _ []byte) {
	if c, ok := cl.Net.Conn.(*conn); ok && pk.FixedHeader.Type == packets.Publish {
		c.delivery.encoding.Store(false)
	}
}

// OnPacketProcessed is called when the library has done what a packet asks for.
func (g *guard) OnPacketProcessed(cl *mqtt.Client, pk packets.Packet, _ error) {
	if c, ok := cl.Net.Conn.(*conn); ok && pk.FixedHeader.Type == packets.Publish {
		c.delivery.busy.Store(false)
	}
}

// drain waits until the clients have what was published for them. The library has
// acknowledged these messages to their publishers, and would forget them when it ends
// a client. The last ones are those with which a stopping server tells its cars (CLI-24).
func (b *Broker) drain() {
	timeout := time.NewTimer(drainTimeout)
	defer timeout.Stop()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	fewest, since := b.listener.undelivered(), time.Now()
	for fewest > 0 {
		select {
		case <-timeout.C:
			return
		case now := <-look.C:
			n := b.listener.undelivered()
			if n < fewest {
				fewest, since = n, now
			} else if now.Sub(since) > drainStalled {
				return
			}
		}
	}
}

// undelivered counts the messages that wait for being written to a client, or with
// QoS 1 for its acknowledgement, and those that are acknowledged to their publisher
// and not yet queued: the library acknowledges first, also to a publisher that has
// left since.
func (l *listener) undelivered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for c := range l.conns {
		if c.delivery.busy.Load() {
			n++
		}
		if c.writable() {
			n += max(c.delivery.waiting(), c.unacked.len())
		}
	}
	return n
}
