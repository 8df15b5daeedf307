package session

import (
	"external-server/internal/fleet"
	"external-server/internal/session/commands"
	"external-server/internal/session/record"
)

// Durable makes the Session say after each Step what its owner has to write into a
// journal, under the name of the car. It must be called before the first Step.
func (s *Session) Durable(car string) {
	s.journal = record.Begin(nil, car)
	s.prefix = len(s.journal)
}

// Journal returns the record of the last Step, nil if there is none. The owner appends
// it to the journal before it performs the effects, and the journal is written before
// anything that the effects cause leaves (RES-2). The result is valid until the next Step.
func (s *Session) Journal() []byte {
	if len(s.journal) == s.prefix {
		return nil
	}
	return s.journal
}

// AppendSettled appends a record that says that everything the car was sent has
// reached the broker. The Session must be Durable.
func (s *Session) AppendSettled(b []byte) []byte {
	return s.entries(b).Settled()
}

// AppendRecord appends a record of the whole session to b, for a journal that
// begins anew; a car without session in normal communication gets one that says so.
// The Session must be Durable.
func (s *Session) AppendRecord(b []byte) []byte {
	return s.appendState(b, s.Record(), nil)
}

func (s *Session) entries(b []byte) record.Entries { return append(b, s.journal[:s.prefix]...) }

// appendState appends what is known of the car, r of its session (nil: there is none) and statuses that are left.
func (s *Session) appendState(b []byte, r *record.Session, left []record.Left) []byte {
	e := s.entries(b)
	if r != nil {
		e = s.withHint(e.Session(r))
	} else {
		e = e.Ended()
	}
	for _, p := range s.positions {
		e = e.Position(p.Module, p.Bytes)
	}
	for i := range left {
		e = e.Left(&left[i])
	}
	return e.Numbers(s.sent.Next, s.numbers)
}

// withHint appends to a session that its next status is not known exactly, if so.
func (s *Session) withHint(e record.Entries) record.Entries {
	if s.hint == nil {
		return e
	}
	return e.Hint(s.hint.Hint)
}

// keptJournal bounds the memory for records that a Session keeps between two Steps.
const keptJournal = 1 << 10

// finishRecord adds to the record of a Step what is known at its end only.
func (s *Session) finishRecord() {
	s.finishCarry()
	if s.prefix == 0 {
		s.changed, s.early = false, s.early[:0]
		return
	}
	if s.phase == PhaseRunning {
		if s.changed {
			s.journal = s.journal.Devices(s.recordDevices(), s.withModule)
		}
		for _, counter := range s.early {
			if m, ok := s.order.Waiting(counter); ok {
				s.journal = s.journal.Held(&m)
			}
		}
	}
	s.changed, s.early = false, s.early[:0]
}

// putAside keeps a status until its turn, in the journal too.
func (s *Session) putAside(m fleet.ClientMessage) {
	s.order.Put(m, s.now, s.withholds)
	if !s.withholds {
		s.early = append(s.early, m.Counter)
		return
	}
	s.withhold(m.Counter)
}

// recordStatus says that a status was accepted; with StatusForwarded, that its module
// gets it as its next one.
func (s *Session) recordStatus(m fleet.ClientMessage, flags byte) {
	if flags&record.StatusRunning != 0 {
		if s.uncarried++; s.uncarried >= hintEvery {
			s.carry()
		}
	}
	if s.prefix == 0 {
		return
	}
	var number uint64
	if flags&record.StatusForwarded != 0 {
		number = *s.number(m.Device.Module)
	}
	s.journal = s.journal.Status(&m, flags, number)
}

// pass remembers that a status was handled without an answer.
func (s *Session) pass(m fleet.ClientMessage) {
	s.order.Pass(m.Counter)
	s.recordStatus(m, record.StatusRunning)
}

func (s *Session) recordSession() {
	s.changed = false
	s.carry()
	if s.prefix > 0 {
		s.journal = s.withHint(s.journal.Session(s.Record()))
	}
}

// recordLeft says which statuses of another server's session are delivered first.
func (s *Session) recordLeft(left []record.Left) {
	for i := range left {
		if s.prefix > 0 {
			s.journal = s.journal.Left(&left[i])
		}
	}
}

// recordCommand says that the newest command was sent.
func (s *Session) recordCommand(counter uint32, sent *commands.Sent) {
	s.carry()
	if s.prefix == 0 || s.phase != PhaseRunning {
		return
	}
	c := sent.Record()
	s.journal = s.journal.Command(counter, &c)
}

func (s *Session) recordResponse(counter uint32, response fleet.ResponseType) {
	s.carry()
	if s.prefix == 0 || s.phase != PhaseRunning {
		return
	}
	s.journal = s.journal.Response(counter, response)
}

// recordPosition says how far the module has fetched. What is fetched and not sent
// yet is not covered.
func (s *Session) recordPosition(module int32, position []byte) {
	if s.prefix == 0 || position == nil {
		return
	}
	s.carry()
	s.journal = s.journal.Position(module, position)
	s.SetPosition(module, position)
}

// SetPosition says how far the module has fetched, for AppendRecord; the journal knows it by record.Entries.Position.
func (s *Session) SetPosition(module int32, position []byte) {
	for i := range s.positions {
		if p := &s.positions[i]; p.Module == module {
			p.Bytes = append(p.Bytes[:0:0], position...)
			return
		}
	}
	s.positions = append(s.positions, record.Position{Module: module, Bytes: append([]byte(nil), position...)})
}

// recordRecovery says that the session is out of reach, or found again.
func (s *Session) recordRecovery(over bool) {
	s.carry()
	switch {
	case s.prefix == 0:
	case over:
		s.journal = s.journal.Recovered()
	default:
		s.journal = s.journal.Recovering()
	}
}

// recordBefore sets Before of the commands that wait: the first ones have arrived, the others are sent again now.
func (s *Session) recordBefore(arrived int, before uint32) {
	s.sent.Stand(arrived, before)
	if s.prefix > 0 && len(s.sent.Waiting()) > 0 {
		s.journal = s.journal.Before(arrived, before)
	}
}

func (s *Session) recordEnd() {
	s.carry()
	if s.prefix > 0 && s.phase == PhaseRunning {
		s.journal = s.journal.Ended()
	}
}

// number returns the number of the module's next status.
func (s *Session) number(module int32) *uint64 {
	for i := range s.numbers {
		if s.numbers[i].Module == module {
			return &s.numbers[i].Next
		}
	}
	s.numbers = append(s.numbers, record.Number{Module: module})
	return &s.numbers[len(s.numbers)-1].Next
}
