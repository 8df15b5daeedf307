package broker

import (
	"log/slog"
	"strings"

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
	// maxConnect bounds the packet of a client that introduces itself: its name, will
	// and properties are kept as long as it is connected.
	maxConnect = 128 << 10
	// Retained messages are not part of the Fleet Protocol, besides the presence
	// of a server; the bounds keep strangers from filling the memory.
	maxRetained        = 1000
	maxRetainedPayload = 64 << 10
	// smallPacket is what another packet's topic may keep in memory: the library's
	// topics and filters are parts of the packet they came with.
	smallPacket = 4 << 10
)

// modest tells whether a topic or filter is one that the library may see.
func modest(topic string) bool {
	return len(topic) <= maxTopicBytes && strings.Count(topic, "/") < maxLevels
}

// checkTopics refuses packets with topics or filters that are too long or too deep;
// whoever sends one is disconnected. It lets none keep the packet in memory.
func (g *guard) checkTopics(cl *mqtt.Client, pk *packets.Packet) error {
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if pk.Connect.WillFlag && !modest(pk.Connect.WillTopic) {
			return g.refuse(cl, "the topic of its will is too long or has too many levels", len(pk.Connect.WillTopic))
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
