package session

import (
	"external-server/internal/fleet"
)

func (s *Session) hold(m fleet.ClientMessage) {
	if s.heldBytes += m.Size(); len(s.held) >= s.opts.MaxAhead || s.heldBytes > s.opts.MaxAheadBytes {
		s.end(ReasonSequenceTooManyHeld, false)
		return
	}
	s.held = append(s.held, m)
}

// grant counts the statuses forwarded to one module within a Step.
type grant struct {
	module int32
	n      int
}

// hasRoom tells whether the module takes one more status, those of this Step
// included.
func (s *Session) hasRoom(module int32) bool {
	used := 0
	for _, g := range s.granted {
		if g.module == module {
			used = g.n
		}
	}
	return s.modules.Room(module) > used
}

func (s *Session) forward(m fleet.ClientMessage) (number uint64) {
	n := s.number(m.Device.Module)
	number = *n
	s.emit(Effect{Kind: EffectForward, Device: m.Device, Data: m.Data, Error: m.Error, Counter: m.Counter, Number: *n, Since: m.Received})
	*n++
	for i := range s.granted {
		if s.granted[i].module == m.Device.Module {
			s.granted[i].n++
			return number
		}
	}
	s.granted = append(s.granted, grant{module: m.Device.Module, n: 1})
	return number
}
