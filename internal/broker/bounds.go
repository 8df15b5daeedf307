package broker

import (
	"log/slog"
	"strings"
	"sync"

	mqtt "github.com/wind-c/comqtt/v2/mqtt"
	"github.com/wind-c/comqtt/v2/mqtt/packets"
)

const (
	// One shared connection may serve all cars of a large fleet.
	maxSubscriptions = 50_000
	// The library makes a node of every level of a topic or filter, in a time that
	// grows with the square of their number and under a lock that every SUBSCRIBE
	// needs. A topic of the Fleet Protocol has three levels (CONN-2).
	maxLevels     = 32
	maxTopicBytes = 1 << 10
	// smallPacket is what another packet's topic may keep in memory: the library's
	// topics and filters are parts of the packet they came with.
	smallPacket = 4 << 10
	// messageWeight is what a message that waits for its acknowledgement costs beside
	// its content.
	messageWeight = 1 << 10
)

// publishable tells whether a message may be published to a topic. The library asks
// this for messages, not for wills.
func publishable(topic string) bool { return topic != "" && mqtt.IsValidFilter(topic, true) }

// modest tells whether a topic or filter is one that the library may see.
func modest(topic string) bool {
	return len(topic) <= maxTopicBytes && strings.Count(topic, "/") < maxLevels
}

// checkTopics refuses packets with topics or filters that are too long or too deep;
// a client that sends one is disconnected. It lets none keep the packet in memory.
func (g *guard) checkTopics(cl *mqtt.Client, pk *packets.Packet) error {
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if pk.Connect.WillFlag && !modest(pk.Connect.WillTopic) {
			return g.refuse(cl, "the topic of its will is too long or has too many levels", len(pk.Connect.WillTopic))
		}
		if pk.Connect.WillFlag && !publishable(pk.Connect.WillTopic) {
			return g.refuse(cl, "its will is for a topic that no message may be published to: a wildcard, $SYS or an empty one", len(pk.Connect.WillTopic))
		}
	case packets.Publish:
		if !modest(pk.TopicName) {
			return g.refuse(cl, "a topic or filter is too long or has too many levels", len(pk.TopicName))
		}
		if pk.FixedHeader.Remaining > smallPacket {
			pk.TopicName = strings.Clone(pk.TopicName)
		}
	case packets.Subscribe, packets.Unsubscribe:
		for i := range pk.Filters {
			f := &pk.Filters[i].Filter
			if !modest(*f) {
				return g.refuse(cl, "a topic or filter is too long or has too many levels", len(*f))
			}
			*f = strings.Clone(*f)
		}
	}
	return nil
}

// refuse says why a client is disconnected.
func (g *guard) refuse(cl *mqtt.Client, why string, size int) error {
	g.broker.limit.Log(g.broker.log, slog.LevelInfo, "embedded broker disconnects a client for what it sent: "+why,
		slog.Int("bytes", size), slog.String("remote", cl.Net.Remote))
	return packets.ErrRejectPacket // any other error would be ignored
}

// unacked are the messages that a client has been sent and has not acknowledged, by
// packet identifier, with their weight. The library keeps them, and bounds their
// number only by that of the identifiers.
//
// It may count too much: the library forgets a message without a word when its
// client publishes with the same identifier. The acknowledgement comes all the same.
type unacked struct {
	mu      sync.Mutex
	weights map[uint16]int
	total   int
}

// set notes the weight of a message, zero when it is acknowledged, and returns the
// weight of all.
func (u *unacked) set(id uint16, weight int) (total int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.total += weight - u.weights[id]
	switch {
	case weight == 0:
		delete(u.weights, id)
	case u.weights == nil:
		u.weights = map[uint16]int{id: weight}
	default:
		u.weights[id] = weight
	}
	return u.total
}

// len is the number of messages.
func (u *unacked) len() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.weights)
}

// weigh is about what a message costs in memory. A property of a user is two strings
// beside its text.
func weigh(pk *packets.Packet) int {
	return messageWeight + max(pk.FixedHeader.Remaining, len(pk.Payload)) + 32*len(pk.Properties.User)
}

// OnQosPublish is called when a message that must be acknowledged is on its way to a
// client. One that reads everything but acknowledges nothing does not keep up
// either.
func (g *guard) OnQosPublish(cl *mqtt.Client, pk packets.Packet, _ int64, _ int) {
	if pk.FixedHeader.Type == packets.Puback {
		return // for what the client has published; it is forgotten at once
	}
	if c, ok := cl.Net.Conn.(*conn); ok && c.unacked.set(pk.PacketID, weigh(&pk)) > 2*g.broker.opts.MaxPendingBytes {
		c.giveUp()
	}
}

// OnQosDropped is called when a message expires before it is acknowledged.
func (g *guard) OnQosDropped(cl *mqtt.Client, pk packets.Packet) { g.acknowledged(cl, &pk) }

// acknowledged notes what a packet of the client acknowledges.
func (g *guard) acknowledged(cl *mqtt.Client, pk *packets.Packet) {
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return
	}
	weight := 0
	if pk.FixedHeader.Type == packets.Pubrec {
		weight = messageWeight // its place is taken by the answer
	}
	c.unacked.set(pk.PacketID, weight)
}

// OnPublishDropped is called when MaxPending was reached. The client would miss
// a message of QoS 1 and never know, so it has to start anew.
func (g *guard) OnPublishDropped(cl *mqtt.Client, pk packets.Packet) {
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return
	}
	c.delivery.queued.Add(-1)
	if pk.FixedHeader.Qos > 0 {
		c.giveUp()
	}
}
