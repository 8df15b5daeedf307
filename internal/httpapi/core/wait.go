package core

import (
	"net/http"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// waiter is one request with wait=true that had nothing to return. It costs no
// goroutine: the caller that takes it out of its list calls deliver.
type waiter struct {
	deliver     func([]httpapi.Message, error)
	deliverCars func([]httpapi.Car)
	patient     bool          // waits patientTimes as long
	limit       time.Duration // waits so long; 0: the API's timeout

	newest int64 // in a cluster, with deliverCars: when the newest car it knows of became known

	// Guarded by the core's lock.
	list       *waitList // nil: not waiting
	car        *carState // nil: waits for cars
	kind       httpapi.Kind
	timer      *time.Timer
	next, prev *waiter
}

// patientTimes is what a wait inside the process is longer by: no connection has to be
// kept alive by an answer, and ten thousand cars that ask again every few seconds are
// what would be left of the load of an idle server.
const patientTimes = 12

// fail ends a wait without result.
func (w *waiter) fail(err error) {
	if w.deliverCars != nil {
		w.deliverCars([]httpapi.Car{})
		return
	}
	w.deliver(nil, err)
}

// waitList is a doubly linked list of waiters.
type waitList struct{ head *waiter }

func (l *waitList) empty() bool { return l.head == nil }

func (l *waitList) add(w *waiter) {
	w.list, w.prev, w.next = l, nil, l.head
	if l.head != nil {
		l.head.prev = w
	}
	l.head = w
}

func (l *waitList) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.list, w.next, w.prev = nil, nil, nil
}

func (l *waitList) takeAll() []*waiter {
	var all []*waiter
	for l.head != nil {
		w := l.head
		l.remove(w)
		all = append(all, w)
	}
	return all
}

// park lets w wait for messages of a car. The lock is held.
func (c *Core) park(k httpapi.Kind, id fleet.CarID, w *waiter) error {
	if err := c.mayWait(); err != nil {
		return err
	}
	w.car, w.kind = c.car(id), k
	c.startWait(&w.car.waiting[k], w)
	return nil
}

// parkForCars lets w wait for a car that becomes known. The lock is held.
func (c *Core) parkForCars(w *waiter) error {
	if err := c.mayWait(); err != nil {
		return err
	}
	c.startWait(&c.newCars, w)
	return nil
}

func (c *Core) mayWait() error {
	if c.closed {
		return ErrStopping
	}
	if c.waits >= c.maxWaits {
		return httpapi.NewError(http.StatusServiceUnavailable, "%d requests wait already, which is the limit; try again later or without wait", c.waits)
	}
	return nil
}

// WaitTimeout is how long requests with wait=true are held.
func (c *Core) WaitTimeout() time.Duration { return time.Duration(c.wait.Load()) }

func (c *Core) startWait(list *waitList, w *waiter) {
	c.waits++
	list.add(w)
	timeout := c.WaitTimeout()
	if w.limit > 0 {
		timeout = w.limit
	}
	if w.patient {
		timeout *= patientTimes
	}
	w.timer = time.AfterFunc(timeout, func() { c.expire(w) })
}

// settle stops the timers of waiters that were taken out of their lists. The
// lock is held.
func (c *Core) settle(released []*waiter) {
	c.waits -= len(released)
	for _, w := range released {
		w.timer.Stop()
	}
}

// expire ends a wait at its timeout (HTTP-11 to HTTP-13).
func (c *Core) expire(w *waiter) {
	c.mu.Lock()
	if w.list == nil {
		c.mu.Unlock()
		return // released just now
	}
	w.list.remove(w)
	c.waits--
	var err error
	if w.car != nil {
		switch {
		case !w.car.known():
			err = NotKnown(w.car.id)
		case w.kind == httpapi.KindStatus:
			err = httpapi.NewError(http.StatusNotFound, "the car %s has posted nothing newer", w.car.id)
		}
		c.release(w.car)
	}
	c.mu.Unlock()
	switch {
	case w.deliverCars != nil:
		w.deliverCars([]httpapi.Car{})
	case err != nil:
		w.deliver(nil, err)
	default:
		w.deliver([]httpapi.Message{}, nil)
	}
}

// unpark gives a wait up and reports whether it was still waiting.
func (c *Core) unpark(w *waiter) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.list == nil {
		return false
	}
	w.list.remove(w)
	c.waits--
	w.timer.Stop()
	if w.car != nil {
		c.release(w.car)
	}
	return true
}

// PollCommands implements API. A poll that has to wait needs no goroutine at
// all; one that finds something reads the store in a goroutine of the core.
func (c *Core) PollCommands(id fleet.CarID, since int64, done func([]httpapi.Message, error)) (stop func() bool) {
	p := &poll{core: c, done: done}
	p.waiter.deliver, p.waiter.patient = p.finish, true
	if err := httpapi.CheckCar(id); err != nil {
		return p.later(func() ([]httpapi.Message, bool, error) { return nil, false, err })
	}
	if err := c.starting.Load(); err != nil {
		return p.later(func() ([]httpapi.Message, bool, error) { return nil, false, err })
	}
	c.mu.Lock()
	car := c.cars[id]
	if !c.closed && c.serves(id) && (car == nil || !car.known() || car.newest[httpapi.KindCommand] < since) {
		if err := c.park(httpapi.KindCommand, id, &p.waiter); err == nil {
			c.mu.Unlock()
			return p.stop
		}
	}
	c.mu.Unlock()
	return p.later(func() ([]httpapi.Message, bool, error) {
		select {
		case c.reads <- struct{}{}:
		case <-c.ctx.Done():
			return nil, false, ErrStopping
		}
		defer func() { <-c.reads }()
		messages, parked, err := c.lookup(c.ctx, httpapi.KindCommand, id, httpapi.Query{Since: since, Wait: true}, &p.waiter)
		if err != nil && c.ctx.Err() != nil {
			err = ErrStopping
		}
		return messages, parked, err
	})
}
