package session

import (
	"encoding/binary"

	"external-server/internal/fleet"
)

// Durable makes the Session say after each Step what its owner has to write into a
// journal, under the name of the car. It must be called before the first Step.
func (s *Session) Durable(car string) {
	s.journal = appendHeader(nil, car)
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
	return append(append(b, s.journal[:s.prefix]...), byte(entrySettled))
}

// AppendRecord appends a record of the whole session to b, for a journal that
// begins anew; a car without session in normal communication gets one that says so.
// The Session must be Durable.
func (s *Session) AppendRecord(b []byte) []byte {
	return s.appendState(b, s.Record(), nil)
}

// appendState appends what is known of the car, r of its session (nil: there is none) and statuses that are left.
func (s *Session) appendState(b []byte, r *Record, left []Left) []byte {
	b = append(b, s.journal[:s.prefix]...)
	if r != nil {
		b = appendRecord(b, r)
		if s.hint != nil {
			b = s.hint.append(b)
		}
	} else {
		b = append(b, byte(entryEnded))
	}
	for _, p := range s.positions {
		b = binary.AppendVarint(append(b, byte(entryPosition)), int64(p.Module))
		b = appendText(b, p.Bytes)
	}
	for i := range left {
		b = appendLeft(b, &left[i])
	}
	b = binary.AppendUvarint(append(b, byte(entryNumbers)), uint64(s.sender.next))
	b = binary.AppendUvarint(b, uint64(len(s.numbers)))
	for _, n := range s.numbers {
		b = binary.AppendUvarint(binary.AppendVarint(b, int64(n.Module)), n.Next)
	}
	return b
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
			s.journal = appendDevices(append(s.journal, byte(entryDevices)), s.recordDevices(), s.withModule)
		}
		for _, counter := range s.early {
			if m, ok := s.order.ahead[counter]; ok {
				s.journal = appendHeld(append(s.journal, byte(entryHeld)), &m.ClientMessage)
			}
		}
	}
	s.changed, s.early = false, s.early[:0]
}

// putAside keeps a status until its turn, in the journal too.
func (s *Session) putAside(m fleet.ClientMessage) {
	s.order.put(m, s.now)
	if !s.withholds {
		s.early = append(s.early, m.Counter)
		return
	}
	e := s.order.ahead[m.Counter]
	e.unrecorded = true
	s.order.ahead[m.Counter] = e
	s.withhold(m.Counter)
}

// recordStatus says that a status was accepted; with statusForwarded, that its module
// gets it as its next one.
func (s *Session) recordStatus(m fleet.ClientMessage, flags byte) {
	if flags&statusRunning != 0 {
		if s.uncarried++; s.uncarried >= hintEvery {
			s.carry()
		}
	}
	if s.prefix == 0 {
		return
	}
	b := append(s.journal, byte(entryStatus), flags)
	b = binary.AppendUvarint(b, uint64(m.Counter))
	if flags&statusForwarded != 0 {
		b = appendDevice(b, m.Device)
		b = appendText(appendText(b, m.Data), m.Error)
		b = binary.AppendUvarint(b, *s.number(m.Device.Module))
	}
	s.journal = b
}

// pass remembers that a status was handled without an answer.
func (s *Session) pass(m fleet.ClientMessage) {
	s.order.passed = appendPassed(s.order.passed, m.Counter)
	s.recordStatus(m, statusRunning)
}

func (s *Session) recordSession() {
	s.changed = false
	s.carry()
	if s.prefix > 0 {
		s.journal = appendRecord(s.journal, s.Record())
		if s.hint != nil {
			s.journal = s.hint.append(s.journal)
		}
	}
}

// recordLeft says which statuses of another server's session are delivered first.
func (s *Session) recordLeft(left []Left) {
	for i := range left {
		if s.prefix > 0 {
			s.journal = appendLeft(s.journal, &left[i])
		}
	}
}

// recordCommand says that the newest command was sent.
func (s *Session) recordCommand(counter uint32) {
	s.carry()
	if s.prefix == 0 || s.phase != PhaseRunning {
		return
	}
	c := s.sender.waiting[len(s.sender.waiting)-1].record()
	b := binary.AppendUvarint(append(s.journal, byte(entryCommand)), uint64(counter))
	s.journal = appendCommand(b, &c)
}

func (s *Session) recordResponse(counter uint32, response fleet.ResponseType) {
	s.carry()
	if s.prefix == 0 || s.phase != PhaseRunning {
		return
	}
	b := binary.AppendUvarint(append(s.journal, byte(entryResponse)), uint64(counter))
	s.journal = binary.AppendVarint(b, int64(response))
}

// recordPosition says how far the module has fetched. What is fetched and not sent
// yet is not covered.
func (s *Session) recordPosition(module int32, position []byte) {
	if s.prefix == 0 || position == nil {
		return
	}
	s.carry()
	b := binary.AppendVarint(append(s.journal, byte(entryPosition)), int64(module))
	s.journal = appendText(b, position)
	s.SetPosition(module, position)
}

// SetPosition says what the journal knows by AppendPosition, for AppendRecord.
func (s *Session) SetPosition(module int32, position []byte) {
	for i := range s.positions {
		if p := &s.positions[i]; p.Module == module {
			p.Bytes = append(p.Bytes[:0:0], position...)
			return
		}
	}
	s.positions = append(s.positions, Position{module, append([]byte(nil), position...)})
}

// recordRecovery says that the session is out of reach, or found again.
func (s *Session) recordRecovery(over bool) {
	s.carry()
	switch {
	case s.prefix == 0:
	case over:
		s.journal = append(s.journal, byte(entryRecovered))
	default:
		s.journal = append(s.journal, byte(entryRecovering))
	}
}

func (s *Session) recordEnd() {
	s.carry()
	if s.prefix > 0 && s.phase == PhaseRunning {
		s.journal = append(s.journal, byte(entryEnded))
	}
}

// number returns the number of the module's next status.
func (s *Session) number(module int32) *uint64 {
	for i := range s.numbers {
		if s.numbers[i].Module == module {
			return &s.numbers[i].Next
		}
	}
	s.numbers = append(s.numbers, Number{Module: module})
	return &s.numbers[len(s.numbers)-1].Next
}
