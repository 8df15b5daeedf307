package session

import (
	"slices"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// hintEvery is after how many statuses of which nothing else is to be told Version changes.
const hintEvery = 256

// maxHint is how far behind the record of a failed server the status that comes first may
// be. More is not explained by what the record leaves out: it is not that of this session as it was.
const maxHint = 2 * hintEvery

// Version changes when something has changed that another server must know to go on with the session,
// should this one fail: whether it is in normal communication, its devices, commands and their
// responses, statuses that are held, how far modules have fetched commands. The counter of statuses
// alone changes it only at every 256th status, so for the other server it is a hint. The owner hands on
// what AppendCarried says before it performs the effects of the Step: it has to leave in front of what
// they send (RES-22).
func (s *Session) Version() uint64 { return s.version }

func (s *Session) carry() { s.version, s.uncarried = s.version+1, 0 }

// finishCarry looks at the end of a Step whether what is held has changed, or the devices.
func (s *Session) finishCarry() {
	ahead := s.order.Len()
	if s.changed || ahead != s.carried || slices.ContainsFunc(s.early, s.order.Has) {
		s.carry()
	}
	s.carried = ahead
}

// AppendCarried appends a record for another server, see record.Carried; nothing if there is no session
// in normal communication. The Session must be Durable.
func (s *Session) AppendCarried(b []byte) []byte {
	if s.phase != PhaseRunning {
		return b
	}
	r := s.Record()
	var left []record.Left
	r.Owed, left = s.owed.Carried()
	return s.appendState(record.BeginCarried(b), r, left)
}

// adopt makes the counter of a status the one that is next, in a session that a failed server
// had (RES-23). All before it was acknowledged by that server, or it would come first. False: the session was
// ended, because the record is not that of this session as it was.
func (s *Session) adopt(m fleet.ClientMessage) bool {
	h, o := s.hint, &s.order
	switch {
	case !o.Started:
		if h.Held && int32(m.Counter-h.First) > 0 { // that status was held in front of all others
			m.Counter = h.First
		}
		o.First = m.Counter
	case int32(m.Counter-o.Expected) < 0: // too late, see status
		return true
	case h.Held && int32(m.Counter-h.First) > 0: // one in front of it is missing
		return true
	case m.Counter-o.Expected > maxHint:
		s.end(ReasonOutdated, false)
		s.beforeConnect(m)
		return false
	}
	if r := s.recovery; r != nil && o.Started {
		r.base = m.Counter
		r.arrival.LookBack(true, m.Counter) // what the other server wrote up to here has arrived
	}
	o.Started, o.Expected, s.hint = true, m.Counter, nil
	s.recordSession()
	return true
}

// handOver forwards and answers a status that a failed server has accepted but not acknowledged: its module
// may never have got it. False: there is no room and the session has ended.
func (s *Session) handOver(m fleet.ClientMessage) bool {
	dev := s.find(m.Device.ID())
	if dev == nil || !dev.supported || m.State < fleet.StateConnecting || m.State > fleet.StateDisconnect {
		s.respond(m, false, 0)
		return true
	}
	if !s.hasRoom(m.Device.Module) {
		s.end(ReasonTooManyAhead, true)
		return false
	}
	s.recordStatus(m, record.StatusForwarded|record.StatusAnswered)
	s.respond(m, true, s.forward(m))
	return true
}
