package fence

import (
	"sync"
	"sync/atomic"

	"external-server/internal/fleet"
)

// Carrier holds the newest record of each car of a shard until the shard's connection has
// written it. Its methods may be called from any goroutine.
type Carrier struct {
	cluster string
	shard   int
	due     atomic.Bool // some record is to be written

	mu    sync.Mutex
	cars  map[fleet.CarID]*carried
	dirty []*carried // in the order in which they changed
}

// carried is the newest record of one car, empty: its session does not go on.
type carried struct {
	topic  string
	record []byte
	dirty  bool
}

// NewCarrier returns the Carrier of a shard, without records.
func NewCarrier(cluster string, shard int) *Carrier {
	return &Carrier{cluster: cluster, shard: shard, cars: make(map[fleet.CarID]*carried)}
}

// Put keeps a copy of the record of a car's session; an empty one says that no session goes on.
func (c *Carrier) Put(car fleet.CarID, record []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cars[car] == nil && len(record) == 0 {
		return // there is nothing to be removed, see Settle
	}
	e := c.entry(car)
	if len(record) > MaxRecord { // rather nothing than what is outdated
		record = nil
	}
	if cap(e.record) > 4*len(record)+keptRecord { // a large one is over
		e.record = nil
	}
	e.record = append(e.record[:0], record...)
	c.mark(e)
}

// entry returns that of the car; c.mu is held.
func (c *Carrier) entry(car fleet.CarID) *carried {
	e := c.cars[car]
	if e == nil {
		e = &carried{topic: RecordTopic(c.cluster, c.shard, car)}
		c.cars[car] = e
	}
	return e
}

// keptRecord is the memory that the next record of a car may use again, bytes.
const keptRecord = 512

// mark makes e one of those that are to be written; c.mu is held.
func (c *Carrier) mark(e *carried) {
	if !e.dirty {
		e.dirty = true
		c.dirty = append(c.dirty, e)
		c.due.Store(true)
	}
}

// Settle says which records the broker has of an earlier owner, once the cars have taken over
// what they go on with: the others are removed.
func (c *Carrier) Settle(found map[fleet.CarID][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for car := range found {
		if c.cars[car] == nil {
			c.mark(c.entry(car))
		}
	}
}

// Again makes everything to be written once more: what was written over a connection that is
// lost may not have reached the broker. Call it in mqtt.Sessions.Announce.
func (c *Carrier) Again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.cars {
		c.mark(e)
	}
}

// Records hands out what has changed since the last call; it is mqtt.Sessions.Records of
// a link that serves this shard alone.
func (c *Carrier) Records(_ int, emit func(topic string, payload []byte)) {
	if !c.due.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.dirty {
		emit(e.topic, e.record)
		e.dirty = false
		c.dirty[i] = nil
	}
	c.dirty = c.dirty[:0]
	c.due.Store(false)
}

// Len returns the number of sessions that have a record.
func (c *Carrier) Len() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.cars {
		if len(e.record) > 0 {
			n++
		}
	}
	return n
}
