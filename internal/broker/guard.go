package broker

import (
	"cmp"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	mqtt "github.com/wind-c/comqtt/v2/mqtt"
	"github.com/wind-c/comqtt/v2/mqtt/packets"
)

// takeoverTimeout bounds the wait for an earlier connection of a client.
const takeoverTimeout = 5 * time.Second

var errPanic = errors.New("the broker failed on a packet of the client")

// guard is our say in what the library does.
type guard struct {
	mqtt.HookBase
	broker *Broker
}

// ID names the hook.
func (g *guard) ID() string { return "guard" }

// Provides lists the methods below that the library shall call.
func (g *guard) Provides(method byte) bool {
	switch method {
	case mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPacketRead, mqtt.OnPublish,
		mqtt.OnSessionEstablish, mqtt.OnSessionEstablished, mqtt.OnPublishDropped, mqtt.OnWill,
		mqtt.OnQosPublish, mqtt.OnQosDropped, mqtt.OnSubscribe, mqtt.OnSubscribed, mqtt.OnUnsubscribe, mqtt.OnPublished, mqtt.OnPacketIDExhausted,
		mqtt.OnPacketEncode, mqtt.OnPacketSent, mqtt.OnPacketProcessed, mqtt.StoredRetainedMessages:
		return true
	}
	return false
}

// OnConnectAuthenticate decides who may connect.
func (g *guard) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	if g.broker.allowed(pk.Connect.Username, pk.Connect.Password) {
		return g.inItsRoom(cl, &pk)
	}
	g.broker.limit.Log(g.broker.log, slog.LevelInfo, "embedded broker refuses a client: wrong user name or password",
		slog.String("user", string(pk.Connect.Username)), slog.String("remote", cl.Net.Remote))
	return false
}

// inItsRoom checks the CONNECT of a client that is restricted to one car. The library
// asks OnACLCheck neither about the client identifier, which decides whose connection
// is taken over, nor about the topic of the will.
func (g *guard) inItsRoom(cl *mqtt.Client, pk *packets.Packet) bool {
	c, user := &pk.Connect, g.broker.user(pk.Connect.Username)
	what := ""
	switch {
	case c.WillFlag && !g.broker.mayUse(c.Username, c.WillTopic):
		what = "will for " + strconv.Quote(c.WillTopic)
	case user.Car != "" && c.ClientIdentifier != user.Car: // CONN-9
		what = "client identifier " + strconv.Quote(c.ClientIdentifier)
	}
	if what == "" {
		return true
	}
	g.broker.limit.Log(g.broker.log, slog.LevelInfo, "embedded broker refuses a client: its user is restricted to a car or to topics",
		slog.String("user", user.Name), slog.String("restricted_to", cmp.Or(user.Car, user.Prefix)), slog.String("because", what), slog.String("remote", cl.Net.Remote))
	return false
}

// OnACLCheck decides about topics.
func (g *guard) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	ok := g.broker.mayUse(cl.Properties.Username, topic)
	if c, isConn := cl.Net.Conn.(*conn); isConn && ok && !write {
		c.delivery.queued.Add(1)
	}
	return ok
}

// OnPacketRead refuses what would cost too much and corrects what the library would
// stumble over.
func (g *guard) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if err := g.checkTopics(cl, &pk); err != nil {
		return pk, err
	}
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if c, ok := cl.Net.Conn.(*conn); ok {
			c.delivery.busy.Store(true)
		}
	case packets.Connect:
		g.demanded(cl, &pk)
		// Every session is a clean one (CONN-7): nothing accumulates for clients
		// that do not come back. The library answers a client of MQTT 5 that asks for
		// more with an expiry of 0 (MaximumSessionExpiryInterval).
		pk.Connect.Clean = true
		pk.Connect.WillProperties.WillDelayInterval = 0 // the same for wills
	case packets.Subscribe:
		if cl.State.Subscriptions.Len()+len(pk.Filters) > maxSubscriptions {
			return pk, g.refuse(cl, "too many subscriptions", pk.FixedHeader.Remaining)
		}
	case packets.Unsubscribe: // see OnSubscribe; its refusal would cost nothing
		cl.State.Inflight.Delete(pk.PacketID)
		g.acknowledged(cl, &pk)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		if c, ok := cl.Net.Conn.(*conn); ok && c.kept != nil && pk.FixedHeader.Type == packets.Puback {
			c.kept.acknowledged(pk.PacketID)
		}
		g.acknowledged(cl, &pk)
	case packets.Disconnect:
		if c, ok := cl.Net.Conn.(*conn); ok && c.kept != nil && pk.Properties.SessionExpiryIntervalFlag {
			g.broker.sessions.end(c.kept, c, time.Duration(pk.Properties.SessionExpiryInterval)*time.Second)
			pk.Properties.SessionExpiryIntervalFlag = false // the library believes in a clean session
		}
	}
	return pk, nil
}

// OnSubscribe keeps a bridge from getting back what it has published: the broker on its
// other side would pass that on a second time.
//
// The library keeps packet identifiers of both directions in one place and would refuse a
// subscription whose identifier it uses itself at the moment. It gets one that it never
// uses; the answer has the client's own, see OnPacketEncode.
func (g *guard) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.subscribing, pk.PacketID = pk.PacketID, 0
	}
	if c, ok := cl.Net.Conn.(*conn); ok && c.bridge {
		for i := range pk.Filters {
			pk.Filters[i].NoLocal = !mqtt.IsSharedFilter(pk.Filters[i].Filter)
		}
	}
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.takeFilters(pk.Filters)
	}
	return pk
}

// OnSessionEstablish is called when the client may enter. An earlier connection
// with the same identifier must have left completely: the library, when it
// cleans up after that one, would take away the subscriptions of this one.
func (g *guard) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) {
	g.unlimited(cl)
	if c, ok := cl.Net.Conn.(*conn); ok {
		g.broker.enter(cl.ID, c)
		g.resume(cl, c)
	}
}

// OnSessionEstablished is called when the session exists.
func (g *guard) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	g.unlimited(cl)
	if c, ok := cl.Net.Conn.(*conn); ok && c.kept != nil {
		c.kept.attach(cl, c.demand.window, c.demand.expiry)
	}
	if g.broker.opts.Subscribe == nil {
		return
	}
	for _, topic := range g.broker.opts.Subscribe(cl.ID) {
		if g.broker.mayUse(cl.Properties.Username, topic) {
			g.subscribe(cl, packets.Subscription{Filter: topic, Qos: 1})
		}
	}
}

// subscribe does what the library does for a filter that it grants.
func (g *guard) subscribe(cl *mqtt.Client, s packets.Subscription) {
	server := g.broker.server
	if isNew, _ := server.Topics.Subscribe(cl.ID, s); isNew {
		atomic.AddInt64(&server.Info.Subscriptions, 1)
	}
	cl.State.Subscriptions.Add(s.Filter, s)
}

// unlimited switches off the library's flow control towards the client, which
// reorders messages and can lock itself up. What a client does not take or
// acknowledge is bounded by MaxPending and MaxPendingBytes.
func (g *guard) unlimited(cl *mqtt.Client) { cl.State.Inflight.ResetSendQuota(0) }

// enter registers the connection of a client and ends an earlier one.
func (b *Broker) enter(id string, c *conn) {
	timeout := time.NewTimer(takeoverTimeout)
	defer timeout.Stop()
	for {
		b.mu.Lock()
		old := b.clients[id]
		if old == nil || old == c {
			b.clients[id] = c
			b.present(id, true)
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		old.Close()
		select {
		case <-old.gone:
			b.mu.Lock()
			if b.clients[id] == old {
				delete(b.clients, id)
			}
			b.mu.Unlock()
		case <-timeout.C:
			return
		}
	}
}

// present tells who wants to know; b.mu is held, for the order.
func (b *Broker) present(id string, here bool) {
	if b.opts.Present != nil {
		b.opts.Present(id, here)
	}
}

// release forgets the connection of a client.
func (b *Broker) release(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, other := range b.clients {
		if other == c {
			delete(b.clients, id)
			b.present(id, false)
			return
		}
	}
}

// removePanicked clears the library's tables of a client whose handling panicked.
func (b *Broker) removePanicked(c *conn) {
	for _, cl := range b.server.Clients.GetAll() {
		if cl.Net.Conn == net.Conn(c) {
			cl.Stop(errPanic)
			b.server.UnsubscribeClient(cl)
			b.server.Clients.Delete(cl.ID)
		}
	}
}
