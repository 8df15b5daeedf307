package fleetapi

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/server"
	"external-server/internal/module"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// embed starts the HTTP API of the server; end stops it early.
func embed(t testing.TB, store, listen string, wait time.Duration) (s *server.Server, end func()) {
	t.Helper()
	s, err := server.New(t.Context(), server.Options{Config: config.HTTPAPI{
		Listen: listen, Store: config.NewSecret("sqlite:" + store), WaitTimeout: wait,
	}})
	if err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the store is loaded", func() bool { return s.Stats().StoreFault == "" })
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("API: %v", err)
		}
	})
	t.Cleanup(end)
	return s, end
}

// drive runs the instance with the worker that drives it in the server.
func drive(t testing.TB, i module.Instance, number int32) *module.Worker {
	t.Helper()
	w := module.NewWorker(i, number, module.WorkerOptions{})
	w.Start()
	t.Cleanup(func() {
		closing, done := context.WithTimeout(context.Background(), testwait.Patience)
		defer done()
		if err := w.Close(closing); err != nil {
			t.Error(err)
		}
	})
	return w
}

// queueStatus has the worker forward a status, as in the server.
func queueStatus(t testing.TB, w *module.Worker, d fleet.Device, data, message string) {
	t.Helper()
	ok, begin := w.QueueStatus(module.Status{Device: d, Data: []byte(data), Error: []byte(message)})
	if begin {
		w.Begin()
	}
	if !ok {
		t.Fatal("the worker took no status")
	}
}

// stored returns the data of the car's stored statuses in the API's order.
func stored(t testing.TB, a httpapi.API) []string {
	t.Helper()
	messages, err := a.Statuses(t.Context(), car, httpapi.Query{})
	if err != nil && httpapi.StatusOf(err) != 404 {
		t.Fatal(err)
	}
	out := []string{}
	for _, m := range messages {
		out = append(out, summary([]httpapi.Message{m}))
	}
	return out
}

// TestWithEmbeddedAPI: a status reaches the API, a command posted there comes
// out, one posted before the start does not; over HTTP and inside the process.
func TestWithEmbeddedAPI(t *testing.T) {
	for _, way := range []string{"in process", "over HTTP"} {
		t.Run(way, func(t *testing.T) {
			server, _ := embed(t, filepath.Join(t.TempDir(), "api.db"), "127.0.0.1:0", time.Second)
			a := server.API()
			opts := Options{Builtin: Mission, API: a}
			var pairs []string
			if way == "over HTTP" {
				opts.API, pairs = nil, []string{"api_url", "http://" + server.Addr().String() + "/v2/protocol"}
			}
			order := func(route string) httpapi.Message {
				m := command(1, 0, `{"route":"`+route+`","stops":[`+goodStation+`],"action":"START"}`)
				m.DeviceID.Role = "autonomy"
				return m
			}
			d := fleet.Device{Module: 1, Type: 1, Role: "autonomy", Name: "n"}
			first := open(t, opts, pairs...)
			if err := first.ForwardStatus(t.Context(), d, []byte(goodStatus)); err != nil {
				t.Fatal(err)
			}
			testwait.Until(t, "the first status", func() bool { return len(stored(t, a)) == 1 })
			if err := a.PostCommands(t.Context(), car, []httpapi.Message{order("stale")}); err != nil {
				t.Fatal(err)
			}
			if err := first.Close(t.Context()); err != nil {
				t.Fatal(err)
			}

			i := open(t, opts, pairs...)
			w := drive(t, i, 1)
			queueStatus(t, w, d, goodStatus, `{"finishedStops":[]}`)
			testwait.Until(t, "a status and its error", func() bool { return len(stored(t, a)) == 3 })
			if got := stored(t, a); got[2] != `autonomy{"finishedStops":[]}!` {
				t.Errorf("stored %q", got)
			}
			testwait.Until(t, "the flush", func() bool { return i.Stats().CommandsFlushed == 1 })
			if err := a.PostCommands(t.Context(), car, []httpapi.Message{order("a"), order("b")}); err != nil {
				t.Fatal(err)
			}
			if err := a.PostCommands(t.Context(), car, []httpapi.Message{order("c")}); err != nil {
				t.Fatal(err)
			}
			var got []fleet.Command
			testwait.Until(t, "three commands", func() bool {
				taken, _ := w.TakeCommands(1000, 1<<20)
				got = append(got, taken...)
				return len(got) >= 3
			})
			var want []string
			for _, route := range []string{"a", "b", "c"} {
				want = append(want, `{"action":"START","route":"`+route+`","stops":[{"name":"A","position":{"altitude":0,"latitude":49.1,"longitude":16.2}}]}`)
			}
			if datas(got) != strings.Join(want, " ") { // FIFO (DEF-36)
				t.Errorf("commands %s", datas(got))
			}
		})
	}
}

// TestAPIGoesAwayAndReturns: statuses and commands survive a restart of the API
// in order, and a reader sees each status once.
func TestAPIGoesAwayAndReturns(t *testing.T) {
	store := filepath.Join(t.TempDir(), "api.db")
	address := brokertest.FreeAddress(t) // that no outgoing connection gets while the API is away
	_, end := embed(t, store, address, time.Second)
	i := open(t, Options{Builtin: IO}, "api_url", "http://"+address+"/v2/protocol")
	w := drive(t, i, 2)
	d := device(2, "role")
	var want []string
	send := func(from, to int) {
		for n := from; n < to; n++ {
			data := fmt.Sprintf("[%d]", n)
			want = append(want, "role"+data)
			queueStatus(t, w, d, data, "")
		}
	}
	send(0, 50)
	testwait.Until(t, "statuses before", func() bool { return i.Stats().Posted == 50 })
	end()
	send(50, 150)
	testwait.Until(t, "the outage to be noticed and statuses to wait", func() bool { // a poll may notice it before any status
		s := i.Stats()
		return !s.APIUp && s.Queued > 0 && !s.OldestQueued.IsZero()
	})
	server, _ := embed(t, store, address, time.Second)
	send(150, 160)
	testwait.Until(t, "all statuses", func() bool { return i.Stats().Posted == 160 })
	if got := stored(t, server.API()); !slices.Equal(got, want) {
		t.Errorf("stored %q", got)
	}
	if err := server.API().PostCommands(t.Context(), car, []httpapi.Message{command(2, 0, `[{"outNum":1,"actType":1}]`)}); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "a command after the restart", func() bool {
		taken, _ := w.TakeCommands(1000, 1<<20)
		return len(taken) == 1
	})
	if s := i.Stats(); s.Refused+s.Lost != 0 || !s.APIUp {
		t.Errorf("at the end: %+v", s)
	}
}

// TestRefusedByTheAPI: MM-2, a bare number is JSON and yet refused; the statuses
// around it arrive.
func TestRefusedByTheAPI(t *testing.T) {
	server, _ := embed(t, filepath.Join(t.TempDir(), "api.db"), "127.0.0.1:0", time.Second)
	var log testlog.Buffer
	i := open(t, Options{Builtin: Transparent, API: server.API(), Logger: log.Logger()})
	for _, data := range []string{`[1]`, `7`, `null`, `"x"`} {
		if err := i.ForwardStatus(t.Context(), device(3, "r"), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, server.API()); !slices.Equal(got, []string{`r[1]`, `r"x"`}) {
		t.Errorf("stored %q", got)
	}
	if s := i.Stats(); s.Refused != 2 || s.Posted != 2 || !strings.Contains(log.String(), "400") {
		t.Errorf("%+v; %s", s, log.String())
	}
}

// TestNoRoomForOneCarLeavesTheOthersAlone: 507 is about the one car, whose statuses wait;
// the API counts as up and the statuses of others are posted at once.
func TestNoRoomForOneCarLeavesTheOthersAlone(t *testing.T) {
	server, _ := embed(t, filepath.Join(t.TempDir(), "api.db"), "127.0.0.1:0", time.Second)
	limit := func(cars int) {
		if err := server.Configure(config.HTTPAPI{WaitTimeout: time.Second, MaxCars: cars}); err != nil {
			t.Fatal(err)
		}
	}
	limit(1)
	pool := NewPool(nil)
	defer pool.Close()
	m, err := New(Options{Builtin: Transparent, API: server.API(), Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	openFor := func(name string) *Instance {
		s := spec("car_name", name)
		s.Config[1].Value, s.Car.Car = name, name
		made, err := m.Open(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = made.Close(context.Background()) })
		return made.(*Instance)
	}
	known, refused := openFor("known"), openFor("refused")
	forward(t, known, "r", 1, 1)
	testwait.Until(t, "the first car is known", func() bool { return known.Stats().Posted == 1 })
	forward(t, refused, "r", 1, 1)
	testwait.Until(t, "the second is refused several times", func() bool { return refused.Stats().Retries > 3 })
	if !refused.Stats().APIUp {
		t.Error("the API counts as down")
	}
	forward(t, known, "r", 2, 10)
	testwait.Until(t, "the known car's statuses are posted", func() bool { return known.Stats().Posted == 10 })
	limit(2)
	testwait.Until(t, "the other car's status is posted", func() bool { return refused.Stats().Posted == 1 })
	if s := refused.Stats(); s.Refused+s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}
