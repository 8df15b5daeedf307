package session

import (
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/owed"
)

// respond answers a status that was accepted, now or when its turn has come: when its module has taken it,
// if the module is one of these, and all before it are answered. number is that of the status if
// it was forwarded.
func (s *Session) respond(m fleet.ClientMessage, forwarded bool, number uint64) {
	awaited, running := forwarded && s.modules.Awaited(m.Device.Module), s.phase == PhaseRunning
	if !awaited && (s.owed.Len() == 0 || !running) {
		s.answer(m)
		return
	}
	limit := s.opts.DeliverySoon
	if running && s.recovery == nil {
		limit = s.opts.DeliveryTimeout
	}
	a := owed.Answer{ClientMessage: m, Awaited: awaited, Number: number, By: s.now.Add(limit), TellBy: s.now.Add(s.opts.TellWithin)}
	if s.inHand && m.Counter == s.hand && s.recovery == nil {
		s.emit(Effect{Kind: EffectAnswerLater, Counter: m.Counter})
	} else {
		a.Told = true
		s.carry()
	}
	s.owed.Add(a, running)
	if s.prefix > 0 && running {
		s.journal = s.journal.Owed(a.Record())
	}
}

// owedDue answers what has waited for long enough, and tells the broker what was handled.
func (s *Session) owedDue() {
	s.owed.Tell(s.now, func(counter uint32) {
		s.handled(counter)
		s.carry()
	})
	s.answerOwed()
}

func (s *Session) handled(counter uint32) { s.emit(Effect{Kind: EffectHandled, Counter: counter}) }

// answerOwed answers what is due, unless the gateway is not certain to be there.
func (s *Session) answerOwed() {
	if s.owed.Len() == 0 || s.recovery != nil {
		return
	}
	running := s.phase == PhaseRunning
	s.owed.TakeDue(s.now, running, func(a owed.Answer, late, known bool) {
		if late {
			s.note(Warning, NoteStatusAtRisk, a.Device, a.Counter)
		}
		if known {
			s.carry()
		}
		if s.prefix > 0 && running {
			s.journal = s.journal.Answered(a.Counter)
		}
		s.answer(a.ClientMessage)
	})
	if s.owed.Len() > 0 {
		return
	}
	switch s.phase {
	case PhaseStatuses:
		s.firstAnswered()
	case PhaseRunning:
		s.endWithoutDevices()
	}
}

// owedDeadline is when something is due of the answers that are held.
func (s *Session) owedDeadline(take func(time.Time)) {
	s.owed.Deadline(s.phase == PhaseRunning, s.recovery == nil, take)
}

// untold is the lowest counter of which the broker was not told in front of what is sent now. What is sent now has
// arrived if the broker knows that the status with this counter was handled (RES-10). That a status was
// answered says less: of one whose answer is held the broker may have been told before.
func (s *Session) untold() uint32 {
	counter := s.order.Untold()
	if first, ok := s.owed.Untold(); ok && s.phase == PhaseRunning && int32(first-counter) < 0 {
		counter = first
	}
	for _, n := range s.unsaid {
		if int32(n-counter) < 0 {
			counter = n
		}
	}
	return counter
}

// said notes that the broker was told of a status with its answer.
func (s *Session) said(counter uint32) {
	if len(s.unsaid) > 0 { // usually the one in hand
		s.unsaid = slices.DeleteFunc(s.unsaid, func(n uint32) bool { return n == counter })
	}
}
