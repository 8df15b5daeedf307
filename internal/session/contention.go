package session

import (
	"external-server/internal/fleet"
	"external-server/internal/session/contention"
)

func (s *Session) contend() *contention.Evidence {
	if s.contention == nil {
		s.contention = new(contention.Evidence)
	}
	return s.contention
}

// sessionOver looks at the end of a session or of a connect sequence.
func (s *Session) sessionOver(reason Reason) {
	if reason == ReasonReplaced || reason == ReasonSequenceTimeout {
		s.warn(s.contend().Over(s.id, s.began, s.now, reason == ReasonReplaced, s.called), fleet.Device{}, 0)
	}
}

// foreignMessage looks at a message of another session.
func (s *Session) foreignMessage(m fleet.ClientMessage) {
	if !s.backlog {
		s.warn(s.contention.Foreign(m.SessionID, s.began, s.heard, s.now), m.Device, m.Counter)
	}
}

// notOurs looks at a message of the current session that answers something this server has not sent.
func (s *Session) notOurs(m fleet.ClientMessage) {
	if s.backlog || m.Redelivered || s.replayed { // it may answer an earlier process or session
		return
	}
	s.warn(s.contend().NotOurs(s.id, s.now), m.Device, m.Counter)
}

// warn says what was found, if anything.
func (s *Session) warn(f contention.Finding, d fleet.Device, counter uint32) {
	if f != contention.Nothing {
		s.note(Warning, ContentionNotes()[f-1], d, counter)
	}
}
