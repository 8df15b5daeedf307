package demo

import (
	"fmt"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/vehicle"
)

// driver connects an Autonomy to a gateway.
type driver struct {
	car      string
	narrator *narrator
	pace     int
	autonomy *vehicle.Autonomy
	last     time.Time
}

func (d *driver) Identity() fleet.Device {
	return fleet.Device{Module: 1, Type: 1, Role: "driving", Name: "autonomy"}
}

func (d *driver) Status() ([]byte, bool) {
	now := time.Now()
	d.autonomy.Advance(now.Sub(d.last) * time.Duration(d.pace))
	d.last = now
	state, next := d.autonomy.State()
	text := "stands idle"
	switch state {
	case vehicle.Drive:
		text = "drives to " + next
	case vehicle.InStop:
		text = "waits in the stop " + next
	case vehicle.Error:
		text = "has run out of fuel"
	}
	d.narrator.sayOnce(d.car, "drive", text)
	return d.autonomy.Status(), true
}

func (d *driver) Command(data []byte) {
	did, err := d.autonomy.Command(data)
	d.narrator.obeys(d.car, d.Identity(), did, err)
}

// panelDevice connects a Panel to a gateway.
type panelDevice struct {
	car      string
	narrator *narrator
	panel    *vehicle.Panel
	last     string
}

func (p *panelDevice) Identity() fleet.Device {
	return fleet.Device{Module: 2, Type: 4, Role: "panel", Name: "panel"}
}

func (p *panelDevice) Status() ([]byte, bool) {
	status := p.panel.Status()
	changed := string(status) != p.last
	p.last = string(status)
	return status, changed
}

func (p *panelDevice) Command(data []byte) {
	did, err := p.panel.Command(data)
	p.narrator.obeys(p.car, p.Identity(), did, err)
}

// button is a device of the example module (MM-50).
type button struct {
	narrator *narrator
	pressed  bool
}

func (b *button) Identity() fleet.Device {
	return fleet.Device{Module: 1000, Type: 0, Role: "button", Name: "button"}
}

func (b *button) Status() ([]byte, bool) {
	b.pressed = !b.pressed
	return fmt.Appendf(nil, `{"pressed": %t}`, b.pressed), true
}

func (b *button) Command(data []byte) {
	b.narrator.say("car_c", "button obeys: %s", data)
}
