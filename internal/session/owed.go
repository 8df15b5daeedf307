package session

import (
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// maxCarriedBytes bounds the contents of the statuses that are carried because their modules have
// not taken them, see AppendCarried.
const maxCarriedBytes = 64 << 10

// owed is a status that was accepted and whose answer is held, because its module has not taken
// it yet or because an earlier answer is held (RES-26).
type owed struct {
	fleet.ClientMessage
	awaited bool   // its module is to take it first
	number  uint64 // of the status, see EffectForward; meaningful if awaited
	taken   bool   // the module has taken it
	by      time.Time
	ackBy   time.Time // when the broker is told that it was handled
	acked   bool      // it was told, or is not waiting to be
	left    bool      // its device has left since, so another server could not tell where to hand it to
}

// respond answers a status that was accepted, now or when its turn has come: when its module has taken it,
// if the module is one of these, and all before it are answered. number is that of the status if
// it was forwarded.
func (s *Session) respond(m fleet.ClientMessage, forwarded bool, number uint64) {
	awaited := forwarded && s.modules.Awaited(m.Device.Module)
	if !awaited && (len(s.owed) == 0 || s.phase != PhaseRunning) {
		s.answer(m)
		return
	}
	o := owed{ClientMessage: m, awaited: awaited, number: number, taken: !awaited, by: s.now.Add(s.deliveryLimit()), ackBy: s.now.Add(s.opts.TellWithin)}
	if s.inHand && m.Counter == s.hand && s.recovery == nil {
		s.emit(Effect{Kind: EffectAnswerLater, Counter: m.Counter})
	} else {
		o.acked = true
		s.carry()
	}
	at := len(s.owed)
	for at > 0 && s.phase == PhaseRunning && int32(s.owed[at-1].Counter-m.Counter) > 0 {
		at--
	}
	s.owed = slices.Insert(s.owed, at, o)
	if s.prefix > 0 && s.phase == PhaseRunning {
		s.journal = s.journal.Owed(o.record())
	}
}

func (s *Session) deliveryLimit() time.Duration {
	if s.phase == PhaseRunning && s.recovery == nil {
		return s.opts.DeliveryTimeout
	}
	return s.opts.DeliverySoon
}

// delivered takes in that a module was handed its statuses up to the number.
func (s *Session) delivered(module int32, number uint64) {
	for i := range s.owed {
		if o := &s.owed[i]; o.awaited && o.Device.Module == module && o.number <= number {
			o.taken = true
		}
	}
	s.answerOwed()
}

// owedDue answers what has waited for long enough, and tells the broker what was handled.
func (s *Session) owedDue() {
	for i := range s.owed {
		o := &s.owed[i]
		if !o.acked && !s.now.Before(o.ackBy) {
			o.acked = true
			s.emit(Effect{Kind: EffectHandled, Counter: o.Counter})
			s.carry()
		}
	}
	if s.recovery == nil {
		s.answerOwed()
	}
}

// answerOwed answers what is due: in the connect sequence in any order (GW-15), otherwise in the order of the
// counters.
func (s *Session) answerOwed() {
	if len(s.owed) == 0 || s.recovery != nil {
		return
	}
	rest, told := s.owed[:0], s.toldOwed()
	for i := range s.owed {
		o := s.owed[i]
		late := !o.taken && !s.now.Before(o.by)
		if !o.taken && !late || len(rest) > 0 && s.phase == PhaseRunning {
			rest = append(rest, o)
			continue
		}
		if late {
			s.note(Warning, NoteStatusAtRisk, o.Device, o.Counter)
		}
		if i < told {
			s.carry()
		}
		if s.prefix > 0 && s.phase == PhaseRunning {
			s.journal = s.journal.Answered(o.Counter)
		}
		s.answer(o.ClientMessage)
	}
	clear(s.owed[len(rest):])
	if s.owed = rest; len(rest) > 0 {
		return
	}
	s.owed = nil
	switch s.phase {
	case PhaseStatuses:
		s.firstAnswered()
	case PhaseRunning:
		s.endWithoutDevices()
	}
}

// owedDeadline is when something is due of the answers that are held.
func (s *Session) owedDeadline(take func(time.Time)) {
	for i := range s.owed {
		o := &s.owed[i]
		if !o.acked {
			take(o.ackBy)
		}
		if !o.taken && s.recovery == nil && (i == 0 || s.phase != PhaseRunning) {
			take(o.by)
		}
	}
}

// forgetOwed drops the answers that are held when the session ends: the gateway has not got them, and brings
// the statuses again or gives them up.
func (s *Session) forgetOwed() {
	for i := range s.owed {
		if !s.owed[i].acked {
			s.emit(Effect{Kind: EffectHandled, Counter: s.owed[i].Counter})
		}
	}
	s.owed = nil
}

// owes tells whether the answer to the status is held, and that it has come again: it is answered once.
func (s *Session) owes(m fleet.ClientMessage) bool {
	return slices.ContainsFunc(s.owed, func(o owed) bool { return o.Counter == m.Counter })
}

// unanswered is the lowest counter of which no answer has left.
func (s *Session) unanswered() uint32 {
	if len(s.owed) > 0 && s.phase == PhaseRunning {
		return s.owed[0].Counter
	}
	return s.order.expected
}

// unsettleOwed: the connection is lost, and with it what could be told over it; what the broker was not told of
// comes again.
func (s *Session) unsettleOwed() {
	for i := range s.owed {
		s.owed[i].acked = true
	}
}

// restartOwed gives held answers a limit of their own when a recovery is over: their gateway has waited
// before.
func (s *Session) restartOwed() {
	for i := range s.owed {
		s.owed[i].by = s.now.Add(s.opts.DeliverySoon)
	}
}

// restoreOwed takes over the held answers of an earlier process. What is not left was taken by its
// module.
func (s *Session) restoreOwed(r *record.Resumption) {
	for _, o := range r.Record.Owed {
		held := owed{ClientMessage: fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: r.Record.ID, Counter: o.Counter}, awaited: o.Awaited, number: o.Number, acked: true, taken: true}
		held.Device.Module = o.Module
		i := slices.IndexFunc(r.Left, func(l record.Left) bool { return o.Awaited && l.Device.Module == o.Module && l.Number == o.Number })
		if i >= 0 {
			l := &r.Left[i]
			held.taken = false
			held.Device, held.Data, held.Error = l.Device, l.Data, l.Error
		}
		s.owed = append(s.owed, held)
	}
}

func (o *owed) record() record.Owed {
	if !o.awaited {
		return record.Owed{Counter: o.Counter}
	}
	return record.Owed{Counter: o.Counter, Awaited: true, Module: o.Device.Module, Number: o.number}
}

// orphan marks the statuses that a device brought which leaves, and which its module has not taken.
func (s *Session) orphan(dev *device) {
	for i := range s.owed {
		if o := &s.owed[i]; o.awaited && !o.taken && o.Device.ID() == dev.ID() {
			o.left = true
		}
	}
}

func (s *Session) recordOwed() (out []record.Owed) {
	for i := range s.owed {
		out = append(out, s.owed[i].record())
	}
	return out
}

// toldOwed is how many of the held answers, from the first on, another server has to know. What the broker was
// not told of comes again and needs no record, unless its device has left, or it stands in front of one that is
// recorded: the modules of the next server get their statuses in order.
func (s *Session) toldOwed() int {
	n := len(s.owed)
	for n > 0 && !s.owed[n-1].acked && !s.owed[n-1].left {
		n--
	}
	return n
}

// carriedOwed returns the answers that another server would owe, and the statuses of those whose modules have
// not taken them. It ends where these become too large: without its contents a status would count as taken.
func (s *Session) carriedOwed() (out []record.Owed, left []record.Left) {
	bytes := 0
	for i := range s.owed[:s.toldOwed()] {
		o := &s.owed[i]
		waits := o.awaited && !o.taken
		if waits {
			bytes += size(o.ClientMessage)
		}
		if bytes > maxCarriedBytes {
			break
		}
		out = append(out, o.record())
		if waits {
			left = append(left, record.Left{Device: o.Device, Data: o.Data, Error: o.Error, Number: o.number})
		}
	}
	return out, left
}
