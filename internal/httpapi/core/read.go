package core

import (
	"context"
	"net/http"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
)

// Statuses implements API.
func (c *Core) Statuses(ctx context.Context, car fleet.CarID, q httpapi.Query) ([]httpapi.Message, error) {
	return c.Read(ctx, httpapi.KindStatus, car, q, 0)
}

// Commands implements API.
func (c *Core) Commands(ctx context.Context, car fleet.CarID, q httpapi.Query) ([]httpapi.Message, error) {
	return c.Read(ctx, httpapi.KindCommand, car, q, 0)
}

// Read returns the messages of a car as Statuses and Commands do. limit is how long it
// waits at most; 0 is the API's timeout.
func (c *Core) Read(ctx context.Context, k httpapi.Kind, car fleet.CarID, q httpapi.Query, limit time.Duration) ([]httpapi.Message, error) {
	if err := httpapi.CheckCar(car); err != nil {
		return nil, err
	}
	if err := c.starting.Load(); err != nil {
		return nil, err
	}
	answers := make(chan answer, 1)
	w := &waiter{deliver: func(m []httpapi.Message, err error) { answers <- answer{m, err} }, limit: limit}
	messages, parked, err := c.lookup(ctx, k, car, q, w)
	if !parked {
		return messages, err
	}
	select {
	case a := <-answers:
		return a.messages, a.err
	case <-ctx.Done():
		c.unpark(w)
		return nil, ctx.Err()
	}
}

type answer struct {
	messages []httpapi.Message
	err      error
}

func (c *Core) isKnown(id fleet.CarID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	car := c.cars[id]
	return car != nil && car.known()
}

// NotKnown returns the answer about a car without known devices (HTTP-12).
func NotKnown(car fleet.CarID) *httpapi.Error {
	return httpapi.NewError(http.StatusNotFound, "the car %s is not known: none of its devices has posted a status within the retention period", car)
}

// lookup answers a reading request or, when it has to wait, parks w and returns
// true.
func (c *Core) lookup(ctx context.Context, k httpapi.Kind, id fleet.CarID, q httpapi.Query, w *waiter) (messages []httpapi.Message, parked bool, err error) {
	for {
		c.mu.Lock()
		if !c.serves(id) {
			c.mu.Unlock()
			return nil, false, ErrMoved
		}
		car := c.cars[id]
		known := car != nil && car.known()
		var newest int64
		if known {
			newest = car.newest[k]
		}
		if !known || newest < q.Since || newest == 0 {
			if q.Wait {
				err := c.park(k, id, w)
				c.mu.Unlock()
				return nil, err == nil, err
			}
			c.mu.Unlock()
			if !known {
				return nil, false, NotKnown(id)
			}
			return []httpapi.Message{}, false, nil
		}
		c.mu.Unlock()

		started := time.Now()
		// Not beyond newest: a transaction may be visible in the store a moment
		// before those who wait are released; they must not get twice what they
		// have read.
		messages, err := c.store.Messages(ctx, id, k == httpapi.KindCommand, q.Since, newest)
		c.stats.read(time.Since(started))
		if err != nil {
			if ctx.Err() != nil {
				return nil, false, ctx.Err()
			}
			return nil, false, c.faults.report("read", store.AsError(err))
		}
		c.faults.ok("read")
		if len(messages) > 0 {
			return messages, false, nil
		}
		// Nothing at or after since: the bound was too high, because messages were
		// deleted or the server is new. Unless something came meanwhile, lower it.
		c.mu.Lock()
		if car := c.cars[id]; car != nil && car.newest[k] == newest {
			car.newest[k] = max(0, q.Since-1)
		}
		c.mu.Unlock()
	}
}
