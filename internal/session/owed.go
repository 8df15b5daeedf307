package session

import (
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
