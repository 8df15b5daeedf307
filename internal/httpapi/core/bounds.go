package core

import (
	"net/http"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// devicesPerCar bounds the known devices: that many for each of the cars that are
// allowed, all cars together.
const devicesPerCar = 20

// room refuses a post that would make more cars or devices known than are allowed
// (REC-22). The lock is held.
func (c *Core) room(s *staged, car *carState, p *post) error {
	if p.kind == httpapi.KindCommand {
		return nil // makes nothing known
	}
	limit, becomes := int(c.maxCars.Load()), 0
	if _, staged := s.last[p.car]; !staged && (car == nil || !car.held) {
		if c.held+s.added >= limit {
			return httpapi.NewError(http.StatusInsufficientStorage, "%d cars are known, which is the limit; the car %s is refused until another one has been silent for the retention period (http_api.max_cars)", c.held, p.car)
		}
		becomes = 1
	}
	added := map[httpapi.DeviceKey]bool{}
	for i := range p.messages {
		key := p.messages[i].DeviceID.Key()
		if !s.seen[p.car][key] && (car == nil || car.devices[key] == nil) {
			added[key] = true
		}
	}
	if n := len(added); n > 0 && c.devices+s.more+n > limit*devicesPerCar {
		return httpapi.NewError(http.StatusInsufficientStorage, "%d devices are known; the limit is %d, which is %d for each car allowed (http_api.max_cars)", c.devices, limit*devicesPerCar, devicesPerCar)
	}
	s.added += becomes
	return nil
}

// forgettable returns the cars of which nothing is known and perhaps nothing is
// stored any more, and from which nothing was taken since. A car that was given
// timestamps while the clock was ahead is kept until the clock has caught up: what
// it is given next must be higher (HTTP-10).
func (c *Core) forgettable(cutoff int64) (cars []fleet.CarID) {
	now := c.now().UnixMilli()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, car := range c.cars {
		if car.held && !car.known() && car.storedAt < cutoff && car.last < now {
			cars = append(cars, id)
		}
	}
	return cars
}

// floorOf returns what the floor will be when the cars are forgotten.
func (c *Core) floorOf(cars []fleet.CarID) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	floor := c.floor
	for _, id := range cars {
		if car := c.cars[id]; car != nil {
			floor = max(floor, car.last)
		}
	}
	return floor
}

// forget forgets cars that the store has forgotten. Only the writer makes cars known,
// so that they are still as they were; requests may wait for them.
func (c *Core) forget(cars []fleet.CarID, floor int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor = floor
	for _, id := range cars {
		car := c.cars[id]
		if car == nil || !car.held {
			continue // of a shard that was given up meanwhile
		}
		car.held, car.last, car.newest = false, 0, [2]int64{}
		c.held--
		c.release(car)
	}
}

// hold counts a car that must be kept. The lock is held.
func (c *Core) hold(car *carState) {
	if !car.held {
		car.held = true
		c.held++
	}
}

// release forgets the state of a car for which no request waits any longer and that never
// had a message, so that requests for invented names cost no memory. The lock is
// held.
func (c *Core) release(car *carState) {
	if car.held || !car.waiting[httpapi.KindStatus].empty() || !car.waiting[httpapi.KindCommand].empty() {
		return
	}
	delete(c.cars, car.id)
}
