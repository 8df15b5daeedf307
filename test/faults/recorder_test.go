package faults

import (
	"external-server/internal/support/badnetwork"

	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/link/mqtt/wire"
)

// epochRecorder is a network in front of the broker that notes what each client does with the epochs
// of the shards, and when. A client's packet has its effect between the time when the recorder
// sees it and the time when it sees the broker's answer.
type epochRecorder struct {
	*badnetwork.Proxy
	begun time.Time

	mu     sync.Mutex
	uses   []use
	conns  int
	owned  map[int]bool
	broken []string
}

// newRecorder puts a recorder in front of the broker at the address.
func newRecorder(t testing.TB, broker string) *epochRecorder {
	t.Helper()
	r := &epochRecorder{begun: time.Now(), owned: make(map[int]bool)}
	r.Proxy = badnetwork.Tap(t, broker, r.connection)
	return r
}

// connection returns what notes the bytes of one connection in both directions.
func (r *epochRecorder) connection() (up, down func([]byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns++
	c := &recorded{r: r, number: r.conns, shard: -1, waiting: make(map[uint16]int), asked: make(map[int]time.Time)}
	return c.stream(c.said), c.stream(c.heard)
}

// recorded is one connection.
type recorded struct {
	r      *epochRecorder
	number int
	shard  int // whose client id it has; -1: none
	v5     bool
	own    announced         // what it has announced last
	answer bool              // one of its answers is among waiting
	broken bool              // it is no MQTT; nothing more is noted
	asked  map[int]time.Time // subscriptions to the epoch of a shard
	// waiting has the packets without acknowledgement so far: the place in uses.
	waiting map[uint16]int
}

// stream returns a function that takes bytes as they come and gives whole packets to each.
func (c *recorded) stream(each func(first byte, body []byte) bool) func([]byte) {
	var kept []byte
	return func(b []byte) {
		c.r.mu.Lock()
		defer c.r.mu.Unlock()
		kept = append(kept, b...)
		for !c.broken {
			size, n := binary.Uvarint(kept[min(1, len(kept)):]) // MQTT's length is coded in the same way
			if n <= 0 || uint64(len(kept)) < 1+uint64(n)+size {
				return
			}
			body := kept[1+n : 1+n+int(size)]
			if !each(kept[0], body) {
				c.broken = true
				c.r.broken = append(c.r.broken, fmt.Sprintf("connection %d: a packet %#x of %d bytes cannot be read", c.number, kept[0], size))
			}
			kept = append([]byte(nil), kept[1+n+int(size):]...)
		}
	}
}

func kindOf(first byte) wire.Type { return wire.Type(first >> 4) }

// fields reads the parts of a packet in their order; after the first one that is not there it
// is not ok.
type fields struct {
	rest []byte
	ok   bool
}

func (f *fields) take(n int) []byte {
	if !f.ok || n < 0 || n > len(f.rest) {
		f.ok = false
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) number() uint16 {
	if b := f.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (f *fields) text() string { return string(f.take(int(f.number()))) }

// skipProperties leaves out what MQTT 5 adds.
func (f *fields) skipProperties(v5 bool) {
	if !v5 || !f.ok {
		return
	}
	size, n := binary.Uvarint(f.rest)
	if n <= 0 {
		f.ok = false
		return
	}
	f.take(n)
	f.take(int(size))
}

// message is a PUBLISH packet.
type message struct {
	topic   string
	id      uint16 // 0: QoS 0
	retain  bool
	payload []byte
}

func (c *recorded) publish(first byte, body []byte) (m message, ok bool) {
	f := fields{body, true}
	m.topic, m.retain = f.text(), first&1 != 0
	if first&6 != 0 {
		m.id = f.number()
	}
	f.skipProperties(c.v5)
	m.payload = f.rest
	return m, f.ok
}

// shardOf returns the shard whose epoch the topic has.
func shardOf(topic string) (int, bool) {
	parts := strings.Split(topic, "/")
	if len(parts) != 4 || parts[0] != "es" || parts[1] != clusterName || parts[3] != "epoch" {
		return 0, false
	}
	n, err := strconv.Atoi(parts[2])
	return n, err == nil
}

// said takes in a packet of the client.
func (c *recorded) said(first byte, body []byte) bool {
	f := fields{body, true}
	switch kindOf(first) {
	case wire.Connect:
		f.text() // "MQTT"
		version := f.take(1)
		f.take(3) // flags, keepalive
		c.v5 = f.ok && version[0] == 5
		f.skipProperties(c.v5)
		if n, ok := strings.CutPrefix(f.text(), "es-"+clusterName+"-"); ok {
			if shard, err := strconv.Atoi(n); err == nil {
				c.shard = shard
			}
		}
		return f.ok
	case wire.Subscribe:
		f.number()
		f.skipProperties(c.v5)
		for f.ok && len(f.rest) > 0 {
			if shard, ok := shardOf(f.text()); ok {
				c.asked[shard] = time.Now()
			}
			f.take(1)
		}
		return f.ok
	case wire.Publish:
		m, ok := c.publish(first, body)
		if ok && m.id != 0 {
			c.sent(m)
		}
		return ok
	}
	return true
}

// sent notes that a message is under way, if it concerns the epoch of a shard: an
// announcement, or an answer to a car under what the connection has announced. Of the
// answers one at a time is noted.
func (c *recorded) sent(m message) {
	if shard, ok := shardOf(m.topic); ok {
		var now announced
		if err := json.Unmarshal(m.payload, &now); err != nil || !m.retain {
			c.r.broken = append(c.r.broken, fmt.Sprintf("%s: %q, retained %t: %v", m.topic, m.payload, m.retain, err))
			return
		}
		c.own = now
		c.note(m.id, use{kind: announce, shard: shard, value: now})
		return
	}
	if c.shard >= 0 && !c.answer && strings.HasSuffix(m.topic, "/external_server") && strings.HasPrefix(m.topic, company+"/") {
		c.answer = true
		c.note(m.id, use{kind: answerUnder, shard: c.shard, value: c.own})
	}
}

func (c *recorded) note(id uint16, u use) {
	u.connection, u.call, u.end = c.number, time.Since(c.r.begun), never
	c.waiting[id] = len(c.r.uses)
	c.r.uses = append(c.r.uses, u)
	c.r.owned[u.shard] = true
}

// heard takes in a packet of the broker.
func (c *recorded) heard(first byte, body []byte) bool {
	f := fields{body, true}
	switch kindOf(first) {
	case wire.Puback:
		id := f.number()
		if place, ok := c.waiting[id]; ok {
			delete(c.waiting, id)
			u := &c.r.uses[place]
			u.end = time.Since(c.r.begun)
			c.answer = c.answer && u.kind != answerUnder
		}
	case wire.Publish:
		m, ok := c.publish(first, body)
		shard, epoch := shardOf(m.topic)
		asked, reads := c.asked[shard]
		if !ok || !epoch || !reads || !m.retain || len(m.payload) == 0 {
			return ok
		}
		delete(c.asked, shard)
		var now announced
		if err := json.Unmarshal(m.payload, &now); err != nil {
			c.r.broken = append(c.r.broken, fmt.Sprintf("%s has %q: %v", m.topic, m.payload, err))
			return true
		}
		c.r.uses = append(c.r.uses, use{kind: read, connection: c.number, shard: shard, value: now, call: asked.Sub(c.r.begun), end: time.Since(c.r.begun)})
	}
	return f.ok
}

// shards is the number of shards that were ever owned.
func (r *epochRecorder) shards() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.owned)
}

// owner is the replica that has announced the epoch of the shard last.
func (r *epochRecorder) owner(shard int) (replica string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.uses {
		if u.kind == announce && u.shard == shard && u.end != never {
			replica = u.value.Replica
		}
	}
	return replica
}

// history returns what was noted.
func (r *epochRecorder) history() (uses []use, broken []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]use(nil), r.uses...), append([]string(nil), r.broken...)
}
