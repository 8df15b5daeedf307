package gateway

import (
	"encoding/json"
	"testing"
)

func TestButton(t *testing.T) {
	var lamp []bool
	b := NewButton("button", "B1", func(lit bool) { lamp = append(lamp, lit) })
	if data, changed := b.Status(); string(data) != `{"pressed": false}` || changed {
		t.Errorf("status %s changed=%v of a new button", data, changed)
	}
	b.Press(true)
	if data, changed := b.Status(); string(data) != `{"pressed": true}` || !changed {
		t.Errorf("status %s changed=%v after a press", data, changed)
	}
	if _, changed := b.Status(); changed {
		t.Error("status changed without a press")
	}
	for _, command := range []string{`{"lit_up": true}`, `{"lit_up": true}`, `nonsense`, `{}`, `{"lit_up": false}`} {
		b.Command([]byte(command))
	}
	if len(lamp) != 2 || !lamp[0] || lamp[1] || b.Lit() {
		t.Errorf("lamp switched %v, want on and off", lamp)
	}
}

// TestAutonomyMission: MM-21, MM-25. The car drives to each stop, waits there, and is
// idle after the last one.
func TestAutonomyMission(t *testing.T) {
	a := NewAutonomy("driving", "A1", Position{49.2, 16.6, 200})
	states := func(n int) (all []string, names []string) {
		for range n {
			data, _ := a.Status()
			var status struct {
				State     string
				Telemetry *struct{ Speed *float64 }
				NextStop  *Station
			}
			if err := json.Unmarshal(data, &status); err != nil || status.Telemetry == nil || status.Telemetry.Speed == nil {
				t.Fatalf("status %s: %v", data, err)
			}
			if len(all) == 0 || all[len(all)-1] != status.State {
				all = append(all, status.State)
			}
			if s := status.NextStop; s != nil && (len(names) == 0 || names[len(names)-1] != s.Name) {
				names = append(names, s.Name)
			}
		}
		return all, names
	}
	if got, _ := states(3); len(got) != 1 || got[0] != "IDLE" {
		t.Errorf("states %v before a mission", got)
	}
	a.Command([]byte(`{"action":"NO_ACTION","stops":[],"route":""}`))
	a.Command([]byte(`garbage`))
	if _, changed := a.Status(); changed {
		t.Error("status changed without a mission")
	}
	a.Command([]byte(`{"action":"START","route":"r","stops":[
		{"name":"stop1","position":{"latitude":49.3,"longitude":16.7,"altitude":210}},
		{"name":"stop2","position":{"latitude":49.4,"longitude":16.6,"altitude":220}}]}`))
	got, stops := states(200)
	want := []string{"DRIVE", "IN_STOP", "DRIVE", "IN_STOP", "IDLE"}
	if len(got) != len(want) {
		t.Fatalf("states %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("states %v, want %v", got, want)
		}
	}
	if len(stops) != 2 || stops[0] != "stop1" || stops[1] != "stop2" {
		t.Errorf("next stops %v", stops)
	}
	a.Command([]byte(`{"action":"START","stops":[{"name":"far","position":{"latitude":1,"longitude":1,"altitude":0}}]}`))
	if got, _ := states(2); got[0] != "DRIVE" {
		t.Errorf("states %v after a second mission", got)
	}
	a.Command([]byte(`{"action":"STOP"}`))
	if got, _ := states(2); len(got) != 1 || got[0] != "IDLE" {
		t.Errorf("states %v after STOP", got)
	}
}
