package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"external-server/internal/app"
	"external-server/internal/fleet"
	"external-server/internal/gateway"
	"external-server/internal/httpapi"
	"external-server/internal/vehicle"
)

// reportEvery is how often a device of the demo reports.
const reportEvery = 500 * time.Millisecond

// fleetOfCars runs the simulated cars and somebody in a control room.
type fleetOfCars struct {
	narrator *narrator
	server   *app.App
	pace     int
	example  bool
}

// run lets the cars live until ctx ends and stopServer has returned, so that
// they see the server say goodbye.
func (f *fleetOfCars) run(ctx context.Context, stopServer func()) error {
	var wg sync.WaitGroup
	driving, park := context.WithCancel(context.WithoutCancel(ctx))
	gateways := make(map[string]*gateway.Gateway)
	defer func() {
		stopServer()
		park()
		wg.Wait()
		for _, g := range gateways {
			g.Close()
		}
	}()
	for i, name := range carNames() {
		g, err := gateway.Start(gateway.Settings{
			Car:     fleet.CarID{Company: company, Car: name},
			Broker:  gateway.Broker{Address: f.server.BrokerAddr().String()},
			Observe: f.narrator.observe(name),
			// A real gateway may take 3 s to react, too long for a spectator.
			Core: gateway.Options{Timing: gateway.Timing{QueuePoll: 100 * time.Millisecond}},
		})
		if err != nil {
			return err
		}
		gateways[name] = g
		driver := &driver{car: name, narrator: f.narrator, pace: f.pace, autonomy: vehicle.NewAutonomy(vehicle.Places()[i].Position), last: time.Now()}
		panel := &panelDevice{car: name, narrator: f.narrator, panel: &vehicle.Panel{}}
		wg.Go(func() { g.Drive(driving, driver, reportEvery) })
		wg.Go(func() { g.Drive(driving, panel, reportEvery) })
	}
	if f.example {
		wg.Go(func() { f.buttonComesAndGoes(ctx, gateways["car_c"]) })
	}
	return f.controlRoom(ctx)
}

// buttonComesAndGoes connects a third device to a car for a while, again and
// again.
func (f *fleetOfCars) buttonComesAndGoes(ctx context.Context, g *gateway.Gateway) {
	for pause(ctx, 2*time.Second) {
		f.narrator.say("car_c", "a button device joins (example module, a C library in a process of its own)")
		there, cancel := context.WithTimeout(ctx, 3*time.Second)
		g.Drive(there, &button{narrator: f.narrator}, reportEvery)
		cancel()
		if ctx.Err() == nil {
			f.narrator.say("car_c", "the button device leaves")
		}
		if !pause(ctx, 12*time.Second) { // the gateway sends nothing for 10 s now (GW-7)
			return
		}
	}
}

// controlRoom sends the cars around through the HTTP API, as an application of
// the fleet's operator would.
func (f *fleetOfCars) controlRoom(ctx context.Context) error {
	api, err := httpapi.NewClient(httpapi.ClientOptions{URL: "http://" + f.server.HTTPAPIAddr().String() + "/v2/protocol"})
	if err != nil {
		return err
	}
	defer api.Close()
	tours := [][]int{{1, 2}, {3}, {4, 0}, {5}}
	lamp := 0
	for round := 0; ; round++ {
		for i, name := range carNames() {
			if !pause(ctx, time.Second) {
				return nil
			}
			id := fleet.CarID{Company: company, Car: name}
			if name == "car_b" {
				continue // it is the reader's, and waits for curl
			}
			if round%8 == 0 {
				tour := tours[(round/8+i)%len(tours)]
				f.post(ctx, api, id, 1, 1, "driving", "autonomy", mission(tour))
			} else if round%4 == 1 {
				lamp++
				f.post(ctx, api, id, 2, 4, "panel", "panel", fmt.Appendf(nil, `[{"outNum":%d,"actType":2}]`, lamp%2))
			}
		}
	}
}

func mission(tour []int) []byte {
	all := vehicle.Places()
	var stops []vehicle.Station
	for _, i := range tour {
		stops = append(stops, all[i])
	}
	return mustJSON(map[string]any{"action": "START", "route": "tour", "stops": stops})
}

func (f *fleetOfCars) post(ctx context.Context, api httpapi.API, car fleet.CarID, module, deviceType int64, role, name string, data []byte) {
	message := httpapi.Message{
		DeviceID: httpapi.DeviceID{ModuleID: module, Type: deviceType, Role: role, Name: name},
		Payload:  httpapi.Payload{MessageType: httpapi.TypeCommand, Encoding: "JSON", Data: json.RawMessage(data)},
	}
	err := api.PostCommands(ctx, car, []httpapi.Message{message})
	switch {
	case err == nil:
		f.narrator.say("", "the control room sends %s a command for its %s: %.90s", car.Car, name, data)
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
	case httpapi.StatusOf(err) == 404:
		f.narrator.sayOnce("", car.Car+name, fmt.Sprintf("the control room waits until %s of %s has reported", name, car.Car))
	default:
		f.narrator.say("", "the control room could not send a command: %v", err)
	}
}

// mustJSON is the JSON of a value that has one.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own structs with finite numbers come here
	}
	return b
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
