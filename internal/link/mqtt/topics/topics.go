// Package topics knows what can be said of the topics of cars without a connection: which car a topic
// belongs to, how many topics go into a packet, and which messages come twice while two subscriptions bring
// them.
//
// The lock of the connection whose cars they are guards overlaps.
package topics

import (
	"bytes"
	"hash/maphash"
	"time"

	"external-server/internal/fleet"
)

// perPacket keeps a SUBSCRIBE below the packet limits of common brokers.
const perPacket = 200

// Batches splits topics, or what stands for them, into parts that a packet holds.
func Batches[T any](all []T) [][]T {
	var out [][]T
	for len(all) > perPacket {
		out = append(out, all[:perPacket:perPacket])
		all = all[perPacket:]
	}
	if len(all) > 0 {
		out = append(out, all)
	}
	return out
}

// Split takes company and car out of a gateway's topic (CONN-2). The names may be any.
func Split(topic []byte) (company, car []byte, ok bool) {
	rest, ok := bytes.CutSuffix(topic, []byte(fleet.TopicFromGateway))
	if !ok {
		return nil, nil, false
	}
	company, car, ok = bytes.Cut(rest, []byte("/"))
	return company, car, ok && !bytes.Contains(car, []byte("/"))
}

// Valid tells whether a company or car of this name can be part of a topic (VOC-1).
func Valid(name string) bool { return len(name) <= 1<<10 && fleet.ValidName(name) }

const (
	// overlapAfter: a broker may send messages that it had queued after it has answered.
	overlapAfter = 2 * time.Second
	// maxOverlap bounds the memory of an overlap.
	maxOverlap = 1 << 16
)

// Overlap removes the second copies of messages while both the topic of a car
// and the watch of its company are subscribed: brokers send one copy for both or
// one for each, and MQTT 3.1.1 has no mark that tells.
type Overlap struct {
	seed   maphash.Seed
	seen   map[uint64]struct{} // delivered once
	expiry time.Time           // zero: both are subscribed
}

// NewOverlap returns one that lasts until End.
func NewOverlap() *Overlap {
	return &Overlap{seed: maphash.MakeSeed(), seen: make(map[uint64]struct{})}
}

// End says that only one of the two is subscribed from now on.
func (o *Overlap) End() { o.expiry = time.Now().Add(overlapAfter) }

// Ends tells whether End was called.
func (o *Overlap) Ends() bool { return !o.expiry.IsZero() }

// Over tells whether only one of the two brings messages any more.
func (o *Overlap) Over() bool { return o.Ends() && time.Now().After(o.expiry) }

// Repeated tells whether a message is the second copy; the third is a first one again.
func (o *Overlap) Repeated(topic, payload []byte) bool {
	var h maphash.Hash
	h.SetSeed(o.seed)
	h.Write(topic)
	h.WriteByte(0)
	h.Write(payload)
	sum := h.Sum64()
	if _, ok := o.seen[sum]; ok {
		delete(o.seen, sum)
		return true
	}
	if len(o.seen) < maxOverlap && !o.Over() {
		o.seen[sum] = struct{}{}
	}
	return false
}
