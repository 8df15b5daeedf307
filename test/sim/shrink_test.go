package sim

import (
	"strings"
	"testing"
	"time"
)

// A history that fails because of one action is shrunk to that action.
func TestShrinkFindsTheCause(t *testing.T) {
	sc := New(3)
	sc.Actions = nil
	for i := range 12 {
		sc.Actions = append(sc.Actions, Action{At: time.Duration(i) * time.Second, Kind: SlowModule, For: time.Second, N: i})
	}
	// The server is killed when the car must be served again.
	sc.Actions = append(sc.Actions, Action{At: sc.Faults + recovery, Kind: KillServer, For: time.Minute})
	failing := Play(sc)
	if failing.Err == nil {
		t.Fatal("the history does not fail")
	}
	smallest := Shrink(failing, 100)
	if smallest.Err == nil || len(smallest.Scenario.Actions) != 1 || smallest.Scenario.Actions[0].Kind != KillServer {
		t.Errorf("shrunk to\n%vwith %v, want the kill alone", smallest.Scenario, smallest.Err)
	}
	if len(sc.Actions) != 13 {
		t.Errorf("shrinking changed the history it was given: %d actions", len(sc.Actions))
	}
	if s := smallest.Scenario.String(); !strings.Contains(s, "kill server for 1m0s") {
		t.Errorf("the printed history does not name the action:\n%s", s)
	}
}
