package demo

import (
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"time"
)

// Position is a place on the earth: degrees, and metres above sea level.
type Position struct {
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
	Altitude  float64 `json:"altitude"`
}

// Station is a stop of a mission (MM-21).
type Station struct {
	Name     string   `json:"name"`
	Position Position `json:"position"`
}

// States of an autonomy device (MM-21).
const (
	stateIdle   = "IDLE"
	stateDrive  = "DRIVE"
	stateInStop = "IN_STOP"
	stateError  = "ERROR"
)

// Autonomy is a simulated driver: it follows the stops of its mission in
// straight lines, waits in each stop and uses fuel. Its methods may be called
// concurrently.
type Autonomy struct {
	mu       sync.Mutex
	state    string
	position Position
	speed    float64 // m/s
	fuel     float64 // 0 to 1
	stops    []Station
	finished []Station // since the last error message was taken
	stopLeft time.Duration
	driving  bool // a START was given and no STOP since
}

// Movement of the simulated cars.
const (
	topSpeed     = 14.0 // m/s, about 50 km/h
	acceleration = 2.0  // m/s²
	fuelPerMetre = 1.0e-5
	waitInStop   = 10 * time.Second
	arrived      = 5.0 // m from the stop
)

// NewAutonomy places an idle car with a full tank.
func NewAutonomy(at Position) *Autonomy {
	return &Autonomy{state: stateIdle, position: at, fuel: 1}
}

// Advance lets the car drive for d.
func (a *Autonomy) Advance(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// Small steps, so that a car neither jumps over its stop nor brakes late.
	const step = 100 * time.Millisecond
	for ; d > 0; d -= step {
		a.step(min(d, step))
	}
}

func (a *Autonomy) step(d time.Duration) {
	switch {
	case a.fuel <= 0:
		a.state, a.speed = stateError, 0
	case !a.driving || len(a.stops) == 0:
		a.state, a.speed = stateIdle, 0
	case a.stopLeft > 0:
		a.state, a.speed = stateInStop, 0
		if a.stopLeft -= d; a.stopLeft <= 0 {
			a.stops = a.stops[1:]
		}
	default:
		a.state = stateDrive
		a.drive(d.Seconds())
	}
}

func (a *Autonomy) drive(seconds float64) {
	next := a.stops[0]
	left := distance(a.position, next.Position)
	if left <= arrived {
		a.position, a.speed = next.Position, 0
		a.state, a.stopLeft = stateInStop, waitInStop
		a.finished = append(a.finished, next)
		return
	}
	// As fast as allowed and as the brakes permit before the stop.
	wanted := min(topSpeed, math.Sqrt(2*acceleration*left))
	a.speed = max(min(wanted, a.speed+acceleration*seconds), 0.5)
	way := min(a.speed*seconds, left)
	part := way / left
	a.position.Latitude += (next.Position.Latitude - a.position.Latitude) * part
	a.position.Longitude += (next.Position.Longitude - a.position.Longitude) * part
	a.position.Altitude += (next.Position.Altitude - a.position.Altitude) * part
	a.fuel = max(a.fuel-way*fuelPerMetre, 0)
}

// Command takes a mission command (MM-25) and returns what it does in words.
func (a *Autonomy) Command(data []byte) (string, error) {
	var c struct {
		Action string    `json:"action"`
		Stops  []Station `json:"stops"`
		Route  string    `json:"route"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return "", fmt.Errorf("not a mission command: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch c.Action {
	case "START":
		a.stops, a.driving, a.stopLeft = c.Stops, true, 0
		if len(c.Stops) == 0 {
			return "starts with no stop to go to", nil
		}
		if len(c.Stops) == 1 {
			return "starts to " + c.Stops[0].Name, nil
		}
		return fmt.Sprintf("starts to %s, %d stops in all", c.Stops[0].Name, len(c.Stops)), nil
	case "STOP":
		a.stops, a.driving, a.stopLeft = nil, false, 0
		return "stops", nil
	case "NO_ACTION":
		return "changes nothing", nil
	}
	return "", fmt.Errorf("unknown action %q, expected START, STOP or NO_ACTION", c.Action)
}

// Status returns the mission status (MM-21) as JSON.
func (a *Autonomy) Status() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	type telemetry struct {
		Speed    float64  `json:"speed"`
		Fuel     float64  `json:"fuel"`
		Position Position `json:"position"`
	}
	status := struct {
		State     string    `json:"state"`
		Telemetry telemetry `json:"telemetry"`
		NextStop  *Station  `json:"nextStop"`
	}{State: a.state, Telemetry: telemetry{Speed: round(a.speed, 2), Fuel: round(a.fuel, 4), Position: Position{
		Latitude:  round(a.position.Latitude, 6),
		Longitude: round(a.position.Longitude, 6),
		Altitude:  round(a.position.Altitude, 1),
	}}}
	if len(a.stops) > 0 {
		status.NextStop = &a.stops[0]
	}
	return mustJSON(status)
}

// FinishedStops returns the error message of the mission module (MM-23): the
// stops finished since the last call.
func (a *Autonomy) FinishedStops() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	finished := a.finished
	a.finished = nil
	if finished == nil {
		finished = []Station{}
	}
	return mustJSON(map[string]any{"finishedStops": finished})
}

// State returns the state and the name of the next stop, "" when there is none.
func (a *Autonomy) State() (state, next string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.stops) > 0 {
		next = a.stops[0].Name
	}
	return a.state, next
}

// distance in metres; good enough within a town.
func distance(a, b Position) float64 {
	const metresPerDegree = 111_320
	north := (b.Latitude - a.Latitude) * metresPerDegree
	east := (b.Longitude - a.Longitude) * metresPerDegree * math.Cos(a.Latitude*math.Pi/180)
	return math.Hypot(north, east)
}

func round(v float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(v*p) / p
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own structs with finite numbers come here
	}
	return b
}
