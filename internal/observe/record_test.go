package observe

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/car"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/module"
	"external-server/internal/observe/alerts"
	"external-server/internal/observe/history"
	"external-server/internal/session"
)

// watched runs a hub in virtual time until the test ends.
func watched(t *testing.T, opts Options) *Hub {
	t.Helper()
	h := newHub(t, opts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.Watch(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return h
}

// pass lets virtual time go on.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// answeredAfter is one status that was accepted and answered after a time.
func answeredAfter(c *Car, after time.Duration) {
	now := time.Now()
	c.Observe(&car.Event{Kind: car.Forwarded, At: now, Device: lamp, OK: true})
	c.Observe(&car.Event{Kind: car.Sent, At: now.Add(after), Since: now, OK: true, Out: fleet.ServerMessage{Kind: fleet.ServerStatusResponse}})
}

func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits atomic.Int64 // seconds
		h := watched(t, Options{Sources: Sources{Cars: func() []car.Snapshot {
			s := car.Snapshot{ID: carID, Modules: []car.ModuleSnapshot{{Number: 2}}}
			if w := waits.Load(); w > 0 {
				s.Modules[0].WorkerStats = module.WorkerStats{Queued: 1, OldestQueued: time.Now().Add(-time.Duration(w) * time.Second)}
			}
			return []car.Snapshot{s}
		}}})
		c := h.Car(carID)
		if got := h.History(); len(got) != 0 {
			t.Fatalf("%d points at the start", len(got))
		}
		connect(c, "s1", time.Now(), lamp)
		for range 50 {
			answeredAfter(c, 2*time.Millisecond)
		}
		answeredAfter(c, 3*time.Second)
		waits.Store(4)
		pass(history.Step)
		got := h.History()
		if len(got) != 1 {
			t.Fatalf("%d points after one step", len(got))
		}
		p := got[0]
		if p.Statuses != 5.1 || p.Answers != 51 || p.P50 == nil || *p.P50 < 0.001 || *p.P50 > 0.0025 || *p.P99 < 2.5 || *p.P99 > 5 {
			t.Errorf("point %+v with %v and %v", p, *p.P50, *p.P99)
		}
		if p.Cars["running"] != 1 || math.Abs(p.Queues["2"]-4) > 0.01 || p.Ends != nil || p.Replicas != 1 {
			t.Errorf("point %+v", p)
		}
		ended(c, "s1", time.Now(), session.ReasonSessionTimeout)
		waits.Store(0)
		pass(history.Step)
		p = h.History()[1]
		if p.Statuses != 0 || p.P50 != nil || p.P99 != nil || p.Ends[string(session.ReasonSessionTimeout)] != 1 || p.Cars["waiting"] != 1 || p.Queues["2"] != 0 {
			t.Errorf("second point %+v", p)
		}

		// The hour is the bound, and its points are ten seconds apart.
		pass(70 * time.Minute)
		got = h.History()
		if len(got) != history.Kept {
			t.Errorf("%d points after more than an hour", len(got))
		}
		for i := range got[1:] {
			if d := got[i+1].At.Sub(got[i].At); d != history.Step || got[i].At != got[i].At.Truncate(history.Step) {
				t.Fatalf("points at %v and %v", got[i].At, got[i+1].At)
			}
		}
		if last := got[len(got)-1].At; time.Since(last) >= history.Step {
			t.Errorf("the last point is of %v", last)
		}
	})
}

func TestAlertsOfAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		up.Store(true)
		h := watched(t, Options{Sources: Sources{Link: func() link.State { return link.State{Up: up.Load()} }}})
		names := func() (out []string) {
			on, _ := h.Alerts()
			for _, a := range on {
				out = append(out, a.Name)
			}
			return out
		}
		pass(time.Minute)
		if got := names(); len(got) != 0 {
			t.Fatalf("on are %q", got)
		}
		began := time.Now()
		up.Store(false)
		pass(30 * time.Second)
		if got := names(); len(got) != 0 {
			t.Errorf("on are %q before the time of the rule", got)
		}
		pass(20 * time.Second)
		on, at := h.Alerts()
		if len(on) != 1 || on[0].Name != "ExternalServerBrokerConnectionLost" || on[0].Severity != alerts.Page || on[0].Since.Sub(began) > history.Step || time.Since(at) >= history.Step {
			t.Errorf("on are %+v at %v", on, at)
		}
		up.Store(true)
		pass(history.Step)
		if got := names(); len(got) != 0 {
			t.Errorf("on are %q with the broker back", got)
		}

		// An alert names the cars it is about, the newest first, and how many there are.
		for i := range alertCars + 2 {
			c := h.Car(fleet.CarID{Company: "acme", Car: fmt.Sprint("car", i)})
			c.Observe(&car.Event{Kind: car.Dropped, At: time.Now(), Reason: car.DropTooLarge, Count: 1})
			pass(time.Second)
		}
		pass(history.Step)
		on, _ = h.Alerts()
		if len(on) != 1 || on[0].Name != "ExternalServerMessagesDropped" || on[0].Reason != car.DropTooLarge || on[0].CarsTotal != alertCars+2 ||
			!slices.Equal(on[0].Cars, []string{"car6", "car5", "car4", "car3", "car2"}) {
			t.Errorf("on are %+v", on)
		}
		pass(10 * time.Minute)
		if got := names(); len(got) != 0 {
			t.Errorf("on are %q ten minutes after the last of it", got)
		}
	})
}

// What the rules and the points are made of exists.
func TestReadMetricsExist(t *testing.T) {
	h := full(t)
	for _, name := range slices.Concat(alerts.Metrics(), history.Names()) {
		if !slices.ContainsFunc(h.Metrics(), func(m Metric) bool { return m.Name == name }) {
			t.Errorf("%s is read and does not exist", name)
		}
	}
	for _, s := range h.recorder.samples() {
		if strings.HasPrefix(s.Name, "external_server_car_") {
			t.Errorf("the series %s of a single car is read", s.Name)
		}
	}
}

// BenchmarkReading is what the history costs every ten seconds, with ten thousand cars.
func BenchmarkReading(b *testing.B) {
	cars := make([]car.Snapshot, 10_000)
	for i := range cars {
		cars[i] = car.Snapshot{ID: fleet.CarID{Company: "acme", Car: fmt.Sprint("car", i)}, Modules: []car.ModuleSnapshot{{Number: 1}, {Number: 2}}}
	}
	h := newHub(b, Options{PerCar: true, Sources: Sources{Cars: func() []car.Snapshot { return cars }, Link: func() link.State { return link.State{Up: true} }}})
	connect(h.Car(carID), "s1", time.Now(), lamp)
	now := time.Now()
	for b.Loop() {
		now = now.Add(history.Step)
		answeredAfter(h.Car(carID), time.Millisecond)
		h.recorder.read(now, history.Step)
	}
}
