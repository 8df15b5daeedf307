package session

import (
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// status puts a status of normal communication into counter order (STAT-1..8).
func (s *Session) status(m fleet.ClientMessage) {
	s.note(Debug, NoteStatusReceived, m.Device, m.Counter)
	o := &s.order
	if s.hint != nil && !s.adopt(m) {
		return
	}
	if !o.Started { // STAT-2, DEF-10, REC-10: any first value
		s.firstCounts(m.Counter)
		s.carry()
	}
	ahead := int32(m.Counter - o.Expected)
	if s.inHand && m.Counter == s.hand && ahead >= 0 && !o.Has(m.Counter) {
		s.unsaid = append(s.unsaid, m.Counter)
	}
	switch {
	case ahead < 0:
		s.note(Warning, NoteStatusLow, m.Device, m.Counter) // STAT-3
	case o.Has(m.Counter):
		s.note(Info, NoteStatusDuplicate, m.Device, m.Counter) // STAT-8, DEF-7, DEF-8
	case ahead > 0 && o.Full(&m, s.opts.MaxAhead, s.opts.MaxAheadBytes):
		s.end(ReasonTooManyAhead, true) // DEF-9, REC-22
	case ahead == 0 && o.Len() == 0 && s.admitBy.IsZero() && s.roomFor(m):
		o.Expected++ // the common case needs no buffer
		s.accepted(m)
	default:
		s.putAside(m)
		s.drain()
	}
	s.endWithoutDevices() // even when it was dropped (STAT-34)
}

// firstCounts makes the counter the first one (STAT-2). The broker is told of the first status behind all commands
// that were sent before.
func (s *Session) firstCounts(counter uint32) {
	s.order.Begin(counter)
	s.sent.Stand(0, counter)
}

// drain accepts what is next in order, as long as no admission is undecided and
// the module has room (STAT-4, STAT-6).
func (s *Session) drain() {
	o := &s.order
	o.RoomAt = time.Time{}
	if !s.certain() {
		return
	}
	for s.phase == PhaseRunning && s.admitBy.IsZero() {
		m, ok := o.Waiting(o.Expected)
		if !ok {
			break
		}
		if !s.roomFor(m) {
			// The answer is withheld until the queue has room.
			o.RoomAt = s.now.Add(s.opts.RoomRetry)
			break
		}
		o.Take(&m)
		s.accepted(m)
	}
	if s.phase != PhaseRunning || s.recovery != nil { // a gap is judged when all was read
		return
	}
	if o.Has(o.Expected) || o.Len() == 0 {
		o.MissingBy = time.Time{}
	} else if o.MissingBy.IsZero() {
		o.MissingBy = o.SeenMissing().Add(s.opts.MessageTimeout) // of this counter, not of the gap before
		s.note(Warning, NoteStatusMissing, fleet.Device{}, o.Expected)
		if s.behindKnown && s.behind == o.Expected { // the newest did not fit
			s.note(Warning, NoteBacklogGap, fleet.Device{}, o.Expected)
		}
		s.behindKnown = false
	}
}

// roomFor tells whether the status can be handed over now. One that will not be
// forwarded needs no room.
func (s *Session) roomFor(m fleet.ClientMessage) bool {
	if s.owed.Len() < s.opts.MaxAhead && (!s.mayForward(m) || s.hasRoom(m.Device.Module)) {
		s.order.Withheld = false
		return true
	}
	if !s.order.Withheld {
		s.order.Withheld = true
		s.note(Warning, NoteStatusWithheld, m.Device, m.Counter)
	}
	return false
}

// mayForward tells whether the status goes to a module, or will if its device
// is admitted.
func (s *Session) mayForward(m fleet.ClientMessage) bool {
	if dev := s.find(m.Device.ID()); dev != nil {
		return dev.supported
	}
	why, _ := s.unservable(m.Device)
	return s.joins(m) && why == ""
}

// accepted handles a status whose turn it is (STAT-20..STAT-28).
func (s *Session) accepted(m fleet.ClientMessage) {
	dev := s.find(m.Device.ID())
	switch {
	case dev != nil && dev.supported:
		s.connectedStatus(dev, m)
	case dev != nil:
		s.unsupportedStatus(dev, m)
	default:
		if s.unknownDevice(m) {
			return
		}
	}
	s.endWithoutDevices()
}

// unknownDevice handles a status of a device that is not known. It reports true
// when the status waits for its module, at the head of the order.
func (s *Session) unknownDevice(m fleet.ClientMessage) (waits bool) {
	why, certain := s.unservable(m.Device)
	if !s.joins(m) && !certain {
		s.ask(m)
		return true
	}
	s.asking = question{}
	switch {
	case why != "":
		s.note(Warning, why, m.Device, 0)
		s.unsupportedStatus(nil, m)
	case s.joins(m):
		return s.lateJoin(m) // STAT-20
	case m.State < fleet.StateConnecting || m.State > fleet.StateDisconnect:
		s.pass(m)
		s.note(Warning, NoteStatusState, m.Device, m.Counter) // STAT-28
	default:
		s.pass(m)
		s.note(Info, NoteStatusNotConnected, m.Device, m.Counter) // STAT-24, STAT-26, DEF-44
	}
	return false
}

func (s *Session) connectedStatus(dev *device, m fleet.ClientMessage) {
	switch m.State {
	case fleet.StateError: // DEF-46: like RUNNING
		s.note(Warning, NoteStatusErrorState, m.Device, m.Counter)
	case fleet.StateConnecting, fleet.StateRunning, fleet.StateDisconnect: // STAT-22 with DEF-47, STAT-23, STAT-25
	default:
		s.pass(m)
		s.note(Warning, NoteStatusState, m.Device, m.Counter) // STAT-28
		return
	}
	s.recordStatus(m, record.StatusRunning|record.StatusForwarded|record.StatusAnswered)
	s.respond(m, true, s.forward(m)) // STAT-30, STAT-31
	if m.State == fleet.StateDisconnect {
		s.disconnect(dev) // STAT-25
	}
}

// answer answers one status (MSG-2).
func (s *Session) answer(m fleet.ClientMessage) {
	s.said(m.Counter)
	s.emit(Effect{
		Kind:    EffectPublish,
		Message: fleet.ServerMessage{Kind: fleet.ServerStatusResponse, SessionID: s.id, Counter: m.Counter},
		Since:   m.Received,
	})
}

// unsupportedStatus answers without forwarding, whatever the state (REC-6).
func (s *Session) unsupportedStatus(dev *device, m fleet.ClientMessage) {
	s.note(Debug, NoteStatusUnsupported, m.Device, m.Counter)
	s.recordStatus(m, record.StatusRunning|record.StatusAnswered)
	s.respond(m, false, 0)
	if m.State == fleet.StateDisconnect {
		if dev != nil {
			s.remove(dev)
		}
	} else if dev == nil && len(s.devices) < s.opts.MaxDevices {
		s.devices = append(s.devices, &device{Device: m.Device})
		s.changed = true
	}
}

// lateJoin offers the device to its module; the status waits for the answer at
// the head of the order, and with it everything behind (STAT-20, REC-24).
func (s *Session) lateJoin(m fleet.ClientMessage) (waits bool) {
	if len(s.devices) >= s.opts.MaxDevices {
		s.pass(m)
		s.note(Warning, NoteStatusNotConnected, m.Device, m.Counter)
		return false
	}
	s.join(m.Device, false)
	s.wait(m)
	return true
}

// wait puts the status whose turn it is back to the head of the order.
func (s *Session) wait(m fleet.ClientMessage) {
	s.order.Expected--
	s.putAside(m)
}

// disconnect tells the module that the device left and forgets it.
func (s *Session) disconnect(dev *device) {
	s.emit(Effect{Kind: EffectDeviceDisconnected, Device: dev.Device, Disconnect: fleet.DisconnectAnnounced})
	s.note(Info, NoteDeviceDisconnected, dev.Device, 0)
	s.remove(dev)
}

func (s *Session) remove(dev *device) {
	s.changed = true
	s.owed.DeviceLeft(dev.ID())
	if s.rejoin && len(s.left) < s.opts.MaxDevices {
		s.left = append(s.left, dev.ID())
	}
	s.devices = slices.DeleteFunc(s.devices, func(d *device) bool { return d == dev })
}

// endWithoutDevices ends the session when its last connected device is gone
// (STAT-34). A session that never had a supported device lives as long as it
// has any device at all (REC-6).
func (s *Session) endWithoutDevices() {
	if s.phase != PhaseRunning || s.owed.Len() > 0 { // the gateway gets its answers first
		return
	}
	for _, d := range s.devices {
		if d.supported || !s.withModule {
			return
		}
	}
	s.end(ReasonNoDevice, true)
}
