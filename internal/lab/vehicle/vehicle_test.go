package vehicle

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

type missionStatus struct {
	State     string
	Telemetry struct {
		Speed, Fuel float64
		Position    Position
	}
	NextStop *Station
}

func statusOf(t *testing.T, a *Autonomy) missionStatus {
	t.Helper()
	var s missionStatus
	if err := json.Unmarshal(a.Status(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCarFollowsItsMission(t *testing.T) {
	p := Places()
	a := NewAutonomy(p[0].Position)
	a.Advance(time.Second)
	if s := statusOf(t, a); s.State != "IDLE" || s.NextStop != nil {
		t.Fatalf("without mission: %+v", s)
	}
	said, err := a.Command([]byte(`{"action":"START","stops":[` + string(mustJSON(p[1])) + `,` + string(mustJSON(p[2])) + `],"route":"r"}`))
	if err != nil || !strings.Contains(said, p[1].Name) {
		t.Fatalf("START: %q, %v", said, err)
	}
	a.Advance(10 * time.Second)
	s := statusOf(t, a)
	if s.State != "DRIVE" || s.Telemetry.Speed <= 0 || s.Telemetry.Fuel >= 1 || s.NextStop.Name != p[1].Name {
		t.Fatalf("on the way: %+v", s)
	}
	var seen []string
	for range 600 {
		a.Advance(time.Second)
		if state, _ := a.State(); len(seen) == 0 || seen[len(seen)-1] != state {
			seen = append(seen, state)
		}
	}
	if got := strings.Join(seen, " "); got != "DRIVE IN_STOP DRIVE IN_STOP IDLE" {
		t.Fatalf("states on the way: %s", got)
	}
	if d := distance(statusOf(t, a).Telemetry.Position, p[2].Position); d > arrived {
		t.Fatalf("ended %v m from the last stop", d)
	}
	var finished struct{ FinishedStops []Station }
	if err := json.Unmarshal(a.FinishedStops(), &finished); err != nil || len(finished.FinishedStops) != 2 {
		t.Fatalf("finished stops: %+v, %v", finished, err)
	}
	if got := string(a.FinishedStops()); got != `{"finishedStops":[]}` {
		t.Fatalf("finished stops are told once, got %s", got)
	}
}

func TestCarStopsAndRefusesNonsense(t *testing.T) {
	a := NewAutonomy(Places()[0].Position)
	if _, err := a.Command([]byte(`{"action":"START","stops":[` + string(mustJSON(Places()[4])) + `]}`)); err != nil {
		t.Fatal(err)
	}
	a.Advance(5 * time.Second)
	if _, err := a.Command([]byte(`{"action":"STOP","stops":[],"route":""}`)); err != nil {
		t.Fatal(err)
	}
	a.Advance(time.Second)
	if s := statusOf(t, a); s.State != "IDLE" || s.Telemetry.Speed != 0 {
		t.Fatalf("after STOP: %+v", s)
	}
	for _, bad := range []string{`{"action":"FLY"}`, `[`, `{}`} {
		if _, err := a.Command([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestPanelObeys(t *testing.T) {
	p := &Panel{}
	for _, c := range []struct{ command, said, status string }{
		{`[{"outNum":0,"actType":1}]`, "lamp 0 goes on", `[[{"inNum":0,"inSt":0},{"inNum":1,"inSt":0}],[{"outNum":0,"outErr":0,"outSt":1},{"outNum":1,"outErr":0,"outSt":0}],{"butPr":0}]`},
		{`[{"outNum":0,"actType":2},{"outNum":1,"actType":2}]`, "lamp 0 goes off, lamp 1 goes on", `[[{"inNum":0,"inSt":0},{"inNum":1,"inSt":0}],[{"outNum":0,"outErr":0,"outSt":0},{"outNum":1,"outErr":0,"outSt":1}],{"butPr":0}]`},
		{`[]`, "changes nothing", `[[{"inNum":0,"inSt":0},{"inNum":1,"inSt":0}],[{"outNum":0,"outErr":0,"outSt":0},{"outNum":1,"outErr":0,"outSt":1}],{"butPr":0}]`},
	} {
		said, err := p.Command([]byte(c.command))
		if err != nil || said != c.said {
			t.Errorf("%s: said %q, %v", c.command, said, err)
		}
		if got := string(p.Status()); got != c.status {
			t.Errorf("%s: status %s", c.command, got)
		}
	}
	p.Press(true)
	if !strings.Contains(string(p.Status()), `{"butPr":1}`) {
		t.Errorf("pressed: %s", p.Status())
	}
	for _, bad := range []string{`[{"outNum":7,"actType":1}]`, `[{"outNum":0,"actType":9}]`, `{`} {
		if _, err := p.Command([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
