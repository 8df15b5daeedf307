package journals

import (
	"log/slog"
	"maps"
	"slices"
	"testing"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/observe"
	"external-server/internal/session/record"
)

// open opens the state directory as a process does at its start.
func open(t *testing.T, cfg *config.Config, tell func(observe.Event)) *Journals {
	t.Helper()
	j := New(Options{
		Logger: slog.New(slog.DiscardHandler), Version: "test",
		OwnBroker: func() bool { return false }, Tell: tell,
	})
	if err := j.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return j
}

func id(car string) fleet.CarID { return fleet.CarID{Company: "company", Car: car} }

// leave writes down that a module has not taken a status of the car yet.
func leave(t *testing.T, j *Journals, car string) {
	t.Helper()
	s := j.Of(id(car))
	s.Append(record.Begin(nil, id(car).String()).Left(&record.Left{Device: fleet.Device{Module: 5, Type: 1, Role: "lamp"}, Data: []byte("on"), Number: 1}))
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

// What modules had not taken is known to the next process, once for each car. What it
// knows of a car that it does not serve is given up, counted and told. After a final stop
// nothing is known.
func TestNextProcessKnows(t *testing.T) {
	cfg := &config.Config{Company: "company", StateDirectory: t.TempDir()}
	var told []observe.Event
	tell := func(e observe.Event) { told = append(told, e) }
	first := open(t, cfg, tell)
	leave(t, first, "served")
	leave(t, first, "gone")
	first.Suspend(func(int) bool { return true })
	if err := first.Close(false); err != nil {
		t.Fatal(err)
	}

	second := open(t, cfg, tell)
	if cars := second.Cars("company"); !slices.Equal(cars, []string{"gone", "served"}) {
		t.Errorf("something is left to do for %q", cars)
	}
	for range 2 {
		if known := second.Look(id("served")); known == nil || len(known.Left) != 1 || string(known.Left[0].Data) != "on" {
			t.Errorf("%+v is known", known)
		}
	}
	if known := second.Take(id("served")); known == nil || second.Take(id("served")) != nil {
		t.Errorf("%+v is taken, and then %+v", known, second.Take(id("served")))
	}
	second.ForgetAllUnserved()
	if got := second.GivenUp(); !maps.Equal(got, map[string]int{notConfigured: 1}) {
		t.Errorf("%v statuses are given up", got)
	}
	if len(told) != 1 || told[0].Car != "gone" || told[0].Module != 0 || told[0].Count != 1 {
		t.Errorf("told: %+v", told)
	}
	if err := second.Close(true); err != nil {
		t.Fatal(err)
	}

	third := open(t, cfg, tell)
	if known := third.Look(id("served")); known != nil {
		t.Errorf("after a final stop %+v is known", known)
	}
	if err := third.Close(false); err != nil {
		t.Error(err)
	}
}

// A status with which two processes have died is given up if its module runs in the
// process of the server, and only then.
func TestStatusThatEndsTheServer(t *testing.T) {
	for _, tt := range []struct {
		name      string
		isolation config.Isolation
		tried     uint64
		deaths    int
		givenUp   int
	}{
		{"in the server", config.IsolationNone, 2, 2, 1},
		{"in a process of its own", config.IsolationProcess, 2, 2, 0},
		{"tried once", config.IsolationNone, 1, 2, 0},
		{"one death", config.IsolationNone, 2, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := &config.Config{
				Company: "company", StateDirectory: t.TempDir(),
				Cars: []config.Car{{Name: "car", Modules: []config.Module{{Number: 5, Isolation: tt.isolation}}}},
			}
			j := open(t, cfg, func(observe.Event) {})
			defer func() {
				if err := j.Close(false); err != nil {
					t.Error(err)
				}
			}()
			s := j.Of(id("car"))
			left := []record.Left{{Device: fleet.Device{Module: 5}, Number: 1, Tried: tt.tried}, {Device: fleet.Device{Module: 5}, Number: 2}}
			s.Know(id("car").String(), &record.Resumption{Left: left})
			j.suspect(s, tt.deaths, cfg)
			if got := j.GivenUp()[endedServer]; got != tt.givenUp {
				t.Errorf("%d statuses are given up, want %d", got, tt.givenUp)
			}
			if got := len(j.Look(id("car")).Left); got != len(left)-tt.givenUp {
				t.Errorf("%d statuses are left, want %d", got, len(left)-tt.givenUp)
			}
		})
	}
}
