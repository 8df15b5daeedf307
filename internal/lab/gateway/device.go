package gateway

import (
	"time"

	"external-server/internal/fleet"
)

// maxCommands is the number of undelivered commands kept per device (GW-41).
const maxCommands = 3

// maxSilent is the number of forced periods after which a silent device has left
// (GW-6).
const maxSilent = 2

// device is what a gateway knows of a device. The record outlives the registration,
// because the list of connected devices does (GW-52).
type device struct {
	fleet.Device
	registered bool
	joined     uint64    // order of registration
	status     []byte    // the last known one
	forcedAt   time.Time // GW-5; zero when not registered
	silent     int       // forced periods since the device was heard (GW-6)
	connected  int       // entries in the list of connected devices (GW-52)
	failed     bool      // err holds the aggregated error of an outage
	err        []byte
	commands   [maxCommands]command
	queued     int // commands in use
}

type command struct {
	data    []byte
	counter uint32
}

// report is a device status on its way to the server.
type report struct {
	device  int
	data    []byte
	leaving bool
	planned time.Time
}

func (d *device) restart() {
	d.connected, d.silent, d.queued = 0, 0, 0
	d.failed, d.err = false, nil
	d.commands = [maxCommands]command{}
}

// find returns the index of a device, or -1. A car has few devices.
func (c *Core) find(id fleet.DeviceID) int {
	for i := range c.devices {
		if d := &c.devices[i]; d.Module == id.Module && d.Type == id.Type && d.Role == id.Role {
			return i
		}
	}
	return -1
}

// list appends the registered devices grouped by module in the order of the
// configuration, each group in the order of registration (GW-12).
func (c *Core) list(to []int) []int {
	for i := range c.devices {
		if !c.devices[i].registered {
			continue
		}
		at := len(to)
		for at > 0 && c.before(i, to[at-1]) {
			at--
		}
		to = append(to, 0)
		copy(to[at+1:], to[at:])
		to[at] = i
	}
	return to
}

func (c *Core) before(a, b int) bool {
	ra, rb := c.rank(c.devices[a].Module), c.rank(c.devices[b].Module)
	return ra < rb || ra == rb && c.devices[a].joined < c.devices[b].joined
}

// rank returns the place of a module in the configuration, or that of its first
// device when every module is configured.
func (c *Core) rank(module int32) int {
	for i := range c.opts.Modules {
		if c.opts.Modules[i].Number == module {
			return i
		}
	}
	if c.opts.Modules == nil {
		for i := range c.devices {
			if c.devices[i].Module == module {
				return i
			}
		}
	}
	return len(c.opts.Modules)
}

// deviceStatus registers the device if need be, gives it a waiting command as the
// answer to its status (GW-54) and reports the status.
func (c *Core) deviceStatus(dev fleet.Device, data []byte, planned time.Time) {
	i := c.find(dev.ID())
	if i < 0 {
		i = len(c.devices)
		c.devices = append(c.devices, device{Device: dev})
	}
	d := &c.devices[i]
	if !d.registered {
		d.Device = dev // name and priority may be new
		d.registered = true
		d.joined = c.nextJoined()
	}
	d.status = data
	d.silent = 0
	d.forcedAt = after(c.now, c.opts.Timing.ForcedStatus)
	c.deliver(d)
	c.report(report{device: i, data: data, planned: planned})
}

func (c *Core) nextJoined() uint64 {
	var last uint64
	for i := range c.devices {
		last = max(last, c.devices[i].joined)
	}
	return last + 1
}

// deviceAlive notes that a device without news is there (GW-6).
func (c *Core) deviceAlive(id fleet.DeviceID) {
	if i := c.find(id); i >= 0 && c.devices[i].registered {
		c.devices[i].silent = 0
		c.deliver(&c.devices[i])
	}
}

// leave unregisters a device and reports it as DISCONNECT.
func (c *Core) leave(i int) {
	d := &c.devices[i]
	d.registered = false
	d.forcedAt = time.Time{}
	d.silent = 0
	for n := range d.queued {
		c.emit(Effect{Kind: EffectCommandDropped, Device: d.Device, Data: d.commands[n].data, Counter: d.commands[n].counter})
	}
	d.queued = 0
	d.commands = [maxCommands]command{}
	c.report(report{device: i, data: d.status, leaving: true})
}

// forceStatuses reports devices without news again (GW-5) and lets silent ones
// leave (GW-6).
func (c *Core) forceStatuses() {
	for i := range c.devices {
		d := &c.devices[i]
		if !due(d.forcedAt, c.now) {
			continue
		}
		d.forcedAt = after(c.now, c.opts.Timing.ForcedStatus)
		if !c.opts.Steady {
			d.silent++
			if d.silent >= maxSilent {
				c.leave(i)
				continue
			}
		}
		c.report(report{device: i, data: d.status})
	}
}

// report sends a status, or does with it what the phase asks for.
func (c *Core) report(r report) {
	switch c.phase {
	case PhaseRunning:
		if !c.stalled.IsZero() {
			c.waiting = append(c.waiting, r) // at most GW-7 long
			return
		}
		c.send(r)
	case PhaseIdle:
		c.aggregate(r.device, r.data)
		if !r.leaving {
			c.startAttempt() // GW-10, GW-40
		}
	case PhaseDropping:
		c.aggregate(r.device, r.data)
		if !c.reason.Reconnects() && !r.leaving {
			c.react()
			c.startAttempt() // GW-40: at once
		}
	default:
		c.aggregate(r.device, r.data) // GW-19
	}
}

// aggregate merges a status that will not be sent into the error of its device.
func (c *Core) aggregate(i int, data []byte) {
	d := &c.devices[i]
	if data == nil {
		data = []byte{} // nil stands for no status
	}
	d.err = c.opts.Aggregate(d.Device, d.err, data)
	d.failed = true
}

// send sends a status in normal communication; its state follows from the list of
// connected devices (GW-52).
func (c *Core) send(r report) {
	d := &c.devices[r.device]
	state := fleet.StateRunning
	var errorMessage []byte
	switch {
	case r.leaving:
		state = fleet.StateDisconnect
		if d.connected > 0 {
			d.connected--
		}
		if stall := c.opts.Timing.LeaveStall; stall > 0 {
			c.stalled = c.now.Add(stall) // GW-7
		}
	case d.connected == 0:
		state = fleet.StateConnecting
		d.connected++
		errorMessage = d.takeError()
	}
	c.sendStatus(r.device, r.data, state, errorMessage, r.planned)
}

func (d *device) takeError() []byte {
	if !d.failed {
		return nil
	}
	err := d.err
	d.failed, d.err = false, nil
	return err
}

// sendStatus sends one status with the next counter (GW-51).
func (c *Core) sendStatus(i int, data []byte, state fleet.DeviceState, errorMessage []byte, planned time.Time) {
	c.counter++
	if planned.IsZero() {
		planned = c.now
	}
	c.outstanding.push(sent{counter: c.counter, at: c.now, planned: planned, device: i, data: data})
	c.emit(Effect{Kind: EffectSend, Message: fleet.ClientMessage{
		Kind:      fleet.ClientStatus,
		SessionID: c.session,
		State:     state,
		Counter:   c.counter,
		Device:    c.devices[i].Device,
		Data:      data,
		Error:     errorMessage,
	}})
}

// flush sends what waited for the end of a stall; a DISCONNECT among it starts the
// next one (GW-7).
func (c *Core) flush() {
	c.stalled = time.Time{}
	n := 0
	for n < len(c.waiting) && c.stalled.IsZero() {
		c.send(c.waiting[n])
		n++
	}
	rest := copy(c.waiting, c.waiting[n:])
	clear(c.waiting[rest:])
	c.waiting = c.waiting[:rest]
}

// noneConnected tells whether the list of connected devices is empty (GW-33).
func (c *Core) noneConnected() bool {
	for i := range c.devices {
		if c.devices[i].connected > 0 {
			return false
		}
	}
	return true
}

// deliver gives the device the oldest waiting command (GW-54).
func (c *Core) deliver(d *device) {
	if d.queued == 0 {
		return
	}
	next := d.commands[0]
	copy(d.commands[:], d.commands[1:d.queued])
	d.queued--
	d.commands[d.queued] = command{}
	c.emit(Effect{Kind: EffectDeliver, Device: d.Device, Data: next.data, Counter: next.counter})
}

// queue keeps a command for the next status of the device; the oldest gives way
// (GW-41).
func (c *Core) queue(d *device, cmd command) {
	if d.queued == maxCommands {
		c.emit(Effect{Kind: EffectCommandDropped, Device: d.Device, Data: d.commands[0].data, Counter: d.commands[0].counter})
		copy(d.commands[:], d.commands[1:])
		d.queued--
	}
	d.commands[d.queued] = cmd
	d.queued++
}
