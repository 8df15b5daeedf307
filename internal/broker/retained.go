package broker

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	mqtt "github.com/wind-c/comqtt/v2/mqtt"
	"github.com/wind-c/comqtt/v2/mqtt/hooks/storage"
	"github.com/wind-c/comqtt/v2/mqtt/packets"
)

// Retained messages are not part of the Fleet Protocol, besides the presence
// of a server; the bounds keep strangers from filling the memory.
const (
	maxRetained        = 1000
	maxRetainedPayload = 64 << 10
)

// retained are the messages that the broker keeps for later subscribers. The library
// keeps none: its own table is written and read by clients without a common lock, and
// for each wildcard it walks through the subscriptions of all clients. It asks for
// these by StoredRetainedMessages instead.
type retained struct {
	mu       sync.Mutex
	messages map[string]storage.Message
	list     []storage.Message // of messages, never changed; nil: to be made anew
	expiring bool              // some of messages are kept for a time only
}

// set keeps a message, or removes the one of its topic when it has no content. It
// tells whether there was room.
func (r *retained) set(m storage.Message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(m.Payload) == 0 {
		delete(r.messages, m.TopicName)
		r.list = nil
		return true
	}
	if _, exists := r.messages[m.TopicName]; !exists && len(r.messages) >= maxRetained {
		if r.expire(); len(r.messages) >= maxRetained {
			return false
		}
	}
	if r.messages == nil {
		r.messages = make(map[string]storage.Message)
	}
	r.messages[m.TopicName] = m
	r.expiring = r.expiring || m.Properties.MessageExpiryInterval > 0
	r.list = nil
	return true
}

// expire forgets what was to be kept for a time only; r.mu is held.
func (r *retained) expire() {
	if !r.expiring {
		return
	}
	now := time.Now().Unix()
	maps.DeleteFunc(r.messages, func(_ string, m storage.Message) bool {
		interval := int64(m.Properties.MessageExpiryInterval)
		return interval > 0 && m.Created+interval <= now
	})
	r.list = nil
}

// all returns the messages; the caller must not change them.
func (r *retained) all() []storage.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire()
	if r.list == nil {
		r.list = slices.Collect(maps.Values(r.messages))
		now := time.Now().Unix()
		for i := range r.list {
			if p := &r.list[i].Properties; p.MessageExpiryInterval > 0 { // what is left of it
				p.MessageExpiryInterval -= uint32(now - r.list[i].Created)
			}
		}
	}
	return r.list
}

// has tells whether there is a message for a topic.
func (r *retained) has(topic string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.messages[topic]
	return ok
}

func (r *retained) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.messages)
}

// StoredRetainedMessages is called for every filter of a SUBSCRIBE; the library
// chooses those that match.
func (g *guard) StoredRetainedMessages() ([]storage.Message, error) {
	return g.broker.retained.all(), nil
}

// OnPublish keeps a retained message. The library shall neither keep nor pass it on:
// OnPublished does that.
func (g *guard) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if !pk.FixedHeader.Retain {
		return pk, nil
	}
	properties := weigh(&pk) - messageWeight - len(pk.Payload) - len(pk.TopicName) - 5 // and other lengths
	p := &pk.Properties
	kept := g.retain(cl, max(0, properties), storage.Message{
		Properties: storage.MessageProperties{
			CorrelationData: p.CorrelationData, ResponseTopic: p.ResponseTopic, ContentType: p.ContentType, User: p.User,
			PayloadFormat: p.PayloadFormat, PayloadFormatFlag: p.PayloadFormatFlag, MessageExpiryInterval: p.MessageExpiryInterval,
		},
		Payload: pk.Payload, TopicName: pk.TopicName, FixedHeader: pk.FixedHeader, Origin: cl.ID, Created: time.Now().Unix(),
	})
	if !kept {
		pk.FixedHeader.Retain = false
		return pk, nil
	}
	return pk, packets.CodeSuccessIgnore
}

// OnPublished passes a retained message on.
func (g *guard) OnPublished(cl *mqtt.Client, pk packets.Packet) {
	g.broker.sessions.publish(g.broker, cl.ID, &pk)
	if pk.Ignore {
		pk.Ignore = false
		g.broker.server.PublishToSubscribers(pk, true)
	}
}

// OnWill keeps and publishes a retained will in place of the library, which is left
// one without topic: that reaches no client.
func (g *guard) OnWill(cl *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	g.broker.sessions.publish(g.broker, cl.ID, &packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: will.Retain, Qos: will.Qos},
		TopicName:   will.TopicName, Payload: will.Payload, Properties: packets.Properties{User: will.User},
	})
	if !will.Retain {
		return will, nil
	}
	header := packets.FixedHeader{Type: packets.Publish, Retain: true, Qos: will.Qos}
	now := time.Now().Unix()
	header.Retain = g.retain(cl, 32*len(will.User), storage.Message{
		Properties: storage.MessageProperties{User: will.User},
		Payload:    will.Payload, TopicName: will.TopicName, FixedHeader: header, Origin: cl.ID, Created: now,
	})
	g.broker.server.PublishToSubscribers(packets.Packet{
		FixedHeader: header, TopicName: will.TopicName, Payload: will.Payload,
		Properties: packets.Properties{User: will.User}, Origin: cl.ID, Created: now,
	}, true)
	will.Retain, will.TopicName = false, ""
	return will, nil
}

// retain keeps a message if the client may leave one of this size and there is room.
// Without content it removes one, and one that is there already may be replaced
// however many there are: otherwise a client that fills the table would freeze what
// others have left. There is room for few, so a client that is restricted to one car
// has none.
func (g *guard) retain(cl *mqtt.Client, properties int, m storage.Message) bool {
	restricted := g.broker.user(cl.Properties.Username).Car != ""
	small := len(m.Payload) == 0 || len(m.Payload)+properties <= maxRetainedPayload
	if !restricted && small && g.broker.retained.set(m) {
		return true
	}
	g.broker.limit.Log(g.broker.log, slog.LevelInfo, "embedded broker passes a message on without retaining it: too large, too many, or of a client restricted to one car",
		slog.String("topic", m.TopicName), slog.String("remote", cl.Net.Remote))
	return false
}
