package observe

import (
	"slices"
	"time"

	"external-server/internal/car"
	"external-server/internal/fleet"
	"external-server/internal/session"
)

// Bounds of what is remembered per car.
const (
	keptPayload  = 4 << 10 // bytes of a last status
	keptCommand  = 1 << 10 // bytes of a command
	keptDevices  = 256
	keptEnds     = 10
	keptCommands = 10
)

// Payload is the beginning of a payload.
type Payload struct {
	Data []byte // at most 4 KiB of a status, 1 KiB of a command
	Size int    // of the whole payload
}

// keep copies a payload into the memory of an older one.
func (p *Payload) keep(data []byte, limit int) {
	p.Size = len(data)
	data = data[:min(len(data), limit)]
	if cap(p.Data) > 2*len(data)+64 { // one large payload must not hold its memory for ever
		p.Data = nil
	}
	p.Data = append(p.Data[:0], data...)
}

func (p Payload) clone() Payload { return Payload{Data: slices.Clone(p.Data), Size: p.Size} }

// Status is the last status of a device.
type Status struct {
	At      time.Time // of its arrival
	Counter uint32
	State   fleet.DeviceState
	Payload Payload
	Error   Payload
}

// CommandState is where a command is on its way.
type CommandState string

// States of a command, in this order; the last six are final.
const (
	CommandAccepted  CommandState = "accepted"     // an operator's: the HTTP API has it, no module has fetched it
	CommandQueued    CommandState = "queued"       // fetched from the module
	CommandSent      CommandState = "sent"         // handed to the link
	CommandAnswered  CommandState = "acknowledged" // the gateway said OK
	CommandRefused   CommandState = "refused"      // the gateway said anything else
	CommandExpired   CommandState = "expired"      // not answered in time (CMD-10)
	CommandLost      CommandState = "lost"         // the session ended before an answer came
	CommandDiscarded CommandState = "discarded"    // never sent
	CommandDeleted   CommandState = "deleted"      // an operator's: the HTTP API has deleted it before a module fetched it
)

// Command is one command of a module.
type Command struct {
	Module   int32
	Counter  uint32 // from CommandSent on
	Device   fleet.Device
	State    CommandState
	Response fleet.ResponseType
	Fetched  time.Time
	Sent     time.Time // zero: not yet
	Ended    time.Time // of the final state
	Payload  Payload
	Order    *Ordered // nil: not an operator's
}

// Device is what is remembered of one device.
type Device struct {
	fleet.Device
	Connected   bool
	Since       time.Time // of Connected, as it is
	Statuses    uint64
	Status      Status // At is zero: none yet
	Commands    uint64
	LastCommand Command // Fetched is zero: none yet
}

// End is the end of a session or connect sequence.
type End struct {
	At          time.Time
	Session     string
	Reason      string
	Established bool // it had completed its connect sequence
	Lasted      time.Duration
	Unanswered  int // commands
}

// values is what a car's observer remembers. The caller holds the car's mutex.
type values struct {
	devices  []*Device
	ends     []End // newest last
	commands []Command
	drops    map[string]uint64
	ordered  *orders // nil: operators have sent none
}

func (v *values) find(id fleet.DeviceID) *Device {
	for _, d := range v.devices {
		if d.Module == id.Module && d.Type == id.Type && d.Role == id.Role {
			return d
		}
	}
	return nil
}

// device returns the device, remembering it when it is new. When too many are
// remembered, the longest gone one is forgotten; nil when all are connected.
func (v *values) device(d fleet.Device) *Device {
	if known := v.find(d.ID()); known != nil {
		return known
	}
	if len(v.devices) >= keptDevices {
		i := slices.IndexFunc(v.devices, func(d *Device) bool { return !d.Connected })
		if i < 0 {
			return nil
		}
		v.devices = slices.Delete(v.devices, i, i+1)
	}
	known := &Device{Device: d}
	v.devices = append(v.devices, known)
	return known
}

func (v *values) connected(d fleet.Device, is bool, at time.Time) {
	known := v.find(d.ID())
	if known == nil {
		if !is {
			return
		}
		if known = v.device(d); known == nil {
			return
		}
	}
	known.Device, known.Connected, known.Since = d, is, at
}

// status remembers a status of a device that the session knows; others would let
// a stranger fill the memory.
func (v *values) status(m *fleet.ClientMessage, at time.Time) {
	d := v.find(m.Device.ID())
	if d == nil {
		return
	}
	d.Statuses++
	s := &d.Status
	s.At, s.Counter, s.State = at, m.Counter, m.State
	s.Payload.keep(m.Data, keptPayload)
	s.Error.keep(m.Error, keptPayload)
}

func (v *values) fetched(module int32, c *fleet.Command) {
	made := Command{Module: module, Device: c.Device, State: CommandQueued, Fetched: c.Fetched}
	made.Payload.keep(c.Data, keptCommand)
	if v.commands == nil {
		v.commands = make([]Command, 0, keptCommands)
	}
	for _, next := range append(v.ordered.claim(&made, c.Data), made) {
		if len(v.commands) == keptCommands {
			v.commands = slices.Delete(v.commands, 0, 1)
		}
		v.commands = append(v.commands, next)
	}
	v.note(&v.commands[len(v.commands)-1], true)
}

// note copies a command to its device.
func (v *values) note(c *Command, fresh bool) {
	d := v.find(c.Device.ID())
	if d == nil {
		return
	}
	if fresh {
		d.Commands++
	}
	if fresh || d.LastCommand.Fetched.Equal(c.Fetched) && (d.LastCommand.Sent.IsZero() || d.LastCommand.Counter == c.Counter) {
		kept := d.LastCommand.Payload
		d.LastCommand = *c
		d.LastCommand.Payload = kept
		if fresh {
			d.LastCommand.Payload.keep(c.Payload.Data, keptCommand)
			d.LastCommand.Payload.Size = c.Payload.Size
		}
	}
}

func (v *values) sent(ev *car.Event) {
	for i := range v.commands {
		c := &v.commands[i]
		if c.State == CommandQueued && c.Fetched.Equal(ev.Command.Fetched) && c.Device.ID() == ev.Command.Device.ID() {
			c.State, c.Sent, c.Counter = CommandSent, ev.At, ev.Counter
			v.note(c, false)
			return
		}
	}
}

func (v *values) answered(ev *car.Event) {
	for i := range v.commands {
		c := &v.commands[i]
		if c.State == CommandSent && c.Counter == ev.Counter {
			c.State, c.Ended, c.Response = CommandAnswered, ev.At, ev.Response
			if ev.Response != fleet.ResponseOK {
				c.State = CommandRefused
			}
			v.note(c, false)
			return
		}
	}
}

// discarded ends up to n queued commands of a module, oldest first.
func (v *values) discarded(module int32, n int, at time.Time) {
	for i := range v.commands {
		if c := &v.commands[i]; n > 0 && c.State == CommandQueued && c.Module == module {
			c.State, c.Ended = CommandDiscarded, at
			v.note(c, false)
			n--
		}
	}
}

// ended settles what the session leaves open.
// resumed takes the devices of a session that an earlier process had.
func (v *values) resumed(ev *car.Event) {
	for _, d := range ev.Devices {
		v.connected(d, true, ev.At)
	}
}

func (v *values) ended(ev *car.Event) {
	if len(v.ends) >= keptEnds {
		v.ends = slices.Delete(v.ends, 0, len(v.ends)-keptEnds+1)
	}
	v.ends = append(v.ends, End{
		At: ev.At, Session: ev.SessionID, Reason: ev.Reason, Established: ev.Established,
		Lasted: ev.At.Sub(ev.Since), Unanswered: ev.Count,
	})
	expired := ev.Reason == string(session.ReasonCommandTimeout) || ev.Reason == string(session.ReasonSilent) // the oldest one
	for i := range v.commands {
		c := &v.commands[i]
		switch {
		case c.State == CommandSent && expired:
			c.State, expired = CommandExpired, false
		case c.State == CommandSent:
			c.State = CommandLost
		case c.State == CommandQueued:
			c.State = CommandDiscarded
		default:
			continue
		}
		c.Ended = ev.At
		v.note(c, false)
	}
}

func (v *values) dropped(ev *car.Event) {
	if v.drops == nil {
		v.drops = make(map[string]uint64)
	}
	v.drops[ev.Reason] += uint64(ev.Count)
	switch ev.Reason {
	case string(session.NoteCommandsStale), string(session.NoteCommandsOverflow), car.DropStale:
		v.discarded(ev.Module, ev.Count, ev.At)
	case string(session.NoteCommandMismatch):
		for i := range v.commands {
			if c := &v.commands[i]; c.State == CommandQueued && c.Device.ID() == ev.Device.ID() {
				c.State, c.Ended = CommandDiscarded, ev.At
				return
			}
		}
	}
}
