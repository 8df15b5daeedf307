package sim

import (
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// commandLedger is what modules issued and the car got in one session.
type commandLedger struct {
	waiting []sentCommand             // not acknowledged, in counter order
	owed    map[int32][]fleet.Command // fetched, not sent yet, per module
}

type sentCommand struct {
	counter   uint32
	at        time.Time
	module    int32 // whose acknowledgement it is, 0: of none
	device    fleet.DeviceID
	data      string
	responded bool
}

// ack is an acknowledgement that must come.
type ack struct {
	module int32
	data   string
}

// reset begins a session. keep: what the modules have next is of the session before.
func (l *commandLedger) reset(keep bool) {
	if l.owed == nil {
		l.owed = make(map[int32][]fleet.Command)
	}
	l.waiting = l.waiting[:0]
	if !keep {
		clear(l.owed)
	}
}

// running: commands of the sequence whose time is up are awaited anew (REC-7).
func (l *commandLedger) running(now time.Time) {
	for i := range l.waiting {
		if now.Sub(l.waiting[i].at) >= messageTimeout {
			l.waiting[i].at = now
		}
	}
}

// overflow drops the oldest of the commands held back (REC-22).
func (l *commandLedger) overflow(module int32, n int) {
	l.owed[module] = slices.Delete(l.owed[module], 0, min(n, len(l.owed[module])))
}

// fetched notes what a module issued. Without a connected device of the module
// it is stale (DEF-38).
func (a *auditor) fetched(module int32, commands []fleet.Command) {
	if a.hasModule(module) {
		l := &a.current.sent
		l.owed[module] = append(l.owed[module], commands...)
	}
}

// hasModule tells whether a device of the module is connected.
func (a *auditor) hasModule(module int32) bool {
	for id := range a.current.live {
		if id.Module == module {
			return true
		}
	}
	return false
}

// commandSent checks one Command.
func (a *auditor) commandSent(m *fleet.ServerMessage) {
	c := &a.current
	if m.Counter != a.nextCommand {
		a.fail("CMD-11: command %d, want %d", m.Counter, a.nextCommand)
	}
	a.nextCommand = m.Counter + 1
	id := m.Device.ID()
	s := sentCommand{counter: m.Counter, at: a.now, device: id, data: string(m.Data)}
	if len(m.Data) > 0 {
		s.module = a.pay(m)
	} else if c.live[id] {
		s.module = id.Module
	}
	if !c.running {
		c.commands++
		l := c.listedDevice(id)
		if l == nil || l.commanded || c.answers != len(c.listed) {
			a.fail("SEQ-33: first command %d for %v after %d answers of %d", m.Counter, m.Device, c.answers, len(c.listed))
			return
		}
		l.commanded = true
		want := l.device
		if len(m.Data) == 0 {
			want.Priority = 0 // MSG-5
			if slices.ContainsFunc(c.sent.owed[id.Module], func(o fleet.Command) bool { return o.Device.ID() == id }) && c.live[id] {
				a.fail("SEQ-31: first command for %v is empty although its module has one", m.Device)
			}
			if !c.live[id] {
				s.module = 0
			}
		}
		if m.Device != want {
			a.fail("DEF-32: first command for %v priority %d, announced as %v priority %d", m.Device, m.Device.Priority, want, want.Priority)
		}
	} else if c.live[id] {
		i := slices.IndexFunc(pool[:], func(d fleet.Device) bool { return d.ID() == id })
		if m.Device != pool[i] {
			a.fail("DEF-32: command for %v priority %d, announced as %v priority %d", m.Device, m.Device.Priority, pool[i], pool[i].Priority)
		}
	}
	if c.progress = a.now; c.running && len(m.Data) == 0 {
		a.fail("REC-24: command %d without data for %v in normal communication", m.Counter, m.Device)
	}
	if c.running && a.now.Before(c.calledUntil) {
		a.fail("GW-15: command %d is sent while the gateway connects anew", m.Counter)
	}
	c.sent.waiting = append(c.sent.waiting, s)
}

// pay takes a command off what is owed and returns whose it was. In normal
// communication the order is that of the module; a first command may overtake
// those for other devices.
func (a *auditor) pay(m *fleet.ServerMessage) int32 {
	c := &a.current
	for module, owed := range c.sent.owed {
		for i, o := range owed {
			if string(o.Data) != string(m.Data) {
				if !c.running && o.Device.ID() == m.Device.ID() || c.running && !a.mismatch(module, o) {
					break // what comes first must go first
				}
				continue
			}
			if a.mismatch(module, o) {
				a.fail("CMD-6: command %q of module %d for %v was sent", m.Data, module, o.Device)
			}
			if o.Device.ID() != m.Device.ID() {
				a.fail("command %q for %v is sent to %v", m.Data, o.Device, m.Device)
			}
			if c.running {
				c.sent.owed[module] = slices.Delete(owed, 0, i+1)
			} else {
				c.sent.owed[module] = slices.Delete(owed, i, i+1)
			}
			if !configured(o.Device.Module) {
				return 0 // DEF-39
			}
			return module
		}
	}
	a.fail("DEF-36: command %d %q for %v is not what the modules have next: %v", m.Counter, m.Data, m.Device, c.sent.owed)
	return 0
}

// mismatch tells whether a command is dropped because of its device (CMD-6).
func (a *auditor) mismatch(module int32, c fleet.Command) bool {
	return c.Device.Module != module && !a.w.sc.SendInvalid
}

// checkOwed: in normal communication every command has been sent (CMD-4, CMD-5,
// DEF-13, REC-13).
func (a *auditor) checkOwed() {
	for module, owed := range a.current.sent.owed {
		for _, o := range owed {
			if !a.mismatch(module, o) {
				a.fail("CMD-4: command %q of module %d was not sent", o.Data, module)
			}
		}
		delete(a.current.sent.owed, module)
	}
}

// responded notes a CommandResponse and what it must acknowledge (CMD-20,
// CMD-21, SEQ-40, CMD-25).
func (a *auditor) responded(m fleet.ClientMessage) {
	l := &a.current.sent
	i := slices.IndexFunc(l.waiting, func(s sentCommand) bool { return s.counter == m.Counter })
	if i < 0 {
		return
	}
	l.waiting[i].responded = true
	refused := m.Response == fleet.ResponseDeviceNotConnected && a.phase == session.PhaseRunning
	if refused && a.current.live[l.waiting[i].device] && !a.undecided(l.waiting[i].device) {
		if id := l.waiting[i].device; !a.current.statuses.leaves(id) {
			a.inStep.mustLeave = id // CMD-23
		} else if a.current.loose {
			a.inStep.mayLeave = id
		}
	}
	for len(l.waiting) > 0 && l.waiting[0].responded {
		s := l.waiting[0]
		l.waiting = slices.Delete(l.waiting, 0, 1)
		if s.module == 0 || a.phase == session.PhaseCommands && (s.data == "" || !a.current.live[s.device]) {
			continue
		}
		a.inStep.acks = append(a.inStep.acks, ack{s.module, s.data})
	}
}

func (a *auditor) undecided(id fleet.DeviceID) bool {
	for _, other := range a.current.asked {
		if other == id {
			return true
		}
	}
	return false
}

// acked checks one command_ack.
func (a *auditor) acked(e *session.Effect) {
	if a.current.loose {
		return
	}
	got := ack{e.Module, string(e.Command.Data)}
	if len(a.inStep.acks) == 0 || a.inStep.acks[0] != got {
		a.fail("CMD-20: command_ack %d %q to module %d, due are %v", e.Counter, got.data, got.module, a.inStep.acks)
		return
	}
	a.inStep.acks = slices.Delete(a.inStep.acks, 0, 1)
}
