package session

import (
	"slices"
	"time"

	"external-server/internal/fleet"
)

// Limits of what tells that a car has two gateways or two servers.
const (
	evidenceFor  = 2 * time.Minute  // how long an observation counts
	shortSession = 30 * time.Second // a healthy gateway keeps a session for longer (GW-57)
	fewSessions  = 5                // short sessions that are nothing unusual, less one
	fewTurns     = 3                // turns of sessions that the network might explain, less one
	turnPause    = 5 * time.Second  // turns within it are one: a connection that was stuck brings much at once
	fewForeign   = 2                // sessions with answers to another server
	sayAgain     = time.Minute      // least pause between two warnings of one kind
)

// contention is what tells that a car has two gateways or two servers. Each makes the
// gateways begin session after session. Who is at fault is said only where nothing else
// explains what was seen.
type contention struct {
	replaced []string    // ids of the sessions that were replaced last
	short    []time.Time // ends of short sessions
	turns    []time.Time // messages of a session whose place another one has taken
	foreign  []time.Time // sessions whose gateway answers what we have not sent
	noted    string      // the last one of these
	said     map[Note]time.Time
}

// What is remembered of sessions that were replaced.
const (
	keptReplaced = 4
	longestID    = 128 // bytes; gateways use 8
)

// enough adds an observation and tells whether there are n of them within evidenceFor.
func enough(at *[]time.Time, now time.Time, n int) bool {
	if len(*at) == n {
		*at = slices.Delete(*at, 0, 1)
	}
	*at = append(*at, now)
	return len(*at) == n && now.Sub((*at)[0]) <= evidenceFor
}

func (s *Session) contend() *contention {
	if s.contention == nil {
		s.contention = &contention{said: make(map[Note]time.Time)}
	}
	return s.contention
}

// sessionOver looks at the end of a session or of a connect sequence.
func (s *Session) sessionOver(reason Reason) {
	if reason != ReasonReplaced && reason != ReasonSequenceTimeout {
		return
	}
	short := s.now.Sub(s.began) < shortSession && !s.called
	if reason != ReasonReplaced && !short {
		return
	}
	c := s.contend()
	if reason == ReasonReplaced && len(s.id) <= longestID {
		if len(c.replaced) == keptReplaced {
			c.replaced = slices.Delete(c.replaced, 0, 1)
		}
		c.replaced = append(c.replaced, s.id)
	}
	if !short || !enough(&c.short, s.now, fewSessions) {
		return
	}
	for _, n := range []Note{NoteTwoGateways, NoteTwoServers} {
		if said, ok := c.said[n]; ok && s.now.Sub(said) < evidenceFor {
			return // it is known why
		}
	}
	s.warn(NoteSessionsShort, fleet.Device{}, 0)
}

// foreignMessage looks at a message of another session. A gateway that has sent a
// Connect says nothing more in its former session. So one that goes on to speak in turn
// with the current session belongs to another gateway. What is under way when a gateway
// connects anew, and what a stuck connection brings late, comes once.
func (s *Session) foreignMessage(m fleet.ClientMessage) {
	c := s.contention
	if c == nil || s.backlog || s.now.Sub(s.began) < turnPause || !slices.Contains(c.replaced, m.SessionID) {
		return
	}
	if n := len(c.turns); n > 0 && (s.now.Sub(c.turns[n-1]) < turnPause || !s.heard.After(c.turns[n-1])) {
		return // the current session has not spoken in between
	}
	if enough(&c.turns, s.now, fewTurns) {
		s.warn(NoteTwoGateways, m.Device, m.Counter)
	}
}

// notOurs looks at a message of the current session that answers something this
// server has not sent: a first status before our ConnectResponse, or the response to a
// command that is none of ours. Only another server can have sent it.
func (s *Session) notOurs(m fleet.ClientMessage) {
	if s.backlog || m.Redelivered || s.replayed { // it may answer an earlier process or session
		return
	}
	c := s.contend()
	if c.noted == s.id { // one for each session
		return
	}
	c.noted = s.id
	if enough(&c.foreign, s.now, fewForeign) {
		s.warn(NoteTwoServers, m.Device, m.Counter)
	}
}

// warn says what is known of the car, now and then as long as it goes on.
func (s *Session) warn(n Note, d fleet.Device, counter uint32) {
	c := s.contend()
	if said, ok := c.said[n]; ok && s.now.Sub(said) < sayAgain {
		return
	}
	c.said[n] = s.now
	s.note(Warning, n, d, counter)
}
