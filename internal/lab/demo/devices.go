package demo

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"external-server/internal/fleet"
	"external-server/internal/lab/vehicle"
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
		text = strings.TrimSpace("waits in the stop " + next) // one on the way has no name
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

// added is a device of the person's module.
type added struct {
	car      string
	narrator *narrator
	module   *Module
	next     int
	changed  time.Time
}

// changeEvery is how often it reports its next status.
const changeEvery = 3 * time.Second

func (a *added) Identity() fleet.Device {
	return fleet.Device{Module: a.module.number, Type: a.module.deviceType, Role: "device", Name: "device"}
}

func (a *added) Status() ([]byte, bool) {
	now := time.Now()
	changed := now.Sub(a.changed) >= changeEvery
	if changed {
		a.next++
		a.changed = now
		a.narrator.say(a.car, "its device reports to module %d: %s", a.module.number, shown(a.status()))
	}
	return a.status(), changed
}

func (a *added) status() []byte {
	return a.module.Statuses[(a.next+len(a.module.Statuses)-1)%len(a.module.Statuses)]
}

func (a *added) Command(data []byte) {
	a.narrator.say(a.car, "its device gets a command of module %d: %s", a.module.number, shown(data))
}

// shown is a payload whole, or how long it is: half of one says nothing.
func shown(data []byte) string {
	const most = 200
	if len(data) > most || !utf8.Valid(data) {
		return fmt.Sprintf("%d bytes", len(data))
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, string(data))
}
