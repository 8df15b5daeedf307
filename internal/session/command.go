package session

import (
	"slices"
	"time"

	"external-server/internal/fleet"
)

// noModule marks a command that no module gets an acknowledgement for.
const noModule = int32(-1 << 31)

// sent is a command whose response is awaited.
type sent struct {
	command   fleet.Command
	module    int32     // whose command_ack it is, or noModule
	fetched   bool      // came from module from, not an empty first command
	from      int32     // see CommandRoom
	at        time.Time // when it was sent
	by        time.Time // when the response is overdue
	before    uint32    // the status that was expected then
	responded bool      // recorded out of order (CMD-21)
	response  fleet.ResponseType
}

// sender numbers the commands of a car and remembers what is unacknowledged.
type sender struct {
	next    uint32 // counter of the next command, never reset (CMD-3, DEF-50)
	first   uint32 // the session has sent none before
	waiting []sent // the last has counter next-1
	loads   []load // of the modules
}

func (q *sender) reset() { q.waiting, q.loads = nil, nil }

// unacked counts the commands of modules without acknowledgement (DEF-41).
func (q *sender) unacked() int {
	n := 0
	for i := range q.waiting {
		if q.waiting[i].fetched {
			n++
		}
	}
	return n
}

// deadline is that of the oldest command: all have the same limit, so it is the
// first to come due (CMD-10).
func (q *sender) deadline() time.Time {
	if len(q.waiting) == 0 {
		return time.Time{}
	}
	return q.waiting[0].by
}

// restart gives the first commands without a response to their counter a new
// limit when normal communication begins and the old one has passed: responses
// to them were awaited together, each with a limit of its own (SEQ-45), and
// timers of the sequence end with it (SEQ-47, REC-7).
func (q *sender) restart(now, by time.Time) {
	for i := range q.waiting {
		if !now.Before(q.waiting[i].by) {
			q.waiting[i].by = by
		}
	}
}

// pendingCommands are the commands of one module held back during the connect
// sequence.
type pendingCommands struct {
	module   int32
	commands []fleet.Command
	bytes    int    // of the commands, see commandSize
	position []byte // of the module behind them, nil: unknown
}

// commandsFetched takes what a module's poller brought (CMD-2, CMD-5).
func (s *Session) commandsFetched(module int32, commands []fleet.Command, position []byte) {
	if len(commands) == 0 {
		s.recordPosition(module, position)
		return
	}
	if !s.moduleConnected(module, nil) { // DEF-38, DEF-52: stale once a device connects
		s.emit(Effect{Kind: EffectNote, Level: Info, Note: NoteCommandsStale, Module: module, Count: len(commands)})
		s.recordPosition(module, position)
		return
	}
	if s.sends() {
		for _, c := range commands {
			s.sendFetched(module, c)
		}
		s.recordPosition(module, position)
		return
	}
	s.holdBack(module, commands, position) // REC-13
}

// sends tells whether commands leave at once.
func (s *Session) sends() bool {
	return s.phase == PhaseRunning && s.recovery == nil && s.anewBy.IsZero()
}

// dropPending drops what is held back of a module that has no device any more
// (DEF-38).
func (s *Session) dropPending(module int32) {
	for i := range s.pending {
		if s.pending[i].module == module {
			s.stale(&s.pending[i])
		}
	}
}

// stale tells of commands that are held back and will not be sent, and forgets them.
func (s *Session) stale(p *pendingCommands) {
	if n := len(p.commands); n > 0 {
		s.emit(Effect{Kind: EffectNote, Level: Warning, Note: NoteCommandsStale, Module: p.module, Count: n})
	}
	p.commands, p.bytes = nil, 0
}

func (s *Session) holdBack(module int32, commands []fleet.Command, position []byte) {
	at, found := slices.BinarySearchFunc(s.pending, s.modules.Position(module), func(p pendingCommands, position int) int {
		return s.modules.Position(p.module) - position // SEQ-31
	})
	if !found {
		s.pending = slices.Insert(s.pending, at, pendingCommands{module: module})
	}
	p := &s.pending[at]
	p.commands = append(p.commands, commands...)
	for i := range commands {
		p.bytes += commandSize(&commands[i])
	}
	if position != nil {
		p.position = position
	}
	if over := len(p.commands) - s.opts.MaxPending; over > 0 {
		for i := range p.commands[:over] {
			p.bytes -= commandSize(&p.commands[i])
		}
		p.commands = append([]fleet.Command(nil), p.commands[over:]...)
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
		acknowledgedTo = noModule // DEF-39
	}
	dev := s.find(c.Device.ID())
	if dev == nil || !dev.supported {
		s.note(Warning, NoteCommandNotConnected, c.Device, 0) // CMD-7
	}
	if len(c.Data) == 0 {
		s.note(Warning, NoteCommandEmpty, c.Device, 0) // CMD-8
	}
	s.send(c, sent{module: acknowledgedTo, fetched: true, from: module}, dev)
}

// send publishes one command with the next counter and starts its timer (CMD-3,
// CMD-10, CMD-11, SEQ-34). A known device is named as it was announced, because
// the gateway delivers some commands only to the device's real priority
// (DEF-32, GW-54); the acknowledgement repeats what the module said. An empty
// first command has priority 0 (MSG-5). of tells whose command it is.
func (s *Session) send(c fleet.Command, of sent, dev *device) {
	wire := c.Device
	if dev != nil && of.fetched {
		wire = dev.Device
	}
	counter := s.sender.next
	s.sender.next++
	of.command, of.at, of.by, of.before = c, s.now, s.now.Add(s.opts.MessageTimeout), s.unanswered()
	s.sender.waiting = append(s.sender.waiting, of)
	s.sender.count(&of, 1)
	s.recordCommand(counter)
	s.emit(Effect{Kind: EffectNote, Level: Debug, Note: NoteCommandSent, Device: wire, Counter: counter, SessionID: s.id, Command: c})
	s.publish(fleet.ServerMessage{Kind: fleet.ServerCommand, Counter: counter, Device: wire, Data: c.Data})
}

// commandResponse handles a response in normal communication (CMD-20..CMD-24).
func (s *Session) commandResponse(m fleet.ClientMessage) {
	if i, ok := s.position(m.Counter); ok && m.Response == fleet.ResponseDeviceNotConnected {
		// CMD-23: at once, even out of order. DEF-40: the session goes on.
		if dev := s.find(s.sender.waiting[i].command.Device.ID()); dev != nil && dev.supported && !dev.asked {
			s.disconnect(dev)
		}
	}
	s.acknowledge(m, false)
}

// position returns where the command with the counter waits.
func (s *Session) position(counter uint32) (int, bool) {
	q := &s.sender
	oldest := q.next - uint32(len(q.waiting))
	i := counter - oldest // modulo 2^32
	return int(i), i < uint32(len(q.waiting))
}

// acknowledge records a response and acknowledges in counter order (CMD-20,
// CMD-21). In the connect sequence only commands of modules for devices still
// connected are acknowledged to them (SEQ-40), later all (CMD-25).
func (s *Session) acknowledge(m fleet.ClientMessage, inSequence bool) {
	i, ok := s.position(m.Counter)
	if !ok {
		s.note(Info, NoteResponseUnknown, fleet.Device{}, m.Counter) // CMD-22
		if !s.ours(m.Counter) {
			s.notOurs(m)
		}
		return
	}
	q := &s.sender
	if m.Response != fleet.ResponseOK && !inSequence {
		s.note(Warning, NoteCommandRefused, q.waiting[i].command.Device, m.Counter) // CMD-24, DEF-42
	}
	q.waiting[i].responded, q.waiting[i].response = true, m.Response
	s.recordResponse(m.Counter, m.Response)
	for len(q.waiting) > 0 && q.waiting[0].responded {
		first := q.waiting[0]
		counter := q.next - uint32(len(q.waiting))
		q.count(&first, -1)
		q.waiting[0] = sent{}
		q.waiting = q.waiting[1:]
		s.emit(Effect{
			Kind: EffectNote, Level: Debug, Note: NoteCommandAcked, Device: first.command.Device, Counter: counter,
			SessionID: s.id, Command: first.command, Since: first.at, Response: first.response,
		})
		if s.acknowledgeable(first, inSequence) {
			s.emit(Effect{Kind: EffectAck, Module: first.module, Command: first.command, Counter: counter})
		}
	}
	if len(q.waiting) == 0 {
		q.waiting = nil
	}
}

func (s *Session) acknowledgeable(c sent, inSequence bool) bool {
	if c.module == noModule { // an empty role is acknowledged all the same (MOD-17)
		return false
	}
	if !inSequence {
		return true
	}
	dev := s.find(c.command.Device.ID())
	return c.fetched && dev != nil && dev.supported
}
