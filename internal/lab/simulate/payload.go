package simulate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"external-server/internal/lab/vehicle"
)

// source makes the statuses of one car and takes the commands for its devices. Its
// methods may be called from different goroutines.
type source interface {
	// status returns the present status of a device, by its index.
	status(device int, now time.Time) []byte
	// command takes a command that reached the device.
	command(device int, data []byte)
}

// newSource returns the statuses of one car: those that were asked for, else of the
// kind that the module expects. Modules 1 and 2 have cars that live (MM-21, MM-31),
// others get the same bytes every time.
func (o *Options) newSource(car int) source {
	chance := rand.New(rand.NewPCG(o.Seed, 1<<62+uint64(car)))
	switch {
	case len(o.Statuses) > 0:
		return &givenStatuses{all: o.Statuses, next: make([]int, o.Devices)}
	case o.Module == 1:
		return &driver{autonomy: vehicle.NewTouring(chance), size: o.Payload}
	case o.Module == 2:
		return &panels{panels: make([]vehicle.Panel, o.Devices), chance: chance, size: o.Payload}
	}
	return sameStatus(statusOf(o.Payload))
}

// sameStatus is one status for ever.
type sameStatus []byte

func (s sameStatus) status(int, time.Time) []byte { return s }
func (s sameStatus) command(int, []byte)          {}

// statusOf returns a JSON status of the example module (MM-50), size bytes long
// where that is possible.
func statusOf(size int) []byte {
	const short, pad = `{"pressed":false}`, `{"pressed":false,"pad":""}`
	if missing := size - len(pad); missing >= 0 {
		return fmt.Appendf(nil, `{"pressed":false,"pad":"%s"}`, bytes.Repeat([]byte("x"), missing))
	}
	return []byte(short)
}

// givenStatuses are sent in turn, by each device from the first one on.
type givenStatuses struct {
	mu   sync.Mutex
	all  [][]byte
	next []int // per device
}

func (g *givenStatuses) status(device int, _ time.Time) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	status := g.all[g.next[device]]
	g.next[device] = (g.next[device] + 1) % len(g.all)
	return status
}

func (g *givenStatuses) command(int, []byte) {}

// driver drives the car; all devices of the car report what it does.
type driver struct {
	mu       sync.Mutex
	autonomy *vehicle.Autonomy
	last     time.Time
	size     int
}

// longestAdvance bounds the work for one status of a car that has been silent.
const longestAdvance = 10 * time.Minute

func (d *driver) status(_ int, now time.Time) []byte {
	d.mu.Lock()
	if !d.last.IsZero() && now.After(d.last) {
		d.autonomy.Advance(min(now.Sub(d.last), longestAdvance))
	}
	if now.After(d.last) {
		d.last = now
	}
	d.mu.Unlock()
	return padded(d.autonomy.Status(), d.size)
}

// command obeys; a command that is none changes nothing, as in a car.
func (d *driver) command(_ int, data []byte) { _, _ = d.autonomy.Command(data) }

// panels are IO devices whose buttons are pressed now and then.
type panels struct {
	panels []vehicle.Panel // one per device
	mu     sync.Mutex      // of chance
	chance *rand.Rand
	size   int
}

func (p *panels) status(device int, _ time.Time) []byte {
	p.mu.Lock()
	pressed := p.chance.IntN(10) == 0
	p.mu.Unlock()
	p.panels[device].Press(pressed)
	return padded(p.panels[device].Status(), p.size)
}

func (p *panels) command(device int, data []byte) { _, _ = p.panels[device].Command(data) }

// padded makes JSON longer without changing what it says.
func padded(status []byte, size int) []byte {
	missing := size - len(status)
	if missing <= 0 {
		return status
	}
	end := len(status) - 1
	return append(append(status[:end:end], bytes.Repeat([]byte(" "), missing)...), status[end])
}
