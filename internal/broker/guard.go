package broker

import (
	"cmp"
	"errors"
	"log/slog"
	"net"
	"strconv"
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
		mqtt.OnQosPublish, mqtt.OnQosDropped:
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

// inItsRoom tells whether a client that is restricted to a car stays within it
// from the start: its identifier decides whose connection it takes over, and its will
// is published without OnACLCheck.
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

// OnWill bounds the retained messages that come as wills.
func (g *guard) OnWill(cl *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	if will.Retain && !g.mayRetain(cl, will.TopicName, len(will.Payload), 32*len(will.User)) {
		will.Retain = false
	}
	return will, nil
}

// OnACLCheck decides about topics.
func (g *guard) OnACLCheck(cl *mqtt.Client, topic string, _ bool) bool {
	return g.broker.mayUse(cl.Properties.Username, topic)
}

// OnPacketRead refuses what would cost too much and corrects what the library would
// stumble over.
func (g *guard) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if err := g.checkTopics(cl, &pk); err != nil {
		return pk, err
	}
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if n := pk.FixedHeader.Remaining; n > maxConnect {
			return pk, g.refuse(cl, "its introduction is too long", n)
		}
		// Every session is a clean one (CONN-7): nothing accumulates for clients
		// that do not come back. The library answers a client of MQTT 5 that asks for
		// more with an expiry of 0 (MaximumSessionExpiryInterval).
		pk.Connect.Clean = true
		pk.Connect.WillProperties.WillDelayInterval = 0 // the same for wills
	case packets.Subscribe:
		if cl.State.Subscriptions.Len()+len(pk.Filters) > maxSubscriptions {
			return pk, g.refuse(cl, "too many subscriptions", pk.FixedHeader.Remaining)
		}
		// The library keeps packet identifiers of both directions in one place and
		// would refuse a subscription whose identifier it uses itself at the moment.
		cl.State.Inflight.Delete(pk.PacketID)
		g.acknowledged(cl, &pk)
	case packets.Unsubscribe:
		cl.State.Inflight.Delete(pk.PacketID)
		g.acknowledged(cl, &pk)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		g.acknowledged(cl, &pk)
	}
	return pk, nil
}

// OnPublish bounds retained messages.
func (g *guard) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	properties := weigh(&pk) - messageWeight - len(pk.Payload) - len(pk.TopicName) - 5 // and other lengths
	if pk.FixedHeader.Retain && !g.mayRetain(cl, pk.TopicName, len(pk.Payload), max(0, properties)) {
		pk.FixedHeader.Retain = false
	}
	return pk, nil
}

// mayRetain tells whether a message may be retained. Without content it removes one,
// and one that is there already may be replaced however many there are: otherwise
// whoever fills the table would freeze what others have left. There is room for few,
// so a client that is restricted to one car has none.
func (g *guard) mayRetain(cl *mqtt.Client, topic string, payload, properties int) bool {
	restricted := g.broker.user(cl.Properties.Username).Car != ""
	if !restricted && (payload == 0 || payload+properties <= maxRetainedPayload && g.hasRoom(topic)) {
		return true
	}
	g.broker.limit.Log(g.broker.log, slog.LevelInfo, "embedded broker passes a message on without retaining it: too large, too many, or of a client restricted to one car",
		slog.String("topic", topic), slog.String("remote", cl.Net.Remote))
	return false
}

// hasRoom tells whether a message with content may be retained for the topic.
func (g *guard) hasRoom(topic string) bool {
	retained := g.broker.server.Topics.Retained
	if retained.Len() < maxRetained {
		return true
	}
	_, exists := retained.Get(topic)
	return exists
}

// OnSessionEstablish is called when the client may enter. An earlier connection
// with the same identifier must have left completely: the library, when it
// cleans up after that one, would take away the subscriptions of this one.
func (g *guard) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) {
	g.unlimited(cl)
	if c, ok := cl.Net.Conn.(*conn); ok {
		g.broker.enter(cl.ID, c)
	}
}

// OnSessionEstablished is called when the session exists.
func (g *guard) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) { g.unlimited(cl) }

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

// release forgets the connection of a client.
func (b *Broker) release(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, other := range b.clients {
		if other == c {
			delete(b.clients, id)
			return
		}
	}
}

// abandon removes a client whose handling panicked from the library's tables.
func (b *Broker) abandon(c *conn) {
	for _, cl := range b.server.Clients.GetAll() {
		if cl.Net.Conn == net.Conn(c) {
			cl.Stop(errPanic)
			b.server.UnsubscribeClient(cl)
			b.server.Clients.Delete(cl.ID)
		}
	}
}
