package vehicle

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
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

// name is that of the stop; one without a name is told by its place.
func (s Station) name() string {
	if s.Name != "" {
		return s.Name
	}
	return fmt.Sprintf("%.4f, %.4f", s.Position.Latitude, s.Position.Longitude)
}

// States of an autonomy device (MM-21).
const (
	Idle     = "IDLE"
	Drive    = "DRIVE"
	InStop   = "IN_STOP"
	Obstacle = "OBSTACLE"
	Error    = "ERROR"
)

// Autonomy is a simulated driver: it follows the stops of its mission along the
// streets of the town, waits in each stop and uses fuel. Its methods may be called
// concurrently.
type Autonomy struct {
	mu       sync.Mutex
	state    string
	position Position
	speed    float64 // m/s
	fuel     float64 // 0 to 1
	stops    []Station
	way      []Position // corners before the next stop; nil: not chosen yet
	finished []Station  // since the last error message was taken
	stopLeft time.Duration
	driving  bool // a START was given and no STOP since
	tours    *tours
}

// tours are what a driver does without a command.
type tours struct {
	chance *rand.Rand
	pause  time.Duration // until the next tour
	held   time.Duration // by an obstacle
}

// Movement of the simulated cars.
const (
	topSpeed     = 14.0 // m/s, about 50 km/h
	acceleration = 2.0  // m/s²
	cornerSpeed  = 5.0  // m/s
	fuelPerMetre = 1.0e-5
	waitInStop   = 10 * time.Second
	arrived      = 5.0 // m from the stop
	maxFinished  = 100 // stops kept for the error message

	reserve      = 0.2 // a driver on tour fills the tank below this
	longestPause = 30 * time.Second
	heldFor      = 5 * time.Second
	heldEvery    = 5 * time.Minute // on average, while driving
)

// NewAutonomy places an idle car with a full tank.
func NewAutonomy(at Position) *Autonomy {
	return &Autonomy{state: Idle, position: at, fuel: 1}
}

// NewTouring places a car somewhere in the town. It drives tours of its own until it
// gets a START or a STOP; from then on it does what it is told. chance decides where
// it is and where it goes; the Autonomy owns it.
func NewTouring(chance *rand.Rand) *Autonomy {
	streets := streets()
	all := Places()
	street := streets[chance.IntN(len(streets))]
	a := NewAutonomy(between(all[street[0]].Position, all[street[1]].Position, chance.Float64()))
	a.fuel = 0.3 + 0.7*chance.Float64()
	a.tours = &tours{chance: chance}
	if chance.IntN(4) == 0 {
		a.tours.pause = a.tours.rest()
	}
	return a
}

// rest returns how long a driver pauses after a tour.
func (t *tours) rest() time.Duration { return time.Duration(t.chance.Int64N(int64(longestPause))) + 1 }

// plan returns one to three stops that differ from the one before.
func (t *tours) plan(from Position) []Station {
	all := Places()
	last := nearest(all, from)
	stops := make([]Station, 0, 3)
	for range 1 + t.chance.IntN(cap(stops)) {
		next := t.chance.IntN(len(all) - 1)
		if next >= last {
			next++
		}
		stops, last = append(stops, all[next]), next
	}
	return stops
}

// tour begins the next tour when its time has come, and lets obstacles appear.
func (a *Autonomy) tour(d time.Duration) {
	t := a.tours
	switch {
	case t == nil:
	case t.pause > 0:
		t.pause -= d
	case len(a.stops) == 0 && a.driving: // at the end of a tour
		a.driving = false
		t.pause = t.rest()
	case len(a.stops) == 0:
		a.stops, a.driving = t.plan(a.position), true
	case t.held > 0:
		t.held -= d
	case a.stopLeft > 0 && a.fuel < reserve:
		a.fuel = 1
	case a.stopLeft <= 0 && t.chance.Float64() < d.Seconds()/heldEvery.Seconds():
		t.held = heldFor
	}
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
	a.tour(d)
	switch {
	case a.fuel <= 0:
		a.state, a.speed = Error, 0
	case !a.driving || len(a.stops) == 0:
		a.state, a.speed = Idle, 0
	case a.stopLeft > 0:
		a.state, a.speed = InStop, 0
		if a.stopLeft -= d; a.stopLeft <= 0 {
			a.stops, a.way = a.stops[1:], nil
		}
	case a.tours != nil && a.tours.held > 0:
		a.state, a.speed = Obstacle, 0
	default:
		a.state = Drive
		a.drive(d.Seconds())
	}
}

func (a *Autonomy) drive(seconds float64) {
	next := a.stops[0]
	if a.way == nil {
		a.way = route(a.position, next.Position)
	}
	if distance(a.position, next.Position) <= arrived {
		a.position, a.speed = next.Position, 0
		a.state, a.stopLeft = InStop, waitInStop
		a.finished = append(a.finished, next)
		if len(a.finished) > maxFinished {
			a.finished = a.finished[1:]
		}
		return
	}
	// As fast as allowed and as the brakes permit before a corner or the stop.
	target, then := next.Position, 0.0
	if len(a.way) > 0 {
		target, then = a.way[0], cornerSpeed
	}
	left := distance(a.position, target)
	wanted := min(topSpeed, math.Sqrt(2*acceleration*left+then*then))
	a.speed = max(min(wanted, a.speed+acceleration*seconds), 0.5)
	way := min(a.speed*seconds, left)
	if way >= left {
		a.position = target
	} else {
		a.position = between(a.position, target, way/left)
	}
	if way >= left && len(a.way) > 0 {
		a.way = a.way[1:]
	}
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
		a.tours, a.stops, a.way, a.driving, a.stopLeft = nil, c.Stops, nil, true, 0
		if len(c.Stops) == 0 {
			return "starts with no stop to go to", nil
		}
		if len(c.Stops) == 1 {
			return "starts to " + c.Stops[0].name(), nil
		}
		return fmt.Sprintf("starts to %s, %d stops in all", c.Stops[0].name(), len(c.Stops)), nil
	case "STOP":
		a.tours, a.stops, a.way, a.driving, a.stopLeft = nil, nil, nil, false, 0
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

// State returns the state and the name of the next stop, its place when it has no
// name, "" when there is no stop.
func (a *Autonomy) State() (state, next string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.stops) > 0 {
		next = a.stops[0].name()
	}
	return a.state, next
}

// between is a place on the straight line, share 0 to 1 of the way.
func between(a, b Position, share float64) Position {
	return Position{
		Latitude:  a.Latitude + (b.Latitude-a.Latitude)*share,
		Longitude: a.Longitude + (b.Longitude-a.Longitude)*share,
		Altitude:  a.Altitude + (b.Altitude-a.Altitude)*share,
	}
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
