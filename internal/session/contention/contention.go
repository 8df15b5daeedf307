// Package contention finds out whether a car has two gateways or two servers. Each makes the gateways
// begin session after session. Who is at fault is said only where nothing else explains what was seen:
//
//   - A gateway that has sent a Connect says nothing more in its former session. So one that goes on to
//     speak in turn with the current session belongs to another gateway (TwoGateways).
//   - A gateway that answers what this server has not sent hears another one (TwoServers).
//   - A gateway that keeps a session which this server does not have is answered by another one, which
//     package session finds out (AnotherServer).
//   - Otherwise short sessions are reported without a reason (SessionsShort, GW-57).
//
// An observation counts for 2 min, and no finding is said again within a minute. What is remembered is
// bounded. Nothing here reads a clock: times come from the caller.
package contention

import (
	"slices"
	"time"
)

// Finding is what Evidence tells of the car.
type Finding uint8

// Findings.
const (
	Nothing Finding = iota
	AnotherServer
	SessionsShort
	TwoGateways
	TwoServers
	findings
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

// What is remembered of sessions that were replaced.
const (
	keptReplaced = 4
	longestID    = 128 // bytes; gateways use 8
)

// Evidence is what was seen of one car. A nil one has seen nothing.
type Evidence struct {
	replaced []string    // ids of the sessions that were replaced last
	short    []time.Time // ends of short sessions
	turns    []time.Time // messages of a session whose place another one has taken
	foreign  []time.Time // sessions whose gateway answers what we have not sent
	noted    string      // the last one of these
	said     [findings]time.Time
}

// enough adds an observation and tells whether there are n of them within evidenceFor.
func enough(at *[]time.Time, now time.Time, n int) bool {
	if len(*at) == n {
		*at = slices.Delete(*at, 0, 1)
	}
	*at = append(*at, now)
	return len(*at) == n && now.Sub((*at)[0]) <= evidenceFor
}

// Replaced tells whether the session was one of those that were replaced last.
func (e *Evidence) Replaced(id string) bool { return e != nil && slices.Contains(e.replaced, id) }

// Over looks at the end of a session or of a connect sequence. replaced: another Connect ended it,
// otherwise its gateway fell silent. called: this server made the gateway connect anew.
func (e *Evidence) Over(id string, began, now time.Time, replaced, called bool) Finding {
	if replaced && len(id) <= longestID {
		if len(e.replaced) == keptReplaced {
			e.replaced = slices.Delete(e.replaced, 0, 1)
		}
		e.replaced = append(e.replaced, id)
	}
	if called || now.Sub(began) >= shortSession || !enough(&e.short, now, fewSessions) {
		return Nothing
	}
	for _, f := range []Finding{TwoGateways, TwoServers} {
		if said := e.said[f]; !said.IsZero() && now.Sub(said) < evidenceFor {
			return Nothing // it is known why
		}
	}
	return e.Say(SessionsShort, now)
}

// Foreign looks at a message of another session than the current one, which has begun and was heard at these
// times. What is under way when a gateway connects anew, and what a stuck connection brings late, comes once.
func (e *Evidence) Foreign(id string, began, heard, now time.Time) Finding {
	if !e.Replaced(id) || now.Sub(began) < turnPause {
		return Nothing
	}
	if n := len(e.turns); n > 0 && (now.Sub(e.turns[n-1]) < turnPause || !heard.After(e.turns[n-1])) {
		return Nothing // the current session has not spoken in between
	}
	if !enough(&e.turns, now, fewTurns) {
		return Nothing
	}
	return e.Say(TwoGateways, now)
}

// NotOurs looks at a message of the session that answers something this server has not sent: a first status
// before our ConnectResponse, or the response to a command that is none of ours. Only another server can have
// sent it.
func (e *Evidence) NotOurs(id string, now time.Time) Finding {
	if e.noted == id { // one for each session
		return Nothing
	}
	e.noted = id
	if !enough(&e.foreign, now, fewForeign) {
		return Nothing
	}
	return e.Say(TwoServers, now)
}

// Say returns the finding when it is to be said: once, and again from time to
// time while it goes on. Otherwise it returns Nothing.
func (e *Evidence) Say(f Finding, now time.Time) Finding {
	if said := e.said[f]; !said.IsZero() && now.Sub(said) < sayAgain {
		return Nothing
	}
	e.said[f] = now
	return f
}
