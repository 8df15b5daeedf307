package session

import (
	"slices"
	"time"

	"external-server/internal/fleet"
)

// unbind takes the devices away from modules whose contexts come to their end. A
// session in normal communication goes on with other ones (rebind); a connect sequence
// ends, because answers of these modules are a part of it.
func (s *Session) unbind() {
	if s.phase != PhaseRunning {
		s.end(ReasonReloaded, true)
		return
	}
	for _, d := range s.devices {
		if d.started {
			s.emit(Effect{Kind: EffectDeviceDisconnected, Device: d.Device, Disconnect: fleet.DisconnectTimeout})
		}
		d.started, d.ticket = false, 0
	}
	// A device that waits for its module's answer comes again with its status, which
	// waits at the head of the order.
	s.devices = slices.DeleteFunc(s.devices, func(d *device) bool { return d.asked })
	s.asking, s.admitBy = question{}, time.Time{}
}

// rebind announces the devices to the contexts that the car has now. Where a device
// begins or stops to be supported, the gateway is made to connect anew (RES-18),
// unless it is at it (greeted): a call would fail its attempt.
func (s *Session) rebind(greeted bool) {
	if s.phase != PhaseRunning {
		return
	}
	changed := false
	for _, d := range s.devices {
		why, certain := s.unservable(d.Device)
		supported := why == ""
		changed = changed || supported != d.supported && certain
		d.supported = d.supported && supported
		if d.supported {
			s.tickets++
			d.started, d.rebound, d.ticket = true, true, s.tickets
			s.emit(Effect{Kind: EffectDeviceConnected, Device: d.Device, Ticket: d.ticket})
		}
	}
	for i := range s.pending {
		if !s.moduleConnected(s.pending[i].Module, nil) {
			s.stale(&s.pending[i])
		}
	}
	s.withModule = s.withModule && slices.ContainsFunc(s.devices, func(d *device) bool { return d.supported })
	s.changed = true
	if changed && !greeted {
		s.connectAnew()
		return
	}
	s.drain()
}

// connectAnew makes the gateway connect anew; the session goes on until it does. A command that met the
// gateway's Connect on its way would fail its attempt (GW-15), so commands are held back for a while.
func (s *Session) connectAnew() {
	if s.recovery != nil { // as soon as it can be reached
		s.anew = true
		return
	}
	s.anew = false
	if s.phase == PhaseRunning {
		s.anewBy = s.now.Add(s.opts.QuietAfterEnd)
	}
	s.callAnew(s.id)
	s.stayQuiet(s.opts.QuietAfterEnd)
}
