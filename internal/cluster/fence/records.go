package fence

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"external-server/internal/fleet"
	"external-server/internal/link/mqtt/wire"
)

// Records returns the records of the sessions of a shard as the broker has them, see
// record.Carried. What cannot be one is left out: topics that name no car, messages that
// are too long or too many.
func Records(ctx context.Context, b Broker, cluster string, shard int) (map[fleet.CarID][]byte, error) {
	c, err := b.member(ctx, cluster, MaxRecord)
	if err != nil {
		return nil, err
	}
	defer c.done()
	r := &recordReader{client: c, prefix: recordPrefix(cluster, shard), out: make(map[fleet.CarID][]byte)}
	for r.bucket = range buckets {
		if err := r.renew(ctx); err != nil {
			return nil, r.fail(r.filter(r.bucket), err)
		}
		if err := r.read(); err != nil {
			return nil, err
		}
	}
	if err := r.barrier(r.take); err != nil { // what is left of the last one
		return nil, r.fail(r.prefix+"#", err)
	}
	if r.late || len(r.out) == 0 {
		if err := r.readLate(ctx); err != nil {
			return nil, err
		}
	}
	return r.out, nil
}

// maxLeft bounds what is logged of one bucket.
const maxLeft = 5

// recordReader reads the records of a shard, bucket after bucket.
type recordReader struct {
	*client
	prefix string // of the topics of all buckets
	bucket int    // that was asked for last
	late   bool   // a message came when the next bucket was asked for already
	left   int    // messages of that one that are not used
	counts [buckets]struct{ messages, bytes int }
	out    map[fleet.CarID][]byte
}

func (r *recordReader) filter(bucket int) string { return r.prefix + strconv.Itoa(bucket) + "/#" }

// read reads one bucket. The broker queues only so much for a client, so the subscription
// does not stay.
func (r *recordReader) read() error {
	filter := r.filter(r.bucket)
	r.left = 0
	if err := r.subscribe(filter, r.take); err != nil {
		return r.fail(filter, err)
	}
	r.id++
	if _, err := r.Write(wire.V5.AppendUnsubscribe(nil, r.id, filter)); err != nil {
		return r.fail(filter, err)
	}
	if _, err := r.await(wire.Unsuback, r.take); err != nil {
		return r.fail(filter, err)
	}
	return nil
}

// readLate reads everything again from a broker that may show what is retained some time
// after it has answered to the subscription, until nothing more comes.
func (r *recordReader) readLate(ctx context.Context) error {
	clear(r.out)
	clear(r.counts[:])
	for n := range buckets {
		if err := r.subscribe(r.filter(n), r.take); err != nil {
			return r.fail(r.filter(n), err)
		}
	}
	for before := -1; before != len(r.out); {
		before = len(r.out)
		if err := r.linger(ctx, r.take); err != nil {
			return r.fail(r.prefix+"#", err)
		}
	}
	return nil
}

// take takes one message.
func (r *recordReader) take(p *wire.Packet) error {
	topic := string(p.Topic)
	rest, ours := strings.CutPrefix(topic, r.prefix)
	number, _, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(number)
	if !ours || err != nil || n < 0 || n >= buckets {
		r.leave(p, "the topic names no car of this shard")
		return nil
	}
	r.late = r.late || n != r.bucket
	count := &r.counts[n]
	car, ok := carOf(topic, r.prefix+number+"/", n)
	switch {
	case !ok:
		r.leave(p, "the topic names no car of this part of the shard")
	case p.Oversized:
		r.leave(p, fmt.Sprintf("it has %d bytes, a record has at most %d", p.Size, MaxRecord))
	case !p.Retain && len(p.Payload) == 0:
		delete(r.out, car) // cleared meanwhile
	case count.messages >= maxBucket || count.bytes+len(p.Payload) > maxBucketBytes:
		r.leave(p, fmt.Sprintf("there are more than %d or %d MiB", maxBucket, maxBucketBytes>>20))
	default:
		count.messages, count.bytes = count.messages+1, count.bytes+len(p.Payload)
		r.out[car] = p.Payload
	}
	return nil
}

func (r *recordReader) leave(p *wire.Packet, why string) {
	if r.left++; r.left <= maxLeft && r.b.Logger != nil {
		r.b.Logger.Warn("a retained message is no record of a session and is not used, remove it by publishing an empty retained one",
			"broker", r.b.Address, "topic", string(p.Topic), "reason", why)
	}
}
