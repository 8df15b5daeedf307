package gateway

import (
	"encoding/json"
	"sync"

	"external-server/internal/fleet"
)

// Button is a device of the example module (number 1000, MM-54): a button with a
// lamp, which commands switch (MM-52). Its methods may be called from any goroutine.
type Button struct {
	device fleet.Device

	mu      sync.Mutex
	pressed bool
	changed bool
	lit     bool
	onLamp  func(lit bool)
}

// NewButton returns a button that is not pressed. onLamp, if not nil, is told whenever
// a command switches the lamp; it must return soon.
func NewButton(role, name string, onLamp func(lit bool)) *Button {
	return &Button{device: fleet.Device{Module: 1000, Type: 0, Role: role, Name: name}, onLamp: onLamp}
}

// Identity implements Device.
func (b *Button) Identity() fleet.Device { return b.device }

// Press presses the button or lets it go.
func (b *Button) Press(pressed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = b.changed || b.pressed != pressed
	b.pressed = pressed
}

// Lit tells whether the lamp is on.
func (b *Button) Lit() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lit
}

// Status implements Device.
func (b *Button) Status() ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := b.changed
	b.changed = false
	if b.pressed {
		return []byte(`{"pressed": true}`), changed
	}
	return []byte(`{"pressed": false}`), changed
}

// Command implements Device. A command that is not one for a lamp is ignored, as a
// device does.
func (b *Button) Command(data []byte) {
	var command struct {
		LitUp *bool `json:"lit_up"`
	}
	if json.Unmarshal(data, &command) != nil || command.LitUp == nil {
		return
	}
	b.mu.Lock()
	lit := *command.LitUp
	switched := b.lit != lit
	b.lit = lit
	b.mu.Unlock()
	if switched && b.onLamp != nil {
		b.onLamp(lit)
	}
}

// Position is a place on earth, in degrees and metres.
type Position struct {
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
	Altitude  float64 `json:"altitude"`
}

// Station is a stop of a mission (MM-21, MM-25).
type Station struct {
	Name     string   `json:"name"`
	Position Position `json:"position"`
}

// Autonomy is the driving device of the mission module (number 1, MM-20): it drives
// from stop to stop of the mission that a START command gives it, until STOP. Each
// call of Status is one step of the journey. Its methods may be called from any
// goroutine.
type Autonomy struct {
	device fleet.Device

	mu       sync.Mutex
	position Position
	fuel     float64
	driving  bool
	waiting  int // steps left at a stop
	changed  bool
	stops    []Station
}

// NewAutonomy returns an idle car at the given position.
func NewAutonomy(role, name string, at Position) *Autonomy {
	return &Autonomy{device: fleet.Device{Module: 1, Type: 1, Role: role, Name: name}, position: at, fuel: 1}
}

// Identity implements Device.
func (a *Autonomy) Identity() fleet.Device { return a.device }

const (
	stepsAtStop  = 3    // statuses for which the car waits at a stop
	stepShare    = 0.25 // of the way that is left, covered by one step
	arrival      = 1e-5 // degrees, about a metre
	speed        = 5.0  // m/s while driving
	fuelPerDrive = 0.001
)

type telemetry struct {
	Speed    float64  `json:"speed"`
	Fuel     float64  `json:"fuel"`
	Position Position `json:"position"`
}

// Status implements Device (MM-21).
func (a *Autonomy) Status() ([]byte, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	status := struct {
		State     string    `json:"state"`
		Telemetry telemetry `json:"telemetry"`
		NextStop  *Station  `json:"nextStop"`
	}{State: "IDLE"}
	changed := a.changed || a.driving
	a.changed = false
	if a.driving {
		status.State = a.step()
		if status.State == "DRIVE" {
			status.Telemetry.Speed = speed
		}
	}
	if len(a.stops) > 0 {
		status.NextStop = &a.stops[0]
	}
	status.Telemetry.Fuel, status.Telemetry.Position = a.fuel, a.position
	data, err := json.Marshal(status)
	if err != nil { // a position of a command is a finite number
		return []byte(`{"state":"ERROR","telemetry":{"speed":0},"nextStop":null}`), true
	}
	return data, changed
}

// step moves the car and returns its state.
func (a *Autonomy) step() string {
	if a.waiting > 0 {
		if a.waiting--; a.waiting > 0 {
			return "IN_STOP"
		}
		a.stops = a.stops[1:]
	}
	if len(a.stops) == 0 {
		a.driving = false
		return "IDLE"
	}
	to := a.stops[0].Position
	dLat, dLon := to.Latitude-a.position.Latitude, to.Longitude-a.position.Longitude
	if dLat*dLat+dLon*dLon < arrival*arrival {
		a.position = to
		a.waiting = stepsAtStop
		return "IN_STOP"
	}
	a.position.Latitude += dLat * stepShare
	a.position.Longitude += dLon * stepShare
	a.position.Altitude += (to.Altitude - a.position.Altitude) * stepShare
	a.fuel = max(0, a.fuel-fuelPerDrive)
	return "DRIVE"
}

// Command implements Device (MM-25). NO_ACTION and what is no mission command change
// nothing.
func (a *Autonomy) Command(data []byte) {
	var command struct {
		Action string    `json:"action"`
		Stops  []Station `json:"stops"`
	}
	if json.Unmarshal(data, &command) != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch command.Action {
	case "START":
		a.stops, a.driving, a.waiting = command.Stops, true, 0
	case "STOP":
		a.stops, a.driving, a.waiting = nil, false, 0
	default:
		return
	}
	a.changed = true
}
