package observe

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"external-server/internal/car"
	"external-server/internal/fleet"
)

// Bounds of an event about several devices.
const (
	foldedNames = 8
	foldedName  = 64 // bytes
)

// folded collects the devices that come with a session, or go with it, for one event: a
// fleet that connects at once would fill the stream with its devices. The caller holds
// the car's mutex.
type folded struct {
	count int
	at    time.Time // of the last one
	first fleet.Device
	names []string
}

func (f *folded) add(d fleet.Device, at time.Time) {
	if f.count == 0 {
		f.first = d
	}
	f.count++
	f.at = at
	if len(f.names) < foldedNames {
		name := d.Name
		if name == "" {
			name = d.Role
		}
		f.names = append(f.names, cut(name, foldedName))
	}
}

// cut shortens a text to at most the given bytes, between two characters.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most] + "…"
}

// event is the one for all of them; false: there is none.
func (f *folded) event(kind string) (Event, bool) {
	switch f.count {
	case 0:
		return Event{}, false
	case 1:
		return Event{At: f.at, Kind: kind, Device: f.first.String(), Module: f.first.Module}, true
	}
	text := fmt.Sprintf("%d devices: %s", f.count, strings.Join(f.names, ", "))
	if f.count > len(f.names) {
		text += fmt.Sprintf(" and %d more", f.count-len(f.names))
	}
	return Event{At: f.at, Kind: kind, Count: f.count, Text: text}, true
}

// device tells at once of one that comes or goes by itself, and keeps one that does so
// with its session; remember tells of those before it tells anything else of the car.
func (c *Car) device(ev *car.Event) (alone bool) {
	joined := ev.Kind == car.DeviceConnected
	c.values.connected(ev.Device, joined, ev.At)
	switch {
	case joined && c.state == stateConnecting:
		c.joins.add(ev.Device, ev.At)
	case !joined && !ev.OK:
		c.leaves.add(ev.Device, ev.At)
	default:
		return true
	}
	return false
}

// tellFolded puts the devices collected so far into the stream.
func (c *Car) tellFolded(session string) {
	for _, f := range []struct {
		*folded
		kind string
	}{{&c.joins, KindDeviceJoined}, {&c.leaves, KindDeviceLeft}} {
		if ev, ok := f.event(f.kind); ok {
			ev.Car, ev.Session = c.id.Car, session
			c.hub.Events.Put(ev)
			*f.folded = folded{}
		}
	}
}
