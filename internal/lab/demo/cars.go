package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/lab/gateway"
	"external-server/internal/lab/vehicle"
)

// reportEvery is how often a device of the demo reports.
const reportEvery = 500 * time.Millisecond

// fleetOfCars runs the simulated cars and somebody in a control room.
type fleetOfCars struct {
	narrator *narrator
	at       addresses
	server   *ward
	pace     int
	module   *Module // nil: none
	names    []string
}

// reader is the car that only the person commands: the second one, if there is one.
func reader(names []string) string { return names[min(1, len(names)-1)] }

// run lets the cars live until ctx ends and stopServer has returned, so that
// they see the server say goodbye.
func (f *fleetOfCars) run(ctx context.Context, stopServer func()) error {
	var wg sync.WaitGroup
	driving, park := context.WithCancel(context.WithoutCancel(ctx))
	gateways := make(map[string]*gateway.Gateway)
	defer func() {
		stopServer()
		f.narrator.goodbyes()
		park()
		wg.Wait()
		for _, g := range gateways {
			g.Close()
		}
	}()
	for i, name := range f.names {
		g, err := gateway.Start(gateway.Settings{
			Car:     fleet.CarID{Company: company, Car: name},
			Broker:  gateway.Broker{Address: f.at.broker},
			Observe: f.narrator.observe(name, i < narrated),
			// A real gateway may take 3 s to react, too long for a spectator.
			Core: gateway.Options{Timing: gateway.Timing{QueuePoll: 100 * time.Millisecond}},
		})
		if err != nil {
			return err
		}
		gateways[name] = g
		n := f.narrator
		autonomy := vehicle.NewTouring(rand.New(rand.NewPCG(1, uint64(i))))
		if i < narrated {
			autonomy = vehicle.NewAutonomy(vehicle.Places()[i].Position)
		} else {
			n = nil
		}
		driver := &driver{car: name, narrator: n, pace: f.pace, autonomy: autonomy, last: time.Now()}
		panel := &panelDevice{car: name, narrator: n, panel: &vehicle.Panel{}}
		wg.Go(func() { g.Drive(driving, driver, reportEvery) })
		wg.Go(func() { g.Drive(driving, panel, reportEvery) })
	}
	if f.module != nil {
		name := f.names[min(narrated, len(f.names))-1]
		wg.Go(func() { f.addDevice(ctx, driving, name, gateways[name]) })
	}
	return f.controlRoom(ctx)
}

// addDevice connects a device of the person's module to a car, after a moment. It stays:
// a gateway sends nothing for 10 s after a device has left (GW-7), and would look hung.
func (f *fleetOfCars) addDevice(ctx, driving context.Context, car string, g *gateway.Gateway) {
	if !pause(ctx, 2*time.Second) {
		return
	}
	m := f.module
	f.narrator.say(car, "a device of module %d joins (%s, in a process of its own)", m.number, m.Target.Name)
	g.Drive(driving, &added{car: car, narrator: f.narrator, module: m}, reportEvery)
}

// controlRoom sends the cars around through the HTTP API, as an application of
// the fleet's operator would.
func (f *fleetOfCars) controlRoom(ctx context.Context) error {
	api, err := httpapi.NewClient(httpapi.ClientOptions{URL: "http://" + f.at.api + "/v2/protocol"})
	if err != nil {
		return err
	}
	defer api.Close()
	tours := [][]int{{1, 2}, {3}, {4, 0}, {5}}
	lamp := 0
	for round := 0; ; round++ {
		for i, name := range f.names[:min(narrated, len(f.names))] {
			if !pause(ctx, time.Second) {
				return nil
			}
			id := fleet.CarID{Company: company, Car: name}
			if name == reader(f.names) {
				continue // it is the reader's, and waits for curl
			}
			if round%8 == 0 {
				tour := tours[(round/8+i)%len(tours)]
				f.post(ctx, api, id, 1, 1, "driving", "autonomy", "a mission to "+stopNames(tour), mission(tour))
			} else if round%4 == 1 {
				lamp++
				f.post(ctx, api, id, 2, 4, "panel", "panel", fmt.Sprintf("the command to switch lamp %d", lamp%2), fmt.Appendf(nil, `[{"outNum":%d,"actType":2}]`, lamp%2))
			}
		}
	}
}

func stopNames(tour []int) string {
	var names []string
	for _, i := range tour {
		names = append(names, vehicle.Places()[i].Name)
	}
	return strings.Join(names, ", then ")
}

func mission(tour []int) []byte {
	all := vehicle.Places()
	var stops []vehicle.Station
	for _, i := range tour {
		stops = append(stops, all[i])
	}
	return mustJSON(map[string]any{"action": "START", "route": "tour", "stops": stops})
}

func (f *fleetOfCars) post(ctx context.Context, api httpapi.API, car fleet.CarID, module, deviceType int64, role, name, words string, data []byte) {
	message := httpapi.Message{
		DeviceID: httpapi.DeviceID{ModuleID: module, Type: deviceType, Role: role, Name: name},
		Payload:  httpapi.Payload{MessageType: httpapi.TypeCommand, Encoding: "JSON", Data: json.RawMessage(data)},
	}
	f.server.open.RLock() // a server that is just restarted takes nothing
	defer f.server.open.RUnlock()
	err := api.PostCommands(ctx, car, []httpapi.Message{message})
	switch {
	case err == nil:
		f.narrator.say("", "the control room sends %s %s", car.Car, words)
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
