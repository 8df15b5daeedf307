package session

import (
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/contention"
)

// answeredElsewhere is how long a gateway whose statuses are not answered goes on with
// its session at most: it gives up after 30 s (GW-42), looks every 3 s and may stall for
// 10 s (GW-57). The rest is for a slow network.
const answeredElsewhere = time.Minute

// unknown is what is known of sessions that a gateway believes in and we do not have.
type unknown struct {
	quietUntil time.Time // the gateway is not called before
	id         string    // of the session whose status came last
	since      time.Time // when its first status came
}

// beforeConnect discards what comes while no session exists (SEQ-1, REC-5). A
// status proves that the gateway believes in a session that we do not have, after an
// unclean restart of ours for instance. The gateway is called to connect anew, once in
// a while (RES-21).
//
// That a status is CONNECTING makes no difference. It is that of a device which joins,
// and then the gateway is in normal communication; or a first one of a connect sequence
// whose server is gone, and then the attempt fails in any case: at once because of the
// call, or within 5 s without it (GW-1).
func (s *Session) beforeConnect(m fleet.ClientMessage) {
	s.note(Debug, NoteNotConnected, m.Device, m.Counter)
	if m.Kind != fleet.ClientStatus || s.backlog { // a Connect may be further back (RES-14)
		return
	}
	u := &s.unknown
	if u.since.IsZero() || u.id != m.SessionID {
		u.id, u.since = m.SessionID, s.now
	}
	if s.now.Before(u.quietUntil) {
		return
	}
	s.stayQuiet(s.opts.UnknownSessionPause)
	s.note(Info, NoteUnknownSession, m.Device, m.Counter)
	s.callAnew(m.SessionID)
	// One that is deaf (GW-55) or slow has given up its session by then.
	if s.now.Sub(u.since) >= answeredElsewhere {
		s.warn(s.contend().Say(contention.AnotherServer, s.now), m.Device, m.Counter)
	}
}

// callAnew makes a gateway in normal communication connect anew at once: any
// ConnectResponse does (GW-34). After a disconnect notification it would wait for its
// next status, up to 15 s, and often fail its first attempt (GW-58). ALREADY_LOGGED
// completes no connect sequence, whatever its id.
func (s *Session) callAnew(id string) {
	s.emit(Effect{Kind: EffectPublish, Message: fleet.ServerMessage{Kind: fleet.ServerConnectResponse, SessionID: id, AlreadyLogged: true}})
	s.called = true
	s.outgoing = true // what is queued when the next Connect comes would fail its sequence
}

// stayQuiet postpones the next answer to an unknown session. What forbids it for
// longer stays in force.
func (s *Session) stayQuiet(d time.Duration) {
	if until := s.now.Add(d); until.After(s.unknown.quietUntil) {
		s.unknown.quietUntil = until
	}
}
