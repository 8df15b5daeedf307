package contention

import (
	"testing"
	"time"
)

var start = time.Unix(1000, 0)

func at(d time.Duration) time.Time { return start.Add(d) }

// Short sessions that replace each other are reported at the fifth within 2 min, unless it is known why, and
// not again within a minute; what is remembered of them is bounded.
func TestShortSessions(t *testing.T) {
	var e Evidence
	over := func(after time.Duration, called bool) Finding {
		return e.Over("s", at(after-time.Second), at(after), true, called)
	}
	for i := range 4 {
		if f := over(time.Duration(i)*time.Second, false); f != Nothing {
			t.Fatalf("short session %d: found %d", i+1, f)
		}
	}
	if f := over(4*time.Second, true); f != Nothing {
		t.Errorf("a gateway that was called: found %d", f)
	}
	if f := over(5*time.Second, false); f != SessionsShort {
		t.Errorf("fifth short session: found %d, expected SessionsShort", f)
	}
	if f := over(6*time.Second, false); f != Nothing {
		t.Errorf("a second later: found %d", f)
	}
	e.Say(TwoGateways, at(66*time.Second))
	if f := over(67*time.Second, false); f != Nothing {
		t.Errorf("the reason is known: found %d", f)
	}
	if len(e.replaced) > keptReplaced || len(e.short) > fewSessions {
		t.Errorf("remembers %d sessions and %d ends", len(e.replaced), len(e.short))
	}
	if f := over(10*time.Minute, false); f != Nothing {
		t.Errorf("the other ones were long ago: found %d", f)
	}
}

// A replaced session that speaks in turn with the current one, three times, is that of a second gateway. What
// comes at once, or before the current session was heard again, is not a turn; nor is a session unknown.
func TestTurnsOfTwoGateways(t *testing.T) {
	var none *Evidence
	if f := none.Foreign("old", start, start, at(time.Minute)); f != Nothing {
		t.Errorf("without evidence: found %d", f)
	}
	var e Evidence
	e.Over("old", start.Add(-time.Hour), start, true, false)
	for i := range 9 {
		e.Foreign("old", start, at(time.Minute), at(time.Minute+time.Duration(i)*time.Millisecond))
		e.Foreign("other", start, at(time.Duration(i)*time.Hour), at(time.Duration(i)*time.Hour))
	}
	if f := e.Foreign("old", start, at(time.Minute), at(70*time.Second)); f != Nothing {
		t.Errorf("the current session was not heard in between: found %d", f)
	}
	e.Foreign("old", start, at(79*time.Second), at(80*time.Second))
	if f := e.Foreign("old", start, at(89*time.Second), at(90*time.Second)); f != TwoGateways {
		t.Errorf("third turn: found %d, expected TwoGateways", f)
	}
}

// Answers to another server count once for each session, and two sessions are enough.
func TestAnswersToAnotherServer(t *testing.T) {
	var e Evidence
	for range 3 {
		if f := e.NotOurs("one", start); f != Nothing {
			t.Errorf("in one session: found %d", f)
		}
	}
	if f := e.NotOurs("two", at(time.Minute)); f != TwoServers {
		t.Errorf("in a second session: found %d, expected TwoServers", f)
	}
	if f := e.NotOurs("three", at(10*time.Minute)); f != Nothing {
		t.Errorf("long after: found %d", f)
	}
}
