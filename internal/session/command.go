package session

import (
	"external-server/internal/fleet"
	"external-server/internal/session/commands"
)

// commandsFetched takes what a module's poller brought (CMD-2, CMD-5).
func (s *Session) commandsFetched(module int32, fetched []fleet.Command, position []byte) {
	if len(fetched) == 0 {
		s.recordPosition(module, position)
		return
	}
	if !s.moduleConnected(module, nil) { // DEF-38, DEF-52: stale once a device connects
		s.emit(Effect{Kind: EffectNote, Level: Info, Note: NoteCommandsStale, Module: module, Count: len(fetched)})
		s.recordPosition(module, position)
		return
	}
	if s.sends() {
		for _, c := range fetched {
			s.sendFetched(module, c)
		}
		s.recordPosition(module, position)
		return
	}
	s.holdBack(module, fetched, position) // REC-13
}

// sends tells whether commands leave at once.
func (s *Session) sends() bool {
	return s.phase == PhaseRunning && s.recovery == nil && s.anewBy.IsZero()
}

// dropPending drops what is held back of a module that has no device any more
// (DEF-38).
func (s *Session) dropPending(module int32) {
	for i := range s.pending {
		if s.pending[i].Module == module {
			s.stale(&s.pending[i])
		}
	}
}

// stale tells of commands that are held back and will not be sent, and forgets them.
func (s *Session) stale(p *commands.Batch) {
	if n := len(p.Commands); n > 0 {
		s.emit(Effect{Kind: EffectNote, Level: Warning, Note: NoteCommandsStale, Module: p.Module, Count: n})
	}
	p.Keep(nil)
}

func (s *Session) holdBack(module int32, fetched []fleet.Command, position []byte) {
	if over := s.pending.Add(module, s.modules.Position, fetched, position, s.opts.MaxPending); over > 0 {
		s.emit(Effect{Kind: EffectNote, Level: Warning, Note: NoteCommandsOverflow, Module: module, Count: over})
	}
}

// sendFetched publishes a module's command in normal communication, without
// waiting for earlier responses (CMD-4..CMD-9).
func (s *Session) sendFetched(module int32, c fleet.Command) {
	if c.Device.Module != module {
		if !s.opts.SendInvalidCommand { // CMD-6, DEF-39
			s.note(Warning, NoteCommandMismatch, c.Device, 0)
			return
		}
		s.note(Warning, NoteCommandMismatchSent, c.Device, 0)
	}
	acknowledgedTo := module
	if !s.modules.Configured(c.Device.Module) {
		acknowledgedTo = commands.NoModule // DEF-39
	}
	dev := s.find(c.Device.ID())
	if dev == nil || !dev.supported {
		s.note(Warning, NoteCommandNotConnected, c.Device, 0) // CMD-7
	}
	if len(c.Data) == 0 {
		s.note(Warning, NoteCommandEmpty, c.Device, 0) // CMD-8
	}
	s.send(c, commands.Sent{Module: acknowledgedTo, Fetched: true, From: module}, dev)
}

// send publishes one command with the next counter and starts its timer (CMD-3,
// CMD-10, CMD-11, SEQ-34). A known device is named as it was announced, because
// the gateway delivers some commands only to the device's real priority
// (DEF-32, GW-54); the acknowledgement repeats what the module said. An empty
// first command has priority 0 (MSG-5). of tells whose command it is.
func (s *Session) send(c fleet.Command, of commands.Sent, dev *device) {
	wire := c.Device
	if dev != nil && of.Fetched {
		wire = dev.Device
	}
	of.Command, of.At, of.By, of.Before = c, s.now, s.now.Add(s.opts.MessageTimeout), s.untold()
	counter := s.sent.Add(of)
	s.recordCommand(counter, &of)
	s.emit(Effect{Kind: EffectNote, Level: Debug, Note: NoteCommandSent, Device: wire, Counter: counter, SessionID: s.id, Command: c})
	s.publish(fleet.ServerMessage{Kind: fleet.ServerCommand, Counter: counter, Device: wire, Data: c.Data})
}

// commandResponse handles a response in normal communication (CMD-20..CMD-24).
func (s *Session) commandResponse(m fleet.ClientMessage) {
	if c := s.sent.Find(m.Counter); c != nil && m.Response == fleet.ResponseDeviceNotConnected {
		// CMD-23: at once, even out of order. DEF-40: the session goes on.
		if dev := s.find(c.Command.Device.ID()); dev != nil && dev.supported && !dev.asked && !s.leavesInTurn(dev.ID()) {
			s.disconnect(dev)
		}
	}
	s.acknowledge(m, false)
}

// leavesInTurn tells whether statuses of a connected device wait for their turn. The gateway has sent them before it
// said that the device is not connected, and expects their answers. So the device leaves with its
// DISCONNECT if that waits, or else the last of them counts as one (CMD-23, STAT-25). What the server before has
// accepted, and this one hands over (RES-24), was sent before too.
func (s *Session) leavesInTurn(id fleet.DeviceID) bool {
	if counter, changed, waits := s.order.Leave(id); waits {
		if changed {
			s.early = append(s.early, counter)
		}
		return true
	}
	return s.recovery != nil && s.recovery.leavesAfter(id)
}

// acknowledge records a response and acknowledges in counter order (CMD-20,
// CMD-21). In the connect sequence only commands of modules for devices still
// connected are acknowledged to them (SEQ-40), later all (CMD-25).
func (s *Session) acknowledge(m fleet.ClientMessage, inSequence bool) {
	c := s.sent.Find(m.Counter)
	if c == nil {
		s.note(Info, NoteResponseUnknown, fleet.Device{}, m.Counter) // CMD-22
		if !s.sent.Ours(m.Counter) {
			s.notOurs(m)
		}
		return
	}
	if m.Response != fleet.ResponseOK && !inSequence {
		s.note(Warning, NoteCommandRefused, c.Command.Device, m.Counter) // CMD-24, DEF-42
	}
	c.Responded, c.Response = true, m.Response
	s.recordResponse(m.Counter, m.Response)
	for first, counter, ok := s.sent.Pop(); ok; first, counter, ok = s.sent.Pop() {
		s.emit(Effect{
			Kind: EffectNote, Level: Debug, Note: NoteCommandAcked, Device: first.Command.Device, Counter: counter,
			SessionID: s.id, Command: first.Command, Since: first.At, Response: first.Response,
		})
		if s.acknowledgeable(first, inSequence) {
			s.emit(Effect{Kind: EffectAck, Module: first.Module, Command: first.Command, Counter: counter})
		}
	}
}

func (s *Session) acknowledgeable(c commands.Sent, inSequence bool) bool {
	if c.Module == commands.NoModule { // an empty role is acknowledged all the same (MOD-17)
		return false
	}
	if !inSequence {
		return true
	}
	dev := s.find(c.Command.Device.ID())
	return c.Fetched && dev != nil && dev.supported
}
