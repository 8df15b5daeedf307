package broker

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	mqtt "github.com/wind-c/comqtt/v2/mqtt"
	"github.com/wind-c/comqtt/v2/mqtt/packets"
)

// What one session holds while its client is away, or does not acknowledge. The newest
// messages beyond it are dropped.
const (
	maxKeptMessages = 10_000
	maxKeptBytes    = 64 << 20
	// maxExpiry bounds what a client may ask for.
	maxExpiry = 24 * time.Hour
)

// sessions are those that outlive their connections (Options.KeepSessions): of clients of
// MQTT 5 that ask for a session expiry. The library keeps sessions as well, but forgets
// messages whose identifiers its client uses itself, loses what comes during a take-over
// and sends again in no order. So it sees a clean session without subscriptions, and
// these deliver in its place.
type sessions struct {
	mu   sync.RWMutex
	byID map[string]*kept // by client identifier
}

// kept is one session. Its messages leave in order: those that were sent and not
// acknowledged first when the client returns, marked as duplicates.
type kept struct {
	id string

	mu      sync.Mutex
	exact   map[string]packets.Subscription
	masks   map[string]packets.Subscription // filters with wildcards
	conn    *conn                           // the newest connection of the client
	client  *mqtt.Client                    // nil: nothing can be sent
	window  int                             // of unacknowledged messages
	sent    []keptMessage                   // not acknowledged, in order
	queue   []keptMessage                   // not sent
	bytes   int                             // of both
	lastID  uint16
	expiry  time.Duration
	expires *time.Timer // while it is away
	dropped bool        // said once per absence
}

// keptMessage is a message that waits for its acknowledgement.
type keptMessage struct {
	pk packets.Packet
	id uint16 // 0: not sent
}

func (s *sessions) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.byID)
}

// enter returns the session for a client that asks for one, and whether there was one.
func (s *sessions) enter(id string, c *conn, fresh bool) (k *kept, present bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k = s.byID[id]; k != nil && !fresh {
		k.hold()
		k.mu.Lock()
		defer k.mu.Unlock()
		k.conn, k.client = c, nil
		return k, true
	}
	if k != nil {
		k.hold()
	}
	if s.byID == nil {
		s.byID = make(map[string]*kept)
	}
	k = &kept{id: id, conn: c, exact: make(map[string]packets.Subscription), masks: make(map[string]packets.Subscription)}
	s.byID[id] = k
	return k, false
}

// forget ends the session of a client.
func (s *sessions) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byID[id]; k != nil {
		k.hold()
		delete(s.byID, id)
	}
}

// current tells whether the session is still known and the connection its newest; s.mu and k.mu are held.
func (s *sessions) current(k *kept, c *conn) bool { return s.byID[k.id] == k && k.conn == c }

// end says, as a client does with its last packet, for how long the session is kept when it is gone. A session that
// is not kept ends at once: the client, and others, see the end of the connection before leave is called.
func (s *sessions) end(k *kept, c *conn, expiry time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !s.current(k, c) {
		return
	}
	if k.expiry = min(expiry, maxExpiry); k.expiry <= 0 {
		k.client = nil
		delete(s.byID, k.id)
	}
}

// leave says that the client is gone; the session waits for it until it expires.
func (s *sessions) leave(k *kept, c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !s.current(k, c) {
		return
	}
	k.client, k.dropped = nil, false
	if k.expiry <= 0 {
		delete(s.byID, k.id)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(k.expiry, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.expires == timer && s.byID[k.id] == k {
			delete(s.byID, k.id)
		}
	})
	k.expires = timer
}

// close ends what waits for sessions to expire.
func (s *sessions) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.byID {
		k.hold()
	}
	s.byID = nil
}

// hold keeps a session from expiring.
func (k *kept) hold() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.expires != nil {
		k.expires.Stop()
		k.expires = nil
	}
}

// publish gives a message to the sessions that want it.
func (s *sessions) publish(b *Broker, origin string, pk *packets.Packet) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, k := range s.byID {
		if !k.publish(origin, pk) {
			b.limit.Log(b.log, slog.LevelWarn, "a session of the broker holds as much as it may: messages for its client are dropped",
				slog.String("client", k.id), slog.Int("messages", maxKeptMessages))
		}
	}
}

// publish queues a message that the client has subscribed to. It reports false when the
// first one since the client was there is dropped.
func (k *kept) publish(origin string, pk *packets.Packet) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	sub, ok := k.wants(pk.TopicName)
	if !ok || sub.NoLocal && origin == k.id {
		return true
	}
	qos := min(1, sub.Qos, pk.FixedHeader.Qos)
	if qos == 0 && k.client == nil {
		return true
	}
	return k.put(pk, qos, pk.FixedHeader.Retain && sub.RetainAsPublished)
}

// put queues a message and sends what can be sent; mu is held.
func (k *kept) put(pk *packets.Packet, qos byte, retain bool) bool {
	size := weigh(pk)
	if len(k.sent)+len(k.queue) >= maxKeptMessages || k.bytes+size > maxKeptBytes {
		first := !k.dropped
		k.dropped = true
		return !first
	}
	p := &pk.Properties
	k.bytes += size
	k.queue = append(k.queue, keptMessage{pk: packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Retain: retain, Remaining: pk.FixedHeader.Remaining},
		TopicName:   pk.TopicName, Payload: pk.Payload,
		Properties: packets.Properties{
			CorrelationData: p.CorrelationData, ResponseTopic: p.ResponseTopic, ContentType: p.ContentType, User: p.User,
			PayloadFormat: p.PayloadFormat, PayloadFormatFlag: p.PayloadFormatFlag,
		},
	}})
	k.pump()
	return true
}

// wants tells whether a subscription covers the topic; of several, the one with the
// highest QoS. mu is held.
func (k *kept) wants(topic string) (packets.Subscription, bool) {
	best, ok := k.exact[topic]
	for filter, sub := range k.masks {
		if covers(filter, topic) && (!ok || sub.Qos > best.Qos) {
			best, ok = sub, true
		}
	}
	return best, ok
}

// covers tells whether a filter with wildcards covers a topic.
func covers(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && !strings.HasPrefix(filter, "$") {
		return false
	}
	for {
		f, filterRest, moreFilter := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, topicRest, moreTopic := strings.Cut(topic, "/")
		switch {
		case f != "+" && f != t:
			return false
		case !moreTopic: // "a/#" covers "a" too
			return !moreFilter || filterRest == "#"
		case !moreFilter:
			return false
		}
		filter, topic = filterRest, topicRest
	}
}

// subscribe adds a filter.
func (k *kept) subscribe(sub packets.Subscription) {
	k.mu.Lock()
	defer k.mu.Unlock()
	sub.Qos = min(1, sub.Qos)
	if strings.ContainsAny(sub.Filter, "+#") {
		k.masks[sub.Filter] = sub
	} else {
		k.exact[sub.Filter] = sub
	}
}

func (k *kept) unsubscribe(filter string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.masks, filter)
	delete(k.exact, filter)
}

// retained sends a message that the broker has retained, for a new subscription.
func (k *kept) retained(pk *packets.Packet, qos byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(pk, min(1, qos, pk.FixedHeader.Qos), true)
}

// attach lets the session deliver to the client, which has its CONNACK.
func (k *kept) attach(cl *mqtt.Client, window int, expiry time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.client, k.window, k.expiry, k.dropped = cl, window, min(expiry, maxExpiry), false
	for i := range k.sent {
		k.sent[i].pk.FixedHeader.Dup = true
	}
	again := k.sent
	k.sent = nil
	k.queue = append(again, k.queue...)
	k.pump()
}

// acknowledged takes what the client has acknowledged out of the session.
func (k *kept) acknowledged(id uint16) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.sent {
		if k.sent[i].id == id {
			k.bytes -= weigh(&k.sent[i].pk)
			k.sent = append(k.sent[:i], k.sent[i+1:]...)
			break
		}
	}
	k.pump()
}

// pump sends what the window has room for; mu is held. Writing to a client does not wait.
func (k *kept) pump() {
	for k.client != nil && len(k.queue) > 0 && (len(k.sent) < k.window || k.queue[0].pk.FixedHeader.Qos == 0) {
		m := k.queue[0]
		if c, ok := k.client.Net.Conn.(*conn); ok && !c.takes(weigh(&m.pk), k.resume) {
			return // and goes on with resume
		}
		if m.pk.FixedHeader.Qos > 0 && m.id == 0 {
			m.id = k.freeID()
			m.pk.PacketID = m.id
		}
		if c, ok := k.client.Net.Conn.(*conn); ok {
			c.delivery.queued.Add(1) // OnPacketEncode takes it off
		}
		err := k.client.WritePacket(m.pk)
		if err != nil && !errors.Is(err, packets.ErrPacketTooLarge) {
			k.client = nil // it is about to leave, and gets this when it returns
			return
		}
		k.queue[0] = keptMessage{}
		if k.queue = k.queue[1:]; len(k.queue) == 0 {
			k.queue = nil
		}
		if err != nil || m.id == 0 { // it takes no message of that size, or wants no more than one attempt
			k.bytes -= weigh(&m.pk)
			continue
		}
		k.sent = append(k.sent, m)
	}
}

// resume goes on with what pump has left because much waited to be written.
func (k *kept) resume() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pump()
}

// freeID returns a packet identifier that no message of the session has; mu is held. There
// is one, because maxKeptMessages is below their number.
func (k *kept) freeID() uint16 {
	for {
		if k.lastID++; k.lastID == 0 {
			k.lastID = 1
		}
		used := false
		for i := range k.sent {
			used = used || k.sent[i].id == k.lastID
		}
		for i := range k.queue {
			used = used || k.queue[i].id == k.lastID
		}
		if !used {
			return k.lastID
		}
	}
}
