package gateway

import (
	"context"
	"time"

	"external-server/internal/fleet"
)

// Device is the behaviour of a device in the car. Its methods may be called from
// different goroutines, one at a time each.
type Device interface {
	// Identity names the device; it never changes.
	Identity() fleet.Device
	// Status returns the present status, and whether it is worth sending: the
	// gateway repeats an unchanged one only now and then (GW-5).
	Status() (data []byte, changed bool)
	// Command takes a command that reached the device (GW-54).
	Command(data []byte)
}

// driven is the device of one Drive.
type driven struct{ Device }

// Drive lets a device take part: it reports its status at once and then every
// period, gets its commands, and leaves when ctx ends, which is when Drive returns.
func (g *Gateway) Drive(ctx context.Context, d Device, period time.Duration) {
	id := d.Identity()
	g.mu.Lock()
	entry := &driven{d}
	g.driven[id.ID()] = entry
	g.mu.Unlock()
	tick := time.NewTicker(period)
	defer tick.Stop()
	for first := true; ; first = false {
		if data, changed := d.Status(); changed || first {
			g.Status(id, data, time.Time{})
		} else {
			g.Alive(id)
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		g.mu.Lock()
		if g.driven[id.ID()] == entry { // another Drive may have taken the device over
			delete(g.driven, id.ID())
		}
		g.mu.Unlock()
		g.Leave(id)
		return
	}
}
