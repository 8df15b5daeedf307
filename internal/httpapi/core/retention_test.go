package core

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
)

// TestRetention: messages older than the period go in small parts, and with its
// last status a device becomes unknown (HTTP-18).
func TestRetention(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		store := openStore(t, name)
		defer func() { _ = store.Close() }()
		c := newSteppedCore(t, store)
		many := make([]httpapi.Message, 700) // more than one part
		for i := range many {
			many[i] = apitest.Status(1, 1, "r", `{}`)
		}
		c.write(httpapi.KindStatus, many...)
		c.write(httpapi.KindCommand, apitest.Command(1, 1, "r", `"old"`))
		c.pass(30 * time.Minute)
		c.write(httpapi.KindStatus, apitest.Status(2, 1, "r", `"newer"`))
		apitest.WantEqual(t, "parts before the time", c.pass(29*time.Minute), 1)
		if got, _ := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{}); len(got) != 701 {
			t.Errorf("%d statuses before the time", len(got))
		}
		apitest.WantEqual(t, "parts", c.pass(2*time.Minute), 2)
		if got, _ := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{}); len(got) != 1 || string(got[0].Payload.Data) != `"newer"` {
			t.Errorf("%d left", len(got))
		}
		got, err := c.Commands(context.Background(), apitest.Car1, httpapi.Query{})
		apitest.WantEqual(t, "commands", []any{len(got), err}, []any{0, nil})
		modules, err := c.AvailableDevices(context.Background(), apitest.Car1, nil)
		if err != nil || len(modules) != 1 || modules[0].ModuleID != 2 {
			t.Errorf("devices %v, %v", modules, err)
		}
		c.pass(30 * time.Minute)
		if _, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{}); httpapi.StatusOf(err) != 404 {
			t.Errorf("car without status: %v", err)
		}
		if s := c.Stats(); s.Cars != 0 || s.Devices != 0 || s.Deleted != 702 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestClockThatWasAhead: what a car was given while the clock was ten years ahead
// stays its own concern. Its timestamps go on from there (HTTP-10), also when its
// messages are gone; the others' do not, and everything is deleted when it is old.
func TestClockThatWasAhead(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		car2 := fleet.CarID{Company: apitest.Car1.Company, Car: "car_2"}
		store := openStore(t, name)
		defer func() { _ = store.Close() }()
		timestamps := func(c *steppedCore, car fleet.CarID) (all []int64) {
			t.Helper()
			got, err := c.Statuses(context.Background(), car, httpapi.Query{})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range got {
				all = append(all, m.Timestamp)
			}
			return all
		}
		const ahead = 10 * 365 * 24 * time.Hour
		c := newSteppedCore(t, store)
		right := c.now.Load()
		wrong := right + ahead.Milliseconds()
		c.jump(ahead)
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))

		c = newSteppedCore(t, store) // the clock is right again and the server new
		c.pass(0)
		for range 3 {
			c.write(httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))
			c.writeTo(car2, httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))
		}
		apitest.WantEqual(t, "the car of that time", timestamps(c, apitest.Car1), []int64{wrong, wrong + 1, wrong + 2, wrong + 3})
		apitest.WantEqual(t, "another car", timestamps(c, car2), []int64{right, right + 1, right + 2})
		c.pass(59 * time.Minute)
		apitest.WantEqual(t, "messages before the time", []int{len(timestamps(c, apitest.Car1)), len(timestamps(c, car2))}, []int{4, 3})
		c.pass(2 * time.Minute)
		if s := c.Stats(); s.Deleted != 7 || s.Cars != 0 {
			t.Errorf("after the time: %+v", s)
		}
		c = newSteppedCore(t, store)
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))
		c.writeTo(car2, httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))
		apitest.WantEqual(t, "the car of that time, later", timestamps(c, apitest.Car1), []int64{wrong + 4})
		apitest.WantEqual(t, "another car, later", timestamps(c, car2), []int64{right + 3})
	})
}

// TestClockThatIsAheadForAWhile: the same without a restart in between.
func TestClockThatIsAheadForAWhile(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		store := openStore(t, name)
		defer func() { _ = store.Close() }()
		c := newSteppedCore(t, store)
		c.jump(time.Hour * 24)
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))
		c.jump(-time.Hour * 24)
		c.pass(0) // from now on it counts as stored at this time
		c.pass(59 * time.Minute)
		if _, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{}); err != nil {
			t.Errorf("before the time: %v", err)
		}
		c.pass(2 * time.Minute)
		if s := c.Stats(); s.Deleted != 1 || s.Cars != 0 {
			t.Errorf("after the time: %+v", s)
		}
	})
}

// TestRetentionIgnoresJumps: a wall clock that jumps makes nothing old.
func TestRetentionIgnoresJumps(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_000)
	minute := time.Minute
	for _, c := range []struct {
		name   string
		wall   time.Time
		passed time.Duration
		want   time.Time
	}{
		{"as it should be", start.Add(minute), minute, start.Add(minute)},
		{"forward by a day", start.Add(24 * time.Hour), minute, start.Add(66 * time.Second)},
		{"back by a day", start.Add(-24 * time.Hour), minute, start.Add(-24 * time.Hour)},
		{"slow", start.Add(59 * time.Second), minute, start.Add(59 * time.Second)},
	} {
		if got := moveClock(start, c.wall, c.passed); !got.Equal(c.want) {
			t.Errorf("%s: %s, expected %s", c.name, got.Sub(start), c.want.Sub(start))
		}
	}
}

// steppedCore is a core whose writer and clock are the test's.
type steppedCore struct {
	*Core
	t     *testing.T
	now   *atomic.Int64
	sweep *sweeper
}

func newSteppedCore(t *testing.T, opened store.Store) *steppedCore {
	t.Helper()
	now := &atomic.Int64{}
	now.Store(1_700_000_000_000)
	c := New(Options{
		Open:      func(context.Context) (store.Store, error) { return opened, nil },
		Retention: time.Hour, Now: func() time.Time { return time.UnixMilli(now.Load()) },
	})
	if err := c.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	loaded(t, c)
	c.Close()
	c.closed, c.ctx = false, context.Background()
	s := &steppedCore{Core: c, t: t, now: now, sweep: newSweeper(c)}
	t.Cleanup(s.sweep.close)
	return s
}

// write stores one post of car1 and returns the code of its answer, 0 for success.
func (s *steppedCore) write(k httpapi.Kind, m ...httpapi.Message) int {
	s.t.Helper()
	return s.writeTo(apitest.Car1, k, m...)
}

func (s *steppedCore) writeTo(car fleet.CarID, k httpapi.Kind, m ...httpapi.Message) int {
	s.t.Helper()
	p := &post{car: car, kind: k, messages: m, result: make(chan error, 1)}
	if s.writeBatch([]*post{p}) {
		s.t.Fatal("the store was lost")
	}
	return httpapi.StatusOf(<-p.result)
}

// jump moves the clock, and that of the ages with it.
func (s *steppedCore) jump(d time.Duration) {
	s.age.at = time.UnixMilli(s.now.Add(d.Milliseconds()))
}

// pass moves the clock and deletes what has become too old. It returns in how many
// parts.
func (s *steppedCore) pass(d time.Duration) (parts int) {
	s.t.Helper()
	s.jump(d)
	for more := true; more; more = s.sweep.deleting {
		if s.sweep.step() {
			s.t.Fatal("the store was lost")
		}
		parts++
	}
	return parts
}

// TestFirstStatusAfterSilence: a device whose last status is gone is unknown
// (HTTP-18); its next status is a first one and removes the commands that are
// still stored (HTTP-15).
func TestFirstStatusAfterSilence(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		store := openStore(t, name)
		defer func() { _ = store.Close() }()
		c := newSteppedCore(t, store)
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "silent", `{}`))
		c.pass(50 * time.Minute)
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "other", `{}`))
		for _, role := range []string{"silent", "other"} {
			if code := c.write(httpapi.KindCommand, apitest.Command(1, 1, role, `"`+role+`"`)); code != 0 {
				t.Errorf("command for %s: %d", role, code)
			}
		}
		c.pass(11 * time.Minute)
		if code := c.write(httpapi.KindCommand, apitest.Command(1, 1, "silent", `{}`)); code != 404 {
			t.Errorf("command for a device without status: %d", code)
		}
		commands := func() string {
			got, err := c.Commands(context.Background(), apitest.Car1, httpapi.Query{})
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			for _, m := range got {
				text += string(m.Payload.Data)
			}
			return text
		}
		apitest.WantEqual(t, "commands while it is silent", commands(), `"silent""other"`)
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "other", `{}`))
		apitest.WantEqual(t, "commands after another device's status", commands(), `"silent""other"`)
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "silent", `{}`))
		apitest.WantEqual(t, "commands after its first status", commands(), `"other"`)
		state, err := store.Load(context.Background())
		if err != nil || state.Cars[apitest.Car1] != 1_700_000_000_000 {
			t.Errorf("the car is known since %v, %v; expected since its very first status", state.Cars, err)
		}
	})
}

// TestKnownAcrossRestartWhenOldStatusesAreGone: the newest status decides, not
// the first one.
func TestKnownAcrossRestartWhenOldStatusesAreGone(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		store := openStore(t, name)
		c := newSteppedCore(t, store)
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))
		for range 90 { // the time is noted again only now and then
			c.pass(20 * time.Second)
			c.write(httpapi.KindStatus, apitest.Status(1, 1, "r", `{}`))
		}
		newest := c.now.Load()
		c.pass(59 * time.Minute)
		_ = store.Close()
		store = openStore(t, name)
		defer func() { _ = store.Close() }()
		state, err := store.Load(context.Background())
		if err != nil || len(state.Devices) != 1 || state.Devices[0].StatusAt != newest {
			t.Errorf("%+v, %v; the newest status is of %d", state, err, newest)
		}
	})
}

// TestOnlyStatusKeepsKnown: STATUS_ERROR makes a device known (HTTP-15) but does
// not count as the stored STATUS without which it becomes unknown (HTTP-18), also
// over a restart of the server.
func TestOnlyStatusKeepsKnown(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		store := openStore(t, name)
		defer func() { _ = store.Close() }()
		fault := func(role string) httpapi.Message {
			m := apitest.Status(1, 1, role, `{}`)
			m.Payload.MessageType = httpapi.TypeStatusError
			return m
		}
		c := newSteppedCore(t, store)
		known := func(when, role string, want int) {
			t.Helper()
			if code := c.write(httpapi.KindCommand, apitest.Command(1, 1, role, `{}`)); code != want {
				t.Errorf("%s: command for the device %s: %d, expected %d", when, role, code, want)
			}
		}
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "fine", `{}`))
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "broken", `{}`))
		c.write(httpapi.KindStatus, fault("only_errors"))
		known("at first", "only_errors", 0)
		c.pass(30 * time.Minute)
		c.write(httpapi.KindStatus, apitest.Status(1, 1, "fine", `{}`))
		c.write(httpapi.KindStatus, fault("broken"))
		c.write(httpapi.KindStatus, fault("only_errors"))
		restart := func() {
			t.Helper()
			state, err := store.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.restore(state, func(fleet.CarID) bool { return true })
		}
		restart()
		known("after half the time", "broken", 0)
		known("after half the time", "only_errors", 0)
		c.pass(31 * time.Minute)
		for _, when := range []string{"after the time", "after the time and a restart"} {
			known(when, "fine", 0)
			known(when, "broken", 404)
			known(when, "only_errors", 404)
			restart()
		}
	})
}

// TestFirstNameStays: a device keeps the first name it was known by (HTTP-19), also over
// a restart, until it is forgotten; messages keep theirs.
func TestFirstNameStays(t *testing.T) { // HTTP-17, HTTP-19
	forEachStore(t, func(t *testing.T, name string) {
		opened := openStore(t, name)
		defer func() { _ = opened.Close() }()
		c := newSteppedCore(t, opened)
		named := func(name string) httpapi.Message {
			m := apitest.Status(1, 1, "r", `{}`)
			m.DeviceID.Name = name
			return m
		}
		known := func(when, want string) {
			t.Helper()
			modules, err := c.AvailableDevices(t.Context(), apitest.Car1, nil)
			if err != nil || len(modules) != 1 || modules[0].DeviceList[0].Name != want {
				t.Errorf("%s: %v, %v; expected the name %s", when, modules, err, want)
			}
		}
		c.write(httpapi.KindStatus, named("first"), named("second"))
		c.pass(2 * store.TouchInterval * time.Millisecond)
		c.write(httpapi.KindStatus, named("third"))
		known("after another name", "first")
		c = newSteppedCore(t, opened)
		known("after a restart", "first")
		messages, err := c.Statuses(t.Context(), apitest.Car1, httpapi.Query{})
		if err != nil || len(messages) != 3 || messages[2].DeviceID.Name != "third" {
			t.Errorf("messages %v, %v", messages, err)
		}
		c.jump(10 * time.Minute)
		c.pass(time.Hour)
		c.write(httpapi.KindStatus, named("fourth"))
		known("after it was forgotten", "fourth")
		c = newSteppedCore(t, opened)
		known("after that and a restart", "fourth")
	})
}
