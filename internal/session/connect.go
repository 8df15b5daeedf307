package session

import (
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/commands"
	"external-server/internal/session/record"
)

// connect handles a Connect in every phase (REC-3, REC-4).
func (s *Session) connect(m fleet.ClientMessage) {
	if s.phase != PhaseWaiting && m.SessionID == s.id {
		switch {
		case m.Redelivered || s.recovery != nil:
			s.note(Info, NoteRedelivered, fleet.Device{}, 0) // REC-4; an answer would end the session (GW-34)
		case s.phase == PhaseRunning:
			s.note(Info, NoteAlreadyLogged, fleet.Device{}, 0)
			s.publish(fleet.ServerMessage{Kind: fleet.ServerConnectResponse, AlreadyLogged: true}) // SESS-3
		case s.phase == PhaseAdmitting:
			s.hold(m) // it aborts the sequence once the first one is answered
		default:
			s.end(ReasonSequenceRepeated, false) // REC-4
		}
		return
	}
	s.end(ReasonReplaced, false) // REC-3, SESS-4; nothing to end while waiting (SEQ-5)
	s.begin(m)
}

// begin starts the connect sequence (SEQ-3..SEQ-7).
func (s *Session) begin(m fleet.ClientMessage) {
	s.replayed = m.SessionID == s.id || s.contention.Replaced(m.SessionID)
	s.id = m.SessionID
	s.phase = PhaseAdmitting
	s.called, s.anewBy = false, time.Time{}
	s.began = s.now
	s.sent.Begin()
	if s.outgoing {
		s.discardOutgoing()
	}
	s.emit(Effect{Kind: EffectSessionStarted, SessionID: s.id})
	switch {
	case len(m.Devices) == 0:
		s.end(ReasonSequenceNoDevices, false) // SEQ-3
		return
	case m.SessionID == "":
		s.end(ReasonSequenceNoSessionID, false) // SEQ-4
		return
	case len(m.Devices) > s.opts.MaxDevices:
		s.end(ReasonSequenceTooManyNamed, false)
		return
	}
	for _, d := range m.Devices { // SEQ-6: in list order
		if s.find(d.ID()) != nil {
			s.note(Info, NoteDuplicateDevice, d, 0)
			continue
		}
		s.join(d, true)
	}
	s.admitted()
}

// join adds a device: one whose type its module serves, or was never asked about,
// is offered to the module, any other is served without a module (REC-6).
func (s *Session) join(d fleet.Device, listed bool) {
	dev := &device{Device: d, listed: listed}
	if why, _ := s.unservable(d); why != "" {
		s.note(Warning, why, d, 0)
	} else {
		s.tickets++
		dev.supported, dev.started, dev.asked, dev.ticket = true, true, true, s.tickets
		s.emit(Effect{
			Kind:   EffectDeviceConnected,
			Device: d,
			Ticket: dev.ticket,
			First:  !s.moduleConnected(d.Module, nil), // DEV-3
		})
		if s.admitBy.IsZero() {
			s.admitBy = s.now.Add(s.opts.AdmissionTimeout) // REC-8
		}
	}
	s.devices = append(s.devices, dev)
}

// unservable tells why no module takes the device. "" means that one does, for
// certain or as long as it was not asked about the type.
func (s *Session) unservable(d fleet.Device) (why Note, certain bool) {
	if !s.modules.Configured(d.Module) {
		return NoteModuleUnsupported, true
	}
	supported, known := s.recall(d)
	switch {
	case known && !supported:
		return NoteTypeUnsupported, true
	case d.Role == "":
		return NoteEmptyRole, true // DEF-6, DEF-31, MOD-11
	}
	return "", known
}

// admission takes the module's answer to device_connected. A late answer can
// only take the device back (REC-8).
func (s *Session) admission(ticket uint64, ok, unsupported bool) {
	if s.asking.ticket == ticket && s.asking.waiting {
		s.learn(ok)
		return
	}
	i := slices.IndexFunc(s.devices, func(d *device) bool { return d.ticket == ticket })
	if i < 0 {
		return // of a device or session that is gone
	}
	dev := s.devices[i]
	undecided := dev.asked
	dev.asked = false
	dev.ticket = 0
	if ok {
		if undecided {
			s.connected(dev)
		}
	} else {
		if unsupported {
			s.note(Warning, NoteTypeUnsupported, dev.Device, 0)
		} else {
			s.note(Error, NoteRefused, dev.Device, 0)
		}
		dev.supported, dev.started = false, false // REC-6, DEF-48
		s.changed = true
		if dev.rebound { // it was supported as far as the gateway knows
			s.connectAnew()
		}
		// A session whose last device turns out to be unsupported goes on without
		// modules, as if that had been known at once.
		s.withModule = s.withModule && slices.ContainsFunc(s.devices, func(d *device) bool { return d.supported })
		if !s.moduleConnected(dev.Module, nil) {
			s.dropPending(dev.Module)
		}
	}
	if undecided {
		s.admitted()
	}
}

func (s *Session) connected(dev *device) {
	s.withModule, s.changed = true, true
	s.note(Info, NoteDeviceConnected, dev.Device, 0)
}

// decideSlowAdmissions goes on as if the module had accepted (REC-8).
func (s *Session) decideSlowAdmissions() {
	for _, d := range s.devices {
		if d.asked {
			d.asked = false // the ticket stays: a late refusal still counts
			s.note(Warning, NoteAdmissionSlow, d.Device, 0)
			s.connected(d)
		}
	}
	if s.asking.waiting {
		s.note(Warning, NoteAdmissionSlow, s.asking.device, 0)
		s.learn(true) // and nothing is answered that might be a module's
		return
	}
	s.admitted()
}

// admitted goes on when no admission is undecided any more.
func (s *Session) admitted() {
	if s.asking.waiting || slices.ContainsFunc(s.devices, func(d *device) bool { return d.asked }) {
		return
	}
	s.admitBy = time.Time{}
	switch s.phase {
	case PhaseAdmitting:
		s.phase = PhaseStatuses
		s.waitBy = s.now.Add(s.opts.MessageTimeout)
		s.unknown.since = time.Time{}
		s.publish(fleet.ServerMessage{Kind: fleet.ServerConnectResponse}) // SEQ-8
		s.release()
	case PhaseRunning:
		s.drain()
	}
}

// release handles the held messages in the order of their arrival.
func (s *Session) release() {
	held := s.held
	s.held, s.heldBytes = nil, 0
	s.inHand = false // the broker was told of them
	for _, m := range held {
		s.message(m)
	}
}

// firstStatus handles a message of this session while first statuses are
// awaited (SEQ-12 with DEF-3, DEF-4, DEF-16, REC-6, REC-27).
func (s *Session) firstStatus(m fleet.ClientMessage) {
	if m.Kind != fleet.ClientStatus {
		s.note(Info, NoteUnexpected, fleet.Device{}, m.Counter) // REC-27
		s.notOurs(m)
		return
	}
	dev := s.find(m.Device.ID())
	switch {
	case dev == nil:
		s.note(Info, NoteNotListed, m.Device, m.Counter) // DEF-2, DEF-4
	case m.State != fleet.StateConnecting:
		s.end(ReasonSequenceState, false) // SEQ-12, for listed devices only (DEF-16)
	case dev.first:
		s.note(Info, NoteFirstStatusRepeated, m.Device, m.Counter) // SEQ-13, DEF-3
	case s.heldBytes+m.Size() > s.opts.MaxAheadBytes:
		s.end(ReasonSequenceTooManyHeld, false) // REC-22; their number is bounded by that of the devices
	default:
		s.note(Debug, NoteStatusReceived, m.Device, m.Counter) // any counter: SEQ-14
		dev.first = true
		s.firsts = append(s.firsts, m)
		s.heldBytes += m.Size()
		s.acceptFirsts()
		if n := len(s.firsts); n > 0 && s.firsts[n-1].Device.ID() == m.Device.ID() {
			s.note(Warning, NoteStatusWithheld, m.Device, m.Counter)
		}
	}
}

// acceptFirsts accepts the first statuses whose modules have room. The others
// wait and are tried again, while the limit of the sequence goes on: what was not
// answered the gateway brings again. Unlike later statuses they delay no other one,
// because the gateway takes these answers in any order (GW-15).
func (s *Session) acceptFirsts() {
	s.firstsAt = time.Time{}
	rest := s.firsts[:0]
	for _, m := range s.firsts {
		dev := s.find(m.Device.ID())
		if dev.supported && !s.hasRoom(dev.Module) {
			rest = append(rest, m)
			continue
		}
		s.heldBytes -= m.Size()
		if dev.supported {
			s.recordStatus(m, record.StatusAnswered|record.StatusForwarded)
			s.respond(m, true, s.forward(m)) // DEF-5: at once, an answer is a promise
		} else {
			s.respond(m, false, 0) // MSG-4
		}
	}
	clear(s.firsts[len(rest):])
	s.firsts = rest
	if len(rest) > 0 {
		s.firstsAt = s.now.Add(s.opts.RoomRetry)
	}
	s.firstAnswered()
}

// firstAnswered goes on when all first statuses have come and are answered.
func (s *Session) firstAnswered() {
	if len(s.firsts) == 0 && s.owed.Len() == 0 && !slices.ContainsFunc(s.devices, func(d *device) bool { return !d.first }) {
		s.firstCommands()
	}
}

// firstCommands sends exactly one command per listed device: those of the
// modules first, then empty ones in connection order (SEQ-31..SEQ-35). What a
// module has beyond that waits for normal communication (DEF-14, REC-13).
func (s *Session) firstCommands() {
	s.phase = PhaseCommands
	s.waitBy = s.now.Add(s.opts.MessageTimeout)
	served := make(map[*device]bool, len(s.devices))
	for i := range s.pending {
		p := &s.pending[i]
		if !s.moduleConnected(p.Module, nil) { // they are of the session before
			s.stale(p)
			continue
		}
		rest := p.Commands[:0]
		for _, c := range p.Commands {
			dev := s.find(c.Device.ID()) // DEF-11
			if dev == nil || !dev.supported || dev.Module != p.Module || served[dev] {
				rest = append(rest, c)
				continue
			}
			served[dev] = true
			s.send(c, commands.Sent{Module: p.Module, Fetched: true, From: p.Module}, dev)
		}
		p.Keep(rest)
	}
	for _, dev := range s.devices {
		if !served[dev] {
			module := commands.NoModule
			if dev.supported {
				module = dev.Module
			}
			s.send(fleet.Command{Device: dev.Device.ForModule()}, commands.Sent{Module: module}, dev) // SEQ-32, MSG-5
		}
	}
	s.responses = len(s.devices)
}

// firstResponse counts a response to a first command, whatever its counter and
// type (SEQ-40, SEQ-46, SEQ-48, REC-7, REC-26).
func (s *Session) firstResponse(m fleet.ClientMessage) {
	s.waitBy = s.now.Add(s.opts.MessageTimeout)
	s.acknowledge(m, true)
	s.responses--
	if s.responses > 0 {
		return
	}
	s.phase = PhaseRunning // SEQ-47
	s.waitBy, s.heard = time.Time{}, s.now
	s.sessionBy = s.now.Add(s.opts.SessionTimeout) // SESS-7
	s.sent.Restart(s.now, s.now.Add(s.opts.MessageTimeout))
	s.emit(Effect{Kind: EffectSessionRunning, SessionID: s.id})
	s.recordSession()
	s.sendPending()
	s.release() // REC-28
}

// sendPending sends what was held back (REC-13, DEF-13).
func (s *Session) sendPending() {
	if !s.sends() {
		return
	}
	pending := s.pending
	s.pending = nil
	for i := range pending {
		p := &pending[i]
		for _, c := range p.Commands {
			s.sendFetched(p.Module, c)
		}
		s.recordPosition(p.Module, p.Position)
	}
}
