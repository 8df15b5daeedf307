package sim

import (
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// checkReason: a time limit ends a session when it is due, not before.
func (a *auditor) checkReason(reason session.Reason) {
	c := &a.current
	early := false
	switch reason {
	case session.ReasonSessionTimeout:
		early = a.now.Sub(c.statuses.heard) < sessionTimeout
	case session.ReasonMissingStatus:
		n, since := c.statuses.beyond()
		early = n == 0 || a.now.Sub(since) < messageTimeout && !c.statuses.stepped
	case session.ReasonCommandTimeout:
		early = len(c.sent.waiting) == 0 || a.now.Sub(c.sent.waiting[0].at) < messageTimeout
		if !early && !c.statuses.heard.After(c.sent.waiting[0].at.Add(messageTimeout/4)) {
			a.fail("CMD-10: the session ends with %q, nothing was heard since the first quarter of the limit from %v", reason, c.sent.waiting[0].at.Sub(epoch))
		}
	case session.ReasonSilent:
		early = len(c.sent.waiting) == 0 || a.now.Sub(c.sent.waiting[0].at) < messageTimeout
		if !early && c.statuses.heard.After(c.sent.waiting[0].at.Add(messageTimeout/4)) {
			a.fail("CMD-10: the session ends with %q, the gateway was heard at %v", reason, c.statuses.heard.Sub(epoch))
		}
	case session.ReasonSequenceTimeout:
		early = a.now.Sub(c.progress) < messageTimeout || c.firstsWaiting()
	case session.ReasonSequenceNoRoom:
		early = a.now.Sub(c.progress) < messageTimeout || !c.firstsWaiting()
	case session.ReasonTooManyAhead:
		early = len(c.statuses.seen) <= a.w.sc.MaxAhead
	case session.ReasonNoDevice:
		if !c.hadModule && a.inStep.left == (fleet.DeviceID{}) {
			a.fail("REC-6: a session that never had a device with a module ends for want of one")
		}
		for id := range c.live {
			a.fail("STAT-34: the session ends for want of a device, %v is connected", id)
		}
	}
	if early {
		a.fail("the session ends too early: %s", reason)
	}
}

// checkTimes: the core wants to be woken when the earliest limit passes (SEQ-11,
// SEQ-45, SESS-7, STAT-5, CMD-10, REC-8).
func (a *auditor) checkTimes(core *session.Session) {
	c := &a.current
	at := core.Deadline()
	by := func(limit time.Time, rule string) {
		if at.IsZero() || at.After(limit) {
			a.fail("%s: the core wants to be woken at %v, the limit is %v", rule, at.Sub(epoch), limit.Sub(epoch))
		}
	}
	switch core.Phase() {
	case session.PhaseWaiting:
		if !at.IsZero() {
			a.fail("REC-5: a deadline while waiting for Connect")
		}
	case session.PhaseAdmitting:
		by(c.progress.Add(admissionTimeout), "REC-8")
	case session.PhaseStatuses, session.PhaseCommands:
		by(c.progress.Add(messageTimeout), "SEQ-11")
		if c.firstsWaiting() {
			by(c.statuses.noRoom.Add(roomRetry), "a full queue is tried again")
		}
	case session.PhaseRunning:
		l := &c.statuses
		by(l.heard.Add(sessionTimeout), "SESS-7")
		if len(c.sent.waiting) > 0 && !c.loose {
			by(c.sent.waiting[0].at.Add(messageTimeout), "CMD-10")
		}
		if c.loose {
			return
		}
		if len(c.asked) > 0 {
			if !l.stepped {
				by(a.now.Add(admissionTimeout), "REC-8")
			}
			return
		}
		if l.cursor != l.expected {
			by(l.noRoom.Add(roomRetry), "a full queue is tried again")
		} else if n, since := l.beyond(); n > 0 && !l.stepped {
			by(since.Add(messageTimeout), "STAT-5")
		}
	}
}

// checkNotification: the disconnect notification is published when an
// established session ends by itself or the server stops (DEF-26, REC-3,
// REC-11). A gateway that believes in an unknown session is called to connect anew
// instead (GW-34), not too often.
func (a *auditor) checkNotification() {
	s := &a.inStep
	want, call := false, false
	switch {
	case a.event.Kind == session.EventDisconnect:
		want = true
		a.quiet(notifyQuiet)
	case a.event.Kind == session.EventReannounce:
		if call = a.phase == session.PhaseWaiting || a.phase == session.PhaseRunning; call {
			a.quiet(notifyQuiet)
		}
	case s.ended && !s.started || s.ended && s.established:
		switch s.reason {
		case session.ReasonReplaced, session.ReasonLinkDown:
		case session.ReasonStopped:
			want = true
		default:
			want = s.established
		}
		if s.reason == session.ReasonPublishFailed && !s.established {
			want = false
		}
	case a.event.Kind == session.EventMessage && a.event.Message.Kind == fleet.ClientStatus && a.phase == session.PhaseWaiting:
		if call = !a.now.Before(a.quietUntil); call {
			a.quiet(notifyPause)
		}
	}
	if want != s.notified {
		a.fail("DEF-26: disconnect notification published: %v, want %v; end of a session: %v %q, established %v", s.notified, want, s.ended, s.reason, s.established)
	}
	if call != s.called {
		a.fail("GW-34: call to connect anew published: %v, want %v", s.called, call)
	}
	if s.ended && !s.discarded {
		switch s.reason {
		case session.ReasonReplaced, session.ReasonLinkDown, session.ReasonPublishFailed:
			a.fail("DEF-20: outgoing messages are not discarded: %s", s.reason)
		}
	}
}

// quiet forbids calls out of unknown sessions for a while.
func (a *auditor) quiet(d time.Duration) {
	if until := a.now.Add(d); until.After(a.quietUntil) {
		a.quietUntil = until
	}
}

// checkConnect: what a Connect does in every phase (REC-3, REC-4, SEQ-3, SEQ-4,
// SESS-3).
func (a *auditor) checkConnect(core *session.Session) {
	m := a.event.Message
	if a.event.Kind != session.EventMessage || m.Kind != fleet.ClientConnect {
		return
	}
	s := &a.inStep
	if a.phase == session.PhaseWaiting || m.SessionID != a.id {
		if !s.started {
			a.fail("REC-3: Connect of session %q is not honoured in phase %v", m.SessionID, a.phase)
		}
		if a.phase != session.PhaseWaiting && !s.ended {
			a.fail("REC-3: session %q goes on beside %q", a.id, m.SessionID)
		}
		if refused := len(m.Devices) == 0 || m.SessionID == ""; refused != (core.Phase() == session.PhaseWaiting) {
			a.fail("SEQ-3: Connect of session %q with %d devices leads to phase %v", m.SessionID, len(m.Devices), core.Phase())
		}
		if core.Phase() != session.PhaseWaiting && core.ID() != m.SessionID {
			a.fail("SEQ-5: the session is %q, not %q", core.ID(), m.SessionID)
		}
		return
	}
	if s.started || s.notified {
		a.fail("REC-4: repeated Connect of %q starts a session or notifies", a.id)
	}
	answered, aborted := s.published > 0, s.ended
	wantAnswer := a.phase == session.PhaseRunning && !m.Redelivered
	wantAbort := (a.phase == session.PhaseStatuses || a.phase == session.PhaseCommands) && !m.Redelivered
	if a.phase == session.PhaseAdmitting && s.reason == session.ReasonSequenceTooManyHeld { // it is held like every other message
		wantAbort = true
	}
	if answered != wantAnswer || aborted != wantAbort {
		a.fail("REC-4: repeated Connect in phase %v: answered %v, aborted %v", a.phase, answered, aborted)
	}
}

// checkPhase compares the phase of the core with what went before.
func (a *auditor) checkPhase(core *session.Session) {
	c := &a.current
	if c.open != (core.Phase() != session.PhaseWaiting) || c.running != (core.Phase() == session.PhaseRunning) {
		a.fail("phase %v, session open %v, running %v", core.Phase(), c.open, c.running)
	}
	if core.Phase() == session.PhaseStatuses && c.answers == len(c.listed) {
		a.fail("SEQ-15: all %d first statuses are answered and no command was sent", c.answers)
	}
	if core.Phase() == session.PhaseCommands && (c.commands != len(c.listed) || c.got >= len(c.listed)) {
		a.fail("SEQ-33: %d commands, %d responses for %d devices", c.commands, c.got, len(c.listed))
	}
	if core.Phase() == session.PhaseAdmitting && len(c.asked) == 0 {
		a.fail("SEQ-8: every module has answered and no ConnectResponse was sent")
	}
	if c.running && !a.now.Before(c.calledUntil) && (c.calledUntil.IsZero() || !a.overdue) {
		a.checkOwed()
	}
	if a.inStep.mustLeave != (fleet.DeviceID{}) && c.open && c.live[a.inStep.mustLeave] {
		a.fail("CMD-23, REC-8: %v is still connected", a.inStep.mustLeave)
	}
	switch a.event.Kind {
	case session.EventLinkDown, session.EventPublishFailed, session.EventStop, session.EventDisconnect:
		if c.open {
			a.fail("CONN-29: the session goes on after event %d", a.event.Kind)
		}
	}
	if c.running && a.event.Kind == session.EventMessage && a.event.Message.Kind == fleet.ClientStatus &&
		a.event.Message.SessionID == a.id && c.hadModule && len(c.live) == 0 {
		a.fail("STAT-34: the session goes on without a connected device")
	}
}

// checkLoad: everything is bounded (REC-22).
func (a *auditor) checkLoad(core *session.Session) {
	c := &a.current
	l := core.Load()
	if l.Ahead > a.w.sc.MaxAhead+1 || l.Held > a.w.sc.MaxAhead+len(c.listed) || l.Devices > 32 || l.Pending > a.w.sc.MaxPending*len(moduleNumbers) || l.Unacked > 5000 {
		a.fail("REC-22: the core holds too much: %+v", l)
	}
	if a.w.sc.MaxUnacked > 0 && l.Unacked > (a.w.sc.MaxUnacked+a.w.sc.MaxPending)*len(moduleNumbers)+len(c.listed) {
		a.fail("REC-22: %d commands are under way", l.Unacked)
	}
	if core.Phase() == session.PhaseWaiting && l != (session.Load{}) {
		a.fail("SM-4: something is left of the session: %+v", l)
	}
}
