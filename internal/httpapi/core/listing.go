package core

import (
	"context"
	"net/http"
	"sort"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// Cars implements API.
func (c *Core) Cars(ctx context.Context, q httpapi.Query) ([]httpapi.Car, error) {
	if err := c.starting.Load(); err != nil {
		return nil, err
	}
	if c.own != nil {
		return c.sharedCars(ctx, q)
	}
	answers := make(chan []httpapi.Car, 1)
	c.mu.Lock()
	cars := c.carsSince(q.Since)
	if len(cars) > 0 || !q.Wait {
		c.mu.Unlock()
		return cars, nil
	}
	w := &waiter{deliverCars: func(cars []httpapi.Car) { answers <- cars }}
	err := c.parkForCars(w)
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return c.awaitCars(ctx, w, answers)
}

// awaitCars returns what a parked waiter for cars is given.
func (c *Core) awaitCars(ctx context.Context, w *waiter, answers <-chan []httpapi.Car) ([]httpapi.Car, error) {
	select {
	case cars := <-answers:
		return cars, nil
	case <-ctx.Done():
		c.unpark(w)
		return nil, ctx.Err()
	}
}

// carsSince returns the cars in the order in which they became known. The lock
// is held.
func (c *Core) carsSince(since int64) []httpapi.Car {
	var found []*carState
	for _, car := range c.cars {
		if car.known() && car.knownAt >= since {
			found = append(found, car)
		}
	}
	sort.Slice(found, func(i, j int) bool {
		a, b := found[i], found[j]
		if a.knownAt != b.knownAt {
			return a.knownAt < b.knownAt
		}
		return a.id.String() < b.id.String()
	})
	cars := make([]httpapi.Car, len(found))
	for i, car := range found {
		cars[i] = httpapi.Car{CompanyName: car.id.Company, CarName: car.id.Car}
	}
	return cars
}

// AvailableDevices implements API.
func (c *Core) AvailableDevices(ctx context.Context, id fleet.CarID, module *int64) ([]httpapi.Module, error) {
	if err := httpapi.CheckCar(id); err != nil {
		return nil, err
	}
	if err := c.starting.Load(); err != nil {
		return nil, err
	}
	find := c.devicesOf
	if c.own != nil {
		find = c.sharedDevices
	}
	byModule, err := find(ctx, id, module)
	if err != nil {
		return nil, err
	}
	if len(byModule) == 0 {
		return nil, httpapi.NewError(http.StatusNotFound, "the car %s has no device of module %d", id, *module)
	}
	modules := make([]httpapi.Module, 0, len(byModule))
	for number, devices := range byModule {
		sort.Slice(devices, func(i, j int) bool {
			a, b := devices[i], devices[j]
			if a.Type != b.Type {
				return a.Type < b.Type
			}
			return a.Role < b.Role
		})
		modules = append(modules, httpapi.Module{ModuleID: number, DeviceList: devices})
	}
	sort.Slice(modules, func(i, j int) bool { return modules[i].ModuleID < modules[j].ModuleID })
	return modules, nil
}

// devicesOf returns the known devices of a car by module, all modules or one.
func (c *Core) devicesOf(_ context.Context, id fleet.CarID, module *int64) (map[int64][]httpapi.DeviceID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	car := c.cars[id]
	if car == nil || !car.known() {
		return nil, NotKnown(id)
	}
	byModule := map[int64][]httpapi.DeviceID{}
	for _, d := range car.devices {
		if module == nil || *module == d.id.ModuleID {
			byModule[d.id.ModuleID] = append(byModule[d.id.ModuleID], d.id)
		}
	}
	return byModule, nil
}
