package broker

import (
	"strings"
	"time"

	mqtt "github.com/wind-c/comqtt/v2/mqtt"
	"github.com/wind-c/comqtt/v2/mqtt/packets"
)

// keptPrefix hides the subscriptions of kept sessions from the library: nothing can be
// published below it.
const keptPrefix = "$SYS/kept/"

// demand is what the CONNECT of a client asks for, see sessions.
type demand struct {
	clean  bool
	expiry time.Duration // 0: the session ends with the connection
	window int
}

// demanded takes note of a CONNECT before it becomes one for a clean session.
func (g *guard) demanded(cl *mqtt.Client, pk *packets.Packet) {
	c, ok := cl.Net.Conn.(*conn)
	if !ok || !g.broker.opts.KeepSessions || pk.ProtocolVersion != 5 {
		return
	}
	c.demand = demand{clean: pk.Connect.Clean, window: 65535}
	if pk.Properties.SessionExpiryIntervalFlag {
		c.demand.expiry = time.Duration(pk.Properties.SessionExpiryInterval) * time.Second
	}
	if n := pk.Properties.ReceiveMaximum; n > 0 {
		c.demand.window = int(n)
	}
}

// resume finds or makes the session of a client that may enter.
func (g *guard) resume(cl *mqtt.Client, c *conn) {
	if !g.broker.opts.KeepSessions {
		return
	}
	if c.demand.expiry == 0 {
		g.broker.sessions.forget(cl.ID)
		return
	}
	c.kept, c.present = g.broker.sessions.enter(cl.ID, c, c.demand.clean)
}

// OnUnsubscribe takes the filters of a kept session out.
func (g *guard) OnUnsubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	if c, ok := cl.Net.Conn.(*conn); ok && c.kept != nil {
		for i := range pk.Filters {
			c.kept.unsubscribe(pk.Filters[i].Filter)
			pk.Filters[i].Filter = keptPrefix + pk.Filters[i].Filter
		}
	}
	return pk
}

// takeFilters lets the kept session have the filters that the client subscribes to, in
// place of the library.
func (c *conn) takeFilters(filters []packets.Subscription) {
	if c.kept == nil {
		return
	}
	for i := range filters {
		f := &filters[i]
		if !mqtt.IsValidFilter(f.Filter, false) || mqtt.IsSharedFilter(f.Filter) {
			continue // refused by the library, or served by it
		}
		f.Qos = min(1, f.Qos)
		c.kept.subscribe(*f)
		f.Filter = keptPrefix + f.Filter
	}
}

// sendRetained sends what the broker has retained for filters that were granted.
func (c *conn) sendRetained(filters []packets.Subscription, codes []byte) {
	if c.kept == nil {
		return
	}
	for i := range filters {
		filter, taken := strings.CutPrefix(filters[i].Filter, keptPrefix)
		if !taken || i >= len(codes) || codes[i] > packets.CodeGrantedQos2.Code || filters[i].RetainHandling == 2 {
			continue
		}
		for _, m := range c.broker.retained.all() {
			if m.TopicName == filter || covers(filter, m.TopicName) {
				c.kept.retained(&packets.Packet{FixedHeader: m.FixedHeader, TopicName: m.TopicName, Payload: m.Payload,
					Properties: packets.Properties{User: m.Properties.User}}, filters[i].Qos)
			}
		}
	}
}

// tellPresent tells the client about its session, which the library knows nothing of.
func (c *conn) tellPresent(pk packets.Packet) packets.Packet {
	if c.kept != nil && pk.FixedHeader.Type == packets.Connack && pk.ReasonCode == packets.CodeSuccess.Code {
		pk.SessionPresent = c.present
		pk.Properties.SessionExpiryIntervalFlag = c.demand.expiry > maxExpiry
		pk.Properties.SessionExpiryInterval = uint32(min(c.demand.expiry, maxExpiry) / time.Second)
	}
	return pk
}
