// Package fence keeps two servers from serving one shard at a time, by means of the broker
// alone. Everything that is published for a shard leaves over the one connection with the
// shard's client identifier, and its owner publishes its epoch over it, retained, before
// anything else. A server that has lost the connection reads the epoch: if it is higher than
// its own, another server serves the shard.
//
// The owner also leaves a record of each running session at the broker, over the same
// connection and in front of what the record describes. What the broker has of them is
// therefore never behind what the gateways were sent, and none can be written by a server
// that has lost the shard. The server that takes over after a crash reads them.
//
// It may import fleet, link, session, link/mqtt/quickack and link/mqtt/wire.
package fence

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"external-server/internal/fleet"
)

// Epoch says who serves a shard. Later owners have higher epochs.
type Epoch struct {
	Epoch   int64  `json:"epoch"`             // above 0
	Replica string `json:"replica"`           // name of the owner
	Address string `json:"address,omitempty"` // where the owner's peers reach it, host:port
	// TakenBack is how often the owner went on serving the shard under this epoch after a hand-over, because it
	// could not tell whether the other replica has the shard. What that replica has is outdated then.
	TakenBack int64 `json:"taken_back,omitempty"`
	// Shards is how many shards the owner's cluster has: with another number the same car belongs to another shard.
	// 0: a program of an earlier version has not said it.
	Shards int `json:"shards,omitempty"`
}

// Limits of what is read from the broker, where a stranger may have left it.
const (
	// MaxEpoch is the length of the longest message with an epoch, bytes.
	MaxEpoch = 4 << 10
	// MaxRecord is the length of the longest record of a session, bytes. A session that needs more
	// is not taken over after a crash.
	MaxRecord = 256 << 10
	// buckets is the number of parts in which the records of a shard are read: a broker queues
	// only so many messages for one client (1000 in mosquitto).
	buckets = 16
	// maxBucket bounds the records of one bucket, maxBucketBytes their bytes.
	maxBucket      = 4096
	maxBucketBytes = 64 << 20
	maxShards      = 1024
	maxEpoch       = 1 << 60 // an epoch never overflows
	maxName        = 256     // bytes of the name of a replica, and of an address
)

// ClientID is what the client identifiers of the shards of a cluster begin with: shard n
// has ClientID-n.
func ClientID(cluster string) string { return "es-" + cluster }

func shardID(cluster string, shard int) string {
	return ClientID(cluster) + "-" + strconv.Itoa(shard)
}

// topics begins all topics of a cluster.
func topics(cluster string) string { return fleet.TopicsOfClusters + cluster + "/" }

// EpochTopic is where the owner of a shard leaves its epoch.
func EpochTopic(cluster string, shard int) string {
	return topics(cluster) + strconv.Itoa(shard) + "/epoch"
}

// RecordTopic is where the owner of a shard leaves the record of a car's session.
func RecordTopic(cluster string, shard int, car fleet.CarID) string {
	return bucketPrefix(cluster, shard, bucket(car)) + car.Company + "/" + car.Car
}

func bucketPrefix(cluster string, shard, bucket int) string {
	return recordPrefix(cluster, shard) + strconv.Itoa(bucket) + "/"
}

func recordPrefix(cluster string, shard int) string {
	return topics(cluster) + strconv.Itoa(shard) + "/cars/"
}

// bucket is the part of its shard that a car belongs to. The hash is another one than that
// which spreads the cars over the shards, or few buckets of a shard would have all of them.
func bucket(car fleet.CarID) int {
	h := fnv.New32()
	_, _ = h.Write([]byte(car.String())) // never fails
	sum := h.Sum32()
	return int((sum ^ sum>>16) % buckets)
}

// carOf takes the car out of a topic that begins with that of the bucket.
func carOf(topic, bucketTopic string, n int) (car fleet.CarID, ok bool) {
	rest, ok := strings.CutPrefix(topic, bucketTopic)
	if !ok {
		return car, false
	}
	company, name, ok := strings.Cut(rest, "/")
	car = fleet.CarID{Company: company, Car: name}
	return car, ok && len(rest) <= maxTopicName && fleet.ValidName(company) && fleet.ValidName(name) && bucket(car) == n
}

const maxTopicName = 2 << 10

// Encode returns the message that says the epoch.
func (e Epoch) Encode() []byte {
	b, _ := json.Marshal(e) // of numbers and texts: never fails
	return b
}

// Decode reads what Encode has made.
func Decode(payload []byte) (e Epoch, err error) {
	if len(payload) > MaxEpoch {
		return e, fmt.Errorf("%d bytes, at most %d were expected", len(payload), MaxEpoch)
	}
	if err := json.Unmarshal(payload, &e); err != nil {
		return Epoch{}, fmt.Errorf("an object with epoch and replica was expected: %w", err)
	}
	switch {
	case e.Epoch <= 0:
		return Epoch{}, fmt.Errorf("epoch %d: a number above 0 was expected", e.Epoch)
	case e.Shards < 0 || e.Shards > maxShards:
		return Epoch{}, fmt.Errorf("shards %d: 1 to %d were expected", e.Shards, maxShards)
	case e.Replica == "" || len(e.Replica) > maxName || len(e.Address) > maxName:
		return Epoch{}, fmt.Errorf("replica and address: 1 and 0 to %d bytes were expected", maxName)
	}
	return e, nil
}
