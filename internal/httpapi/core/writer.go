package core

import (
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
)

// post is one POST on its way to the store.
type post struct {
	car       fleet.CarID
	kind      httpapi.Kind
	messages  []httpapi.Message
	result    chan error // buffered
	abandoned atomic.Bool
}

func (p *post) size() int {
	n := 0
	for i := range p.messages {
		n += len(p.messages[i].Payload.Data) + 200
	}
	return n
}

// write is the one writer: it groups the posts that have come while the last
// transaction was made into the next one, and between two transactions deletes a
// small part of what is too old. It ends when the queue is closed and empty.
func (c *Core) write(queue chan *post) {
	defer close(c.done)
	if !c.firstLoad() {
		return // stopped; until now no post was accepted
	}
	sweep := newSweeper(c)
	defer sweep.close()
	again := newRetry()
	defer again.stop()
	var wake chan struct{} // of a cluster
	if c.own != nil {
		wake = c.own.wake
	}
	claims := time.NewTimer(time.Hour)
	defer claims.Stop()
	for {
		var first *post
		var ok bool
		select {
		case first, ok = <-queue:
			if !ok {
				return
			}
		case <-again.due():
			c.reload(again)
			continue
		case <-wake:
			if !c.lost.Load() && c.claimNext(claims) {
				c.lose(queue, again)
			}
			continue
		case <-claims.C:
			if wake != nil {
				c.wakeWriter()
			}
			continue
		case <-sweep.due():
			if !c.lost.Load() && sweep.step() {
				c.lose(queue, again)
			}
			continue
		}
		posts := []*post{first}
		for size := first.size(); len(posts) < batchPosts && size < batchBytes; {
			more, ok := tryReceive(queue)
			if !ok {
				break
			}
			posts = append(posts, more)
			size += more.size()
		}
		switch {
		case c.lost.Load(): // they came just before it was known
			c.failAll(posts)
		case c.writeBatch(posts), sweep.deleting && sweep.step(): // a busy queue must not hold up retention
			c.lose(queue, again)
		}
	}
}

func tryReceive(queue chan *post) (*post, bool) {
	select {
	case p, ok := <-queue:
		return p, ok
	default:
		return nil, false
	}
}

func (c *Core) failAll(posts []*post) {
	err := c.faults.lastError()
	for _, p := range posts {
		p.result <- err
	}
}

// staged is a batch before it is durable.
type staged struct {
	batch *store.Batch
	posts []*post // of batch.Posts
	last  map[fleet.CarID]int64
	added int                                        // cars that become held with it
	more  int                                        // devices that become known with it
	seen  map[fleet.CarID]map[httpapi.DeviceKey]bool // devices that become known in this batch
}

// writeBatch stores posts and answers them. It returns true when the store must
// be loaded again.
func (c *Core) writeBatch(posts []*post) (reload bool) {
	s := c.stage(posts)
	if len(s.posts) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	started := time.Now()
	err := c.store.Apply(ctx, s.batch)
	cancel()
	c.stats.wrote(time.Since(started), len(s.posts), err == nil)
	if err == nil {
		c.faults.ok("write")
		c.commit(s)
		return false
	}
	fault := store.AsError(err)
	if fault.Fault == store.FaultMoved {
		return c.moved(s, fault.Shards)
	}
	// A timestamp that may have become visible is not given again.
	c.burn(s)
	if len(s.posts) > 1 && fault.Fault == store.FaultOther && !fault.Reload {
		// Perhaps one post is the cause; it must not take the others with it.
		for i, p := range s.posts {
			if c.writeBatch([]*post{p}) {
				c.failAll(s.posts[i+1:])
				return true
			}
		}
		return false
	}
	answer := c.faults.report("write", fault)
	for _, p := range s.posts {
		p.result <- answer
	}
	return fault.Reload
}

// moved answers the posts of cars that another replica serves now and stores the others.
func (c *Core) moved(s *staged, shards []int) (reload bool) {
	c.give(shards)
	var rest []*post
	for _, p := range s.posts {
		if slices.Contains(shards, c.own.owners.Shard(p.car)) {
			p.result <- ErrMoved
		} else {
			rest = append(rest, p)
		}
	}
	return len(rest) > 0 && c.writeBatch(rest)
}

// stage decides about every post in order (HTTP-14, HTTP-15) and gives out the
// timestamps. Posts that are refused are answered here.
func (c *Core) stage(posts []*post) *staged {
	s := &staged{batch: &store.Batch{StoredAt: c.age.now().UnixMilli()}, last: map[fleet.CarID]int64{}, seen: map[fleet.CarID]map[httpapi.DeviceKey]bool{}}
	now := c.now().UnixMilli()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range posts {
		if p.abandoned.Load() {
			continue
		}
		if !c.serves(p.car) {
			p.result <- ErrMoved
			continue
		}
		car := c.cars[p.car]
		if p.kind == httpapi.KindCommand {
			if err := s.commandable(car, p); err != nil {
				p.result <- err
				continue
			}
		}
		if err := c.room(s, car, p); err != nil {
			p.result <- err
			continue
		}
		last, ok := s.last[p.car]
		switch {
		case ok:
		case car != nil && car.held:
			last = car.last
		default: // perhaps it has been forgotten
			last = c.floor
		}
		// Strictly increasing per car, also when the clock steps back: a reader
		// that asks for what came after t misses nothing (HTTP-10, HTTP-16).
		at := max(now, last+1)
		s.last[p.car] = at
		for i := range p.messages {
			p.messages[i].Timestamp = at
		}
		stored := store.Post{Car: p.car, Command: p.kind == httpapi.KindCommand, At: at, Messages: p.messages}
		if p.kind == httpapi.KindStatus {
			s.statusPost(car, p, &stored)
		}
		s.batch.Posts = append(s.batch.Posts, stored)
		s.posts = append(s.posts, p)
	}
	return s
}

// commandable checks that the devices of all commands are known (HTTP-14).
func (s *staged) commandable(car *carState, p *post) error {
	seen := s.seen[p.car]
	if (car == nil || !car.known()) && len(seen) == 0 {
		return NotKnown(p.car)
	}
	for i := range p.messages {
		key := p.messages[i].DeviceID.Key()
		if seen[key] || car != nil && car.devices[key] != nil {
			continue
		}
		module := false
		if car != nil {
			for k := range car.devices {
				module = module || k.Module == key.Module
			}
		}
		for k := range seen {
			module = module || k.Module == key.Module
		}
		if !module {
			return httpapi.NewError(http.StatusNotFound, "the car %s has no known device of module %d", p.car, key.Module)
		}
		return httpapi.NewError(http.StatusNotFound, "the car %s has no known device %d/%d/%s (module/type/role)", p.car, key.Module, key.Type, key.Role)
	}
	return nil
}

// statusPost notes which devices become known and whose time must be noted. Any
// message to /status makes its device known (HTTP-15); after that only a STATUS
// keeps it known (HTTP-18).
func (s *staged) statusPost(car *carState, p *post, stored *store.Post) {
	seen := s.seen[p.car]
	known := car != nil && car.known() || len(seen) > 0
	touched := map[httpapi.DeviceKey]bool{}
	for i := range p.messages {
		id := p.messages[i].DeviceID
		key := id.Key()
		if touched[key] {
			continue
		}
		var device *deviceState
		if car != nil {
			device = car.devices[key]
		}
		if (device != nil || seen[key]) && p.messages[i].Payload.MessageType != httpapi.TypeStatus {
			continue
		}
		touched[key] = true
		if device == nil && !seen[key] {
			if seen == nil {
				seen = map[httpapi.DeviceKey]bool{}
				s.seen[p.car] = seen
			}
			seen[key] = true
			s.more++
			stored.First = append(stored.First, id)
			stored.Touch = append(stored.Touch, id)
			stored.CarKnown = !known
		} else if device != nil && stored.At-device.notedAt >= store.TouchInterval {
			stored.Touch = append(stored.Touch, id)
		}
	}
}

// commit makes a durable batch visible, releases who waited for it and then
// answers the posts.
func (c *Core) commit(s *staged) {
	type release struct {
		waiters  []*waiter
		messages []httpapi.Message
	}
	var releases []release
	var newCars []httpapi.Car
	messages := 0
	c.mu.Lock()
	for i := range s.batch.Posts {
		p := &s.batch.Posts[i]
		k := httpapi.KindStatus
		if p.Command {
			k = httpapi.KindCommand
		}
		messages += len(p.Messages)
		if !c.serves(p.Car) {
			continue // given up meanwhile; the post is durable all the same
		}
		car := c.car(p.Car)
		car.last = max(car.last, p.At)
		car.storedAt = s.batch.StoredAt
		c.hold(car)
		car.newest[k] = max(car.newest[k], p.At)
		if k == httpapi.KindStatus && c.noteStatuses(car, p, s.batch.StoredAt) {
			newCars = append(newCars, httpapi.Car{CompanyName: p.Car.Company, CarName: p.Car.Car})
		}
		if waiters := car.waiting[k].takeAll(); len(waiters) > 0 {
			c.settle(waiters)
			releases = append(releases, release{waiters, p.Messages})
		}
	}
	var forCars []*waiter
	if len(newCars) > 0 && c.own != nil {
		select { // watchCars tells those who wait, from the store as always
		case c.own.carKnown <- struct{}{}:
		default:
		}
	} else if len(newCars) > 0 {
		forCars = c.newCars.takeAll()
		c.settle(forCars)
	}
	c.mu.Unlock()
	c.stats.stored(messages)
	for _, r := range releases {
		for _, w := range r.waiters {
			w.deliver(r.messages, nil)
		}
	}
	for _, w := range forCars {
		w.deliverCars(newCars)
	}
	for _, p := range s.posts {
		p.result <- nil
	}
}

// noteStatuses updates the devices of a car and reports whether the car became
// known. The lock is held.
func (c *Core) noteStatuses(car *carState, p *store.Post, storedAt int64) (becameKnown bool) {
	if !car.known() {
		becameKnown = true
		car.knownAt = p.At
		c.known++
	}
	for i := range p.Messages {
		id := p.Messages[i].DeviceID
		d := car.devices[id.Key()]
		if d == nil {
			d = &deviceState{id: id} // the name stays the first one (HTTP-19)
			car.devices[id.Key()] = d
			c.devices++
		} else if p.Messages[i].Payload.MessageType != httpapi.TypeStatus {
			continue
		}
		d.storedAt = storedAt
	}
	for _, id := range p.Touch {
		if d := car.devices[id.Key()]; d != nil {
			d.notedAt = p.At
		}
	}
	return becameKnown
}

// burn makes sure that timestamps of a failed batch are not used again.
func (c *Core) burn(s *staged) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, at := range s.last {
		if !c.serves(id) {
			continue
		}
		car := c.car(id)
		car.last = max(car.last, at)
		c.hold(car)
	}
}
