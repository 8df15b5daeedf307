package vehicle

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// Cars without commands are a town: they stand in different places, drive along the
// streets, wait in stops, rest, meet obstacles, and never run dry.
func TestCarsOnTourAreATown(t *testing.T) {
	const cars = 50
	states := make(map[string]int)
	moved := make(map[int]bool)
	starts := make(map[Position]bool)
	for i := range cars {
		a := NewTouring(rand.New(rand.NewPCG(1, uint64(i))))
		begin := statusOf(t, a).Telemetry.Position
		starts[begin] = true
		for second := range 600 {
			before := a.position
			a.Advance(time.Second)
			states[a.state]++
			if d := distance(before, a.position); d > topSpeed+1 {
				t.Fatalf("car %d jumped %.0f m in a second", i, d)
			}
			if second%20 == 0 {
				if off := fromStreets(a.position); off > 20 {
					t.Fatalf("car %d is %.0f m off the streets, at %+v", i, off, a.position)
				}
			}
			if distance(begin, a.position) > 200 {
				moved[i] = true
			}
		}
	}
	if len(starts) != cars || len(moved) != cars {
		t.Errorf("%d of %d cars began in a place of their own, %d moved", len(starts), cars, len(moved))
	}
	for state, least := range map[string]int{Drive: 10_000, InStop: 1000, Idle: 500, Obstacle: 50} {
		if states[state] < least {
			t.Errorf("%d of %d statuses say %s, expected %d at least", states[state], cars*600, state, least)
		}
	}
	if states[Error] > 0 {
		t.Errorf("%d statuses say ERROR", states[Error])
	}
}

// A tank lasts 100 km; drivers on tour fill it in time.
func TestCarOnTourFillsItsTank(t *testing.T) {
	a := NewTouring(rand.New(rand.NewPCG(7, 7)))
	a.fuel = 0.3
	lowest := 1.0
	for range 6 * 60 {
		a.Advance(time.Minute)
		lowest = min(lowest, a.fuel)
		if a.state == Error {
			t.Fatal("out of fuel")
		}
	}
	if lowest > 0.25 {
		t.Errorf("the tank was never below %.2f in six hours", lowest)
	}
}

// A car on tour obeys, and drives no tours afterwards.
func TestCarOnTourObeys(t *testing.T) {
	a := NewTouring(rand.New(rand.NewPCG(3, 3)))
	a.Advance(time.Minute)
	if _, err := a.Command([]byte(`{"action":"START","stops":[` + string(mustJSON(Places()[5])) + `],"route":""}`)); err != nil {
		t.Fatal(err)
	}
	a.Advance(20 * time.Minute)
	s := statusOf(t, a)
	if s.State != Idle || distance(s.Telemetry.Position, Places()[5].Position) > arrived {
		t.Errorf("after the mission: %+v", s)
	}
}

// A stop without a name is told by its place, never by nothing.
func TestStopWithoutName(t *testing.T) {
	a := NewAutonomy(Places()[0].Position)
	said, err := a.Command([]byte(`{"action":"START","stops":[{"position":{"latitude":49.2,"longitude":16.6}}]}`))
	if err != nil || said != "starts to 49.2000, 16.6000" {
		t.Errorf("said %q, %v", said, err)
	}
	if _, next := a.State(); next != "49.2000, 16.6000" {
		t.Errorf("next stop %q", next)
	}
}

// Every place is reached from every other one along streets.
func TestEveryPlaceIsReached(t *testing.T) {
	all := Places()
	for end := range all {
		lengths, _ := toEverywhere(all, end)
		for i, l := range lengths {
			if math.IsInf(l, 1) {
				t.Errorf("no way from %s to %s", all[i].Name, all[end].Name)
			}
		}
	}
	if way := route(all[0].Position, Position{Latitude: 50, Longitude: 14.4}); len(way) != 0 {
		t.Errorf("the way to another town has corners: %v", way)
	}
}

// fromStreets returns the distance to the closest street, in metres.
func fromStreets(p Position) float64 {
	best := math.Inf(1)
	all := Places()
	for _, s := range streets() {
		a, b := all[s[0]].Position, all[s[1]].Position
		for i := range 101 {
			best = min(best, distance(p, between(a, b, float64(i)/100)))
		}
	}
	return best
}
