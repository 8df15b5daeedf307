package admin

import (
	"encoding/json"
	"net/http"
	"time"

	"external-server/internal/car"
	"external-server/internal/observe"
)

// missionModule is the number of the mission module, whose statuses carry a
// position (MM-21).
const missionModule = 1

// positionJSON is where a mission device was when it sent its last status.
type positionJSON struct {
	Car       string    `json:"car"`
	Type      uint32    `json:"type"`
	Role      string    `json:"role"`
	Name      string    `json:"name"`
	Connected bool      `json:"connected"`
	At        time.Time `json:"at"`
	State     string    `json:"state"`
	Latitude  float64   `json:"latitude"`  // degrees
	Longitude float64   `json:"longitude"` // degrees
	Speed     *float64  `json:"speed,omitempty"`
	Fuel      *float64  `json:"fuel,omitempty"`
	NextStop  *stopJSON `json:"next_stop,omitempty"`
}

type stopJSON struct {
	Name      string   `json:"name,omitempty"`
	Latitude  *float64 `json:"latitude,omitempty"`
	Longitude *float64 `json:"longitude,omitempty"`
}

// coordinates are read from a payload; nothing in it is certain.
type coordinates struct {
	Latitude  *float64 `json:"latitude"`
	Longitude *float64 `json:"longitude"`
}

func (c *coordinates) onEarth() bool {
	return c != nil && c.Latitude != nil && c.Longitude != nil && *c.Latitude >= -90 && *c.Latitude <= 90 && *c.Longitude >= -180 && *c.Longitude <= 180
}

// position reads the last status of a mission device; false when it has none with
// a position.
func position(name string, d *observe.Device) (positionJSON, bool) {
	var status struct {
		State     string `json:"state"`
		Telemetry struct {
			Speed    *float64     `json:"speed"`
			Fuel     *float64     `json:"fuel"`
			Position *coordinates `json:"position"`
		} `json:"telemetry"`
		NextStop json.RawMessage `json:"nextStop"` // any value (MM-21)
	}
	p := d.Status.Payload
	if p.Size == 0 || p.Size > len(p.Data) || json.Unmarshal(p.Data, &status) != nil || !status.Telemetry.Position.onEarth() {
		return positionJSON{}, false
	}
	out := positionJSON{
		Car: name, Type: d.Type, Role: d.Role, Name: d.Name, Connected: d.Connected, At: d.Status.At, State: status.State,
		Latitude: *status.Telemetry.Position.Latitude, Longitude: *status.Telemetry.Position.Longitude,
		Speed: status.Telemetry.Speed, Fuel: status.Telemetry.Fuel,
	}
	var stop *struct {
		Name     string       `json:"name"`
		Position *coordinates `json:"position"`
	}
	if json.Unmarshal(status.NextStop, &stop) == nil && stop != nil {
		out.NextStop = &stopJSON{Name: stop.Name}
		if stop.Position.onEarth() {
			out.NextStop.Latitude, out.NextStop.Longitude = stop.Position.Latitude, stop.Position.Longitude
		}
	}
	return out, true
}

// positionList is the answer of /api/v1/positions.
type positionList struct {
	Positions []positionJSON `json:"positions"`
	// Missing are the replicas whose cars are not in the list.
	Missing []absent `json:"missing,omitempty"`
}

// positions answers where the cars were last, or the one that is asked for.
func (s *Server) positions(w http.ResponseWriter, r *http.Request) {
	var cars []car.Snapshot
	if name := r.URL.Query().Get("car"); name != "" {
		c, ok := s.opts.Source.Car(name)
		if !ok {
			fail(w, http.StatusNotFound, "car "+name+" is not served")
			return
		}
		cars = append(cars, c)
	} else {
		cars = s.opts.Source.Cars()
	}
	out := positionList{Positions: []positionJSON{}}
	for i := range cars {
		name := cars[i].ID.Car
		o, ok := s.opts.Hub.Find(name)
		if !ok {
			continue
		}
		for _, d := range o.DevicesOf(missionModule) {
			if p, ok := position(name, &d); ok {
				out.Positions = append(out.Positions, p)
			}
		}
	}
	if r.URL.Query().Get("car") == "" {
		lists, missing := gather[positionList](s, r, "/api/v1/positions", nil)
		for _, other := range lists {
			out.Positions = append(out.Positions, other.Positions...)
		}
		out.Missing = missing
	}
	answerLong(w, r, out)
}
