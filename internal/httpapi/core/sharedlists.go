package core

import (
	"context"
	"math"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
)

// listPause is how often a replica with requests that wait for /cars looks into the store
// for cars that have become known at another replica.
const listPause = 250 * time.Millisecond

// sharedCars is Cars in a cluster: every replica knows all cars from the store.
func (c *Core) sharedCars(ctx context.Context, q httpapi.Query) ([]httpapi.Car, error) {
	newest, err := c.shared.LastKnownAt(ctx) // before the cars: what comes between is told by the wait
	var cars []httpapi.Car
	if err == nil {
		cars, err = c.shared.KnownCars(ctx, q.Since)
	}
	if err != nil {
		return nil, c.readFault(ctx, err)
	}
	c.faults.ok("read")
	if len(cars) > 0 || !q.Wait {
		return cars, nil
	}
	answers := make(chan []httpapi.Car, 1)
	w := &waiter{deliverCars: func(cars []httpapi.Car) { answers <- cars }, newest: newest}
	c.mu.Lock()
	err = c.parkForCars(w)
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return c.awaitCars(ctx, w, answers)
}

func (c *Core) readFault(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.faults.report("read", store.AsError(err))
}

// StoredMessages returns the messages of any car of the cluster from the store, also of
// cars that other replicas serve.
func (c *Core) StoredMessages(ctx context.Context, k httpapi.Kind, car fleet.CarID, since int64) ([]httpapi.Message, error) {
	messages, err := c.shared.Messages(ctx, car, k == httpapi.KindCommand, since, math.MaxInt64)
	if err != nil {
		return nil, c.readFault(ctx, err)
	}
	c.faults.ok("read")
	return messages, nil
}

// StoredDevices returns the known devices of any car of the cluster from the store. It is
// empty for a car that is not known.
func (c *Core) StoredDevices(ctx context.Context, car fleet.CarID) ([]httpapi.DeviceID, error) {
	devices, err := c.shared.KnownDevices(ctx, car)
	if err != nil {
		return nil, c.readFault(ctx, err)
	}
	c.faults.ok("read")
	return devices, nil
}

// watchCars wakes the requests that wait for cars until the core stops.
func (c *Core) watchCars() {
	defer c.running.Done()
	ticker := time.NewTicker(listPause)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-c.own.carKnown:
		case <-c.stopped:
			return
		}
		if c.starting.Load() == nil {
			c.lookForCars()
		}
	}
}

// lookForCars answers the requests that wait for cars and for which there are some.
func (c *Core) lookForCars() {
	c.mu.Lock()
	oldest := int64(math.MaxInt64)
	for w := c.newCars.head; w != nil; w = w.next {
		oldest = min(oldest, w.newest)
	}
	c.mu.Unlock()
	if oldest == math.MaxInt64 {
		return
	}
	ctx, cancel := context.WithTimeout(c.ctx, storeTimeout)
	defer cancel()
	newest, err := c.shared.LastKnownAt(ctx)
	if err != nil || newest <= oldest {
		return // a fault is told by those who ask next
	}
	cars, err := c.shared.KnownCars(ctx, oldest+1)
	if err != nil || len(cars) == 0 {
		return
	}
	c.mu.Lock()
	var released []*waiter
	for w := c.newCars.head; w != nil; {
		next := w.next
		if w.newest < newest {
			c.newCars.remove(w)
			released = append(released, w)
		}
		w = next
	}
	c.settle(released)
	c.mu.Unlock()
	for _, w := range released {
		w.deliverCars(cars)
	}
}

// sharedDevices returns the known devices of a car in a cluster by module, all modules or
// one.
func (c *Core) sharedDevices(ctx context.Context, id fleet.CarID, module *int64) (map[int64][]httpapi.DeviceID, error) {
	devices, err := c.StoredDevices(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(devices) == 0 {
		return nil, NotKnown(id)
	}
	byModule := map[int64][]httpapi.DeviceID{}
	for _, d := range devices {
		if module == nil || *module == d.ModuleID {
			byModule[d.ModuleID] = append(byModule[d.ModuleID], d)
		}
	}
	return byModule, nil
}
