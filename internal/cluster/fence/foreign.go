package fence

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"external-server/internal/link/mqtt/wire"
)

// ShardsError is why a server can not go on: the number of shards was changed, and its shard taken.
type ShardsError struct {
	Replica string // that has taken it
	Shards  int    // of the cluster now
	Own     int    // of this server
}

func (e *ShardsError) Error() string {
	return fmt.Sprintf("replica %q serves this cluster with %d shards, and this one is configured with %d; set cluster.shards to %d", e.Replica, e.Shards, e.Own, e.Shards)
}

// Foreign returns, by shard, the epochs of owners whose clusters have another number of shards
// than this one. While such an owner serves, no other number may be served: a car belongs to two
// shards then. What is at these topics and is no epoch is left out.
func Foreign(ctx context.Context, b Broker, cluster string, shards int) (map[int]Epoch, error) {
	c, err := b.member(ctx, cluster, MaxEpoch)
	if err != nil {
		return nil, err
	}
	defer c.done()
	found, out := false, make(map[int]Epoch)
	each := func(p *wire.Packet) error {
		found = true
		number, _, _ := strings.Cut(strings.TrimPrefix(string(p.Topic), c.topics), "/")
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n >= maxShards || string(p.Topic) != EpochTopic(cluster, n) {
			return nil //nolint:nilerr // somebody else's topic
		}
		e, err := Decode(p.Payload)
		if err == nil && !p.Oversized && (e.Shards != 0 && e.Shards != shards || e.Shards == 0 && n >= shards) {
			out[n] = e
		}
		return nil
	}
	filter := c.topics + "+/epoch"
	err = c.subscribe(filter, each)
	if err == nil && !found { // some brokers send retained messages later
		err = c.linger(ctx, each)
	}
	if err != nil {
		return nil, c.fail(filter, err)
	}
	return out, nil
}

// Retire takes a shard from an owner whose cluster had another number of shards: if that owner
// is still there, it falls silent. own is this replica.
func Retire(ctx context.Context, b Broker, cluster string, shard int, old, own Epoch) error {
	if old.Epoch >= maxEpoch {
		return fmt.Errorf("broker %s, topic %s: epoch %d is not one of a server; remove it by publishing an empty retained message", b.Address, EpochTopic(cluster, shard), old.Epoch)
	}
	own.Epoch, own.TakenBack = old.Epoch+1, 0
	_, err := Seize(ctx, b, cluster, shard, own)
	return err
}
