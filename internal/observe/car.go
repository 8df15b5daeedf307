package observe

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"external-server/internal/car"
	"external-server/internal/fleet"
	"external-server/internal/session"
)

// Car observes one car. It implements car.Observer. It outlives the car's actor:
// what it remembers survives a reload that changes the car.
type Car struct {
	hub     *Hub
	id      fleet.CarID
	modules atomic.Pointer[[]*moduleMetrics] // used so far
	tracing carTraces
	tail    atomic.Pointer[tail] // nil: it is not watched

	mu     sync.Mutex
	state  state
	values values
	faults map[string]fault // by reason
	joins  folded           // devices of the session that connects
	leaves folded           // devices of the session that ends
}

// tail is the ring of a car's messages while somebody watches.
type tail struct {
	ring     *Ring[Message]
	watchers int // guarded by Car.mu
}

// fault limits the events of one reason.
type fault struct {
	last       time.Time
	suppressed int
}

// maxFaultReasons bounds the reasons remembered per car; they come from fixed
// lists, so it is never reached.
const maxFaultReasons = 64

// state is the coarse state of a car.
type state int

// States that are counted.
const (
	stateWaiting state = iota
	stateConnecting
	stateRunning
	stateCount
)

var stateNames = [stateCount]string{"waiting", "connecting", "running"}

// Observe implements car.Observer.
func (c *Car) Observe(ev *car.Event) {
	c.measure(ev)
	if c.hub.tracer != nil {
		c.trace(ev)
	}
	switch ev.Kind {
	case car.Received:
		if ev.In.Kind == fleet.ClientStatus {
			c.mu.Lock()
			c.values.status(&ev.In, ev.Since)
			c.mu.Unlock()
		}
		if t := c.tail.Load(); t != nil {
			t.ring.Put(func(uint64) Message { return received(&ev.In, ev.At) })
		}
	case car.Sent:
		if t := c.tail.Load(); t != nil {
			t.ring.Put(func(uint64) Message { return sent(&ev.Out, ev.At, ev.OK) })
		}
	case car.Forwarded, car.Link, car.Called:
	default:
		c.remember(ev)
	}
}

// remember takes what changes rarely.
func (c *Car) remember(ev *car.Event) {
	out := Event{At: ev.At, Car: c.id.Car, Session: ev.SessionID}
	c.mu.Lock()
	defer c.mu.Unlock() // also keeps the events of one car in order
	switch ev.Kind {
	case car.SessionStarted:
		c.become(stateConnecting)
		out.Kind = KindConnect
	case car.SessionRunning:
		c.become(stateRunning)
		out.Kind, out.Seconds = KindRunning, ev.At.Sub(ev.Since).Seconds()
	case car.SessionResumed:
		c.become(stateRunning)
		c.values.resumed(ev)
		out.Kind, out.Seconds = KindResumed, ev.Took.Seconds()
	case car.SessionEnded:
		c.become(stateWaiting)
		c.values.ended(ev)
		out.Kind, out.Reason, out.Count, out.Seconds = KindDisconnect, ev.Reason, ev.Count, ev.At.Sub(ev.Since).Seconds()
	case car.DeviceConnected, car.DeviceDisconnected:
		if !c.device(ev) {
			return
		}
		out.Kind, out.Device, out.Module = KindDeviceJoined, ev.Device.String(), ev.Device.Module
		if ev.Kind == car.DeviceDisconnected {
			out.Kind = KindDeviceLeft
		}
	case car.CommandFetched:
		c.values.fetched(ev.Module, &ev.Command)
	case car.CommandSent:
		if !ev.Command.Fetched.IsZero() { // empty first commands are none of a module's
			c.values.sent(ev)
		}
	case car.CommandAnswered:
		if !ev.Command.Fetched.IsZero() {
			c.values.answered(ev)
		}
	case car.Dropped:
		c.values.dropped(ev)
		c.fault(ev, &out)
	case car.Noted:
		c.fault(ev, &out)
	}
	if out.Kind != "" {
		c.tellFolded(ev.SessionID)
		c.hub.Events.Put(out)
	}
}

// fault makes an event of a warning, at most one per second and reason.
func (c *Car) fault(ev *car.Event, out *Event) {
	if ev.Kind == car.Noted && ev.Level < session.Warning {
		return
	}
	switch ev.Reason {
	case string(session.NoteNotConnected), string(session.NoteRedelivered), string(session.NoteFirstStatusRepeated):
		return // part of ordinary life
	}
	f, known := c.faults[ev.Reason]
	if ev.At.Sub(f.last) < faultPause {
		f.suppressed += ev.Count
		c.faults[ev.Reason] = f
		return
	}
	if c.faults == nil {
		c.faults = make(map[string]fault)
	}
	if known || len(c.faults) < maxFaultReasons {
		c.faults[ev.Reason] = fault{last: ev.At}
	}
	out.Kind, out.Reason, out.Count = KindFault, ev.Reason, ev.Count+f.suppressed
	out.Device, out.Module = deviceText(ev.Device), ev.Module
}

// become counts the car under its new state; the caller holds mu.
func (c *Car) become(s state) {
	c.hub.states[c.state].Add(-1)
	c.hub.states[s].Add(1)
	c.state = s
}

// View is what is remembered of a car; the receiver owns it.
type View struct {
	Devices  []Device
	Ends     []End     // newest first
	Commands []Command // newest first; those that no module has fetched yet come first
	Drops    map[string]uint64
}

// View may be called from any goroutine.
func (c *Car) View() View {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := View{Ends: slices.Clone(c.values.ends), Commands: slices.Clone(c.values.commands), Drops: maps.Clone(c.values.drops)}
	v.Commands = append(v.Commands, c.values.ordered.accepted()...)
	slices.Reverse(v.Ends)
	slices.Reverse(v.Commands)
	for i := range v.Commands {
		v.Commands[i].Payload = v.Commands[i].Payload.clone()
	}
	for _, d := range c.values.devices {
		made := *d
		made.Status.Payload, made.Status.Error = d.Status.Payload.clone(), d.Status.Error.clone()
		made.LastCommand.Payload = d.LastCommand.Payload.clone()
		v.Devices = append(v.Devices, made)
	}
	return v
}

// DevicesOf returns what is remembered of the devices of one module, without
// their commands; the receiver owns it.
func (c *Car) DevicesOf(module int32) []Device {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Device
	for _, d := range c.values.devices {
		if d.Module != module {
			continue
		}
		made := *d
		made.Status.Payload, made.Status.Error = d.Status.Payload.clone(), d.Status.Error.clone()
		made.LastCommand = Command{}
		out = append(out, made)
	}
	return out
}

// LastEnd returns the newest end of a session, if there was one.
func (c *Car) LastEnd() (End, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.values.ends); n > 0 {
		return c.values.ends[n-1], true
	}
	return End{}, false
}

// Watch starts the live tail; the caller must call stop once. Messages that come
// from now on are in the ring.
func (c *Car) Watch() (messages *Ring[Message], stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tail.Load()
	if t == nil {
		t = &tail{ring: NewRing[Message](tailLength)}
		c.tail.Store(t)
	}
	t.watchers++
	return t.ring, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if t.watchers--; t.watchers == 0 {
			c.tail.CompareAndSwap(t, nil)
		}
	}
}
