package session

import (
	"time"

	"external-server/internal/fleet"
)

// Deadline returns when Step wants an EventDeadline; zero means never.
func (s *Session) Deadline() time.Time {
	var at time.Time
	take := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	switch s.phase {
	case PhaseWaiting:
		return at
	case PhaseAdmitting:
		take(s.admitBy)
	case PhaseStatuses:
		take(s.waitBy)
		take(s.firstsAt)
		s.owedDeadline(take)
	case PhaseCommands:
		take(s.waitBy) // alone: SEQ-45, SEQ-47
	case PhaseRunning:
		s.owedDeadline(take)
		if s.recovery != nil {
			s.recoveryDeadline(take)
			return at
		}
		take(s.admitBy)
		take(s.sessionBy)
		take(s.order.MissingBy)
		take(s.order.RoomAt)
		take(s.sent.Deadline())
		take(s.anewBy)
	}
	return at
}

// deadline re-checks every limit against the time of the event: what was saved
// meanwhile does not end a session (DEF-27, SESS-9).
func (s *Session) deadline() {
	due := func(t time.Time) bool { return !t.IsZero() && !s.now.Before(t) }
	s.owedDue()
	switch s.phase {
	case PhaseWaiting:
	case PhaseAdmitting:
		if due(s.admitBy) {
			s.decideSlowAdmissions()
		}
	case PhaseStatuses:
		switch {
		case due(s.waitBy) && len(s.firsts) > 0:
			s.end(ReasonSequenceNoRoom, false)
		case due(s.waitBy):
			s.end(ReasonSequenceTimeout, false) // SEQ-11
		case due(s.firstsAt):
			s.acceptFirsts()
		}
	case PhaseCommands:
		if due(s.waitBy) {
			s.end(ReasonSequenceTimeout, false) // SEQ-45
		}
	case PhaseRunning:
		if s.recovery != nil {
			s.recoveryDue(due)
			return
		}
		switch {
		case due(s.sessionBy):
			s.end(ReasonSessionTimeout, true) // SESS-7, REC-11
		case due(s.order.MissingBy):
			s.end(ReasonMissingStatus, true) // STAT-5, REC-11
		case due(s.sent.Deadline()):
			s.end(s.whyUnanswered(), true) // CMD-10, REC-11
		default:
			if due(s.admitBy) {
				s.decideSlowAdmissions()
			}
			if s.phase == PhaseRunning && due(s.order.RoomAt) {
				s.drain()
			}
			if s.phase == PhaseRunning && due(s.anewBy) { // it was not heard, or cannot connect
				s.anewBy = time.Time{}
				s.sendPending()
			}
		}
	}
}

// end leaves the session or connect sequence, if any, for PhaseWaiting (SM-4,
// REC-5). notify asks for the disconnect notification, which goes out only when
// an established session is left, or at stop (DEF-26).
func (s *Session) end(reason Reason, notify bool) {
	if s.phase == PhaseWaiting {
		return
	}
	established := s.phase == PhaseRunning
	unacked := s.sent.Unacked()
	if reason.keepsOutgoing() {
		s.outgoing = true
	} else {
		s.discardOutgoing()
	}
	// A gateway that was away may come back at any time and believe in its session; of
	// one that was not continued it knows nothing.
	if reason != ReasonNotContinued && reason != ReasonOutdated && reason != ReasonSuperseded && reason != ReasonGatewayGone {
		s.stayQuiet(s.opts.QuietAfterEnd)
	}
	s.recordEnd()
	s.sessionOver(reason)
	s.owed.Forget(s.handled) // the gateway has not got them, and brings the statuses again or gives them up
	if notify && (established || reason == ReasonStopped || reason == ReasonReloaded || reason == ReasonOperator) {
		s.emit(Effect{Kind: EffectNotifyDisconnect})
	}
	for _, d := range s.devices {
		if d.started {
			s.emit(Effect{Kind: EffectDeviceDisconnected, Device: d.Device, Disconnect: fleet.DisconnectTimeout})
		}
	}
	if reason != ReasonReplaced || s.anewBy.IsZero() { // otherwise they wait for the session that was asked for
		for i := range s.pending {
			s.stale(&s.pending[i]) // DEF-49
		}
		s.pending = nil
	}
	s.emit(Effect{Kind: EffectSessionEnded, SessionID: s.id, Reason: reason, Established: established, Count: unacked})
	s.phase = PhaseWaiting
	s.devices = nil
	s.held, s.firsts, s.heldBytes = nil, nil, 0
	s.firstsAt = time.Time{}
	s.asking = question{}
	s.withModule = false
	s.admitBy, s.waitBy, s.sessionBy = time.Time{}, time.Time{}, time.Time{}
	s.recovery, s.anew, s.anewBy, s.rejoin, s.left, s.hint = nil, false, time.Time{}, false, nil, nil
	s.behindKnown = false
	s.withholds = false
	s.order.Reset()
	s.sent.Reset()
}

// whyUnanswered is the reason when the response to the oldest command is overdue. A
// gateway that has said nothing at all since then is not one that answers no commands:
// it is gone, or its network. What came in the first quarter of the limit counts for
// nothing: it may have been under way when the gateway died, such as the responses to
// commands before. With the usual limit of 30 s the rest is longer than a gateway that
// lives is silent (GW-5).
func (s *Session) whyUnanswered() Reason {
	c := &s.sent.Waiting()[0]
	since := c.At
	if again := c.By.Add(-s.opts.MessageTimeout); again.After(since) { // its limit began anew
		since = again
	}
	if s.heard.After(since.Add(s.opts.MessageTimeout / 4)) {
		return ReasonCommandTimeout
	}
	return ReasonSilent
}

// keepsOutgoing tells whether answers that are queued at the end still go out. They do
// when the peer's own message ended the session: it must see the answer to that message
// and to those before it (STAT-34). What is left when the next session begins is
// discarded (DEF-20).
func (r Reason) keepsOutgoing() bool {
	switch r {
	case ReasonOperator, ReasonReplaced, ReasonGatewayGone, ReasonLinkDown, ReasonNotContinued, ReasonOutdated, ReasonSuperseded, ReasonPublishFailed, ReasonSessionTimeout,
		ReasonMissingStatus, ReasonCommandTimeout, ReasonSilent, ReasonSequenceTimeout, ReasonSequenceNoRoom:
		return false
	}
	return true
}

// notifyNow sends the notification that an operator asked for; a status that
// crosses it causes no call to connect anew.
func (s *Session) notifyNow() {
	s.emit(Effect{Kind: EffectNotifyDisconnect})
	s.stayQuiet(s.opts.QuietAfterEnd)
}

func (s *Session) discardOutgoing() {
	s.emit(Effect{Kind: EffectDiscardOutgoing}) // DEF-20
	s.outgoing = false
}
