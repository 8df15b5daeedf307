package httpapi

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/support/testwait"
)

func newTestServer(t testing.TB, o Options) *Server {
	t.Helper()
	return startServer(t, o)
}

func postStatus(t testing.TB, api API, car fleet.CarID, messages ...Message) {
	t.Helper()
	if err := api.PostStatuses(context.Background(), car, messages); err != nil {
		t.Fatal(err)
	}
}

func postCommand(t testing.TB, api API, car fleet.CarID, messages ...Message) {
	t.Helper()
	if err := api.PostCommands(context.Background(), car, messages); err != nil {
		t.Fatal(err)
	}
}

// TestCursorNeverMisses posts from many goroutines with a clock that jumps, while
// readers follow with since = newest + 1 (HTTP-10, HTTP-16).
func TestCursorNeverMisses(t *testing.T) {
	forEachStore(t, func(t *testing.T, store string) {
		start := time.Now()
		var offset atomic.Int64
		s := newTestServer(t, Options{Config: config.HTTPAPI{Store: config.NewSecret(store), WaitTimeout: 50 * time.Millisecond}, Now: func() time.Time {
			if n := rand.IntN(20); n == 0 {
				offset.Store(rand.Int64N(20_000) - 10_000)
			}
			return start.Add(time.Duration(offset.Load()) * time.Millisecond) // stands still but for steps
		}})
		api := s.API()
		const writers, posts = 8, 40
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for n := range posts {
					data := fmt.Sprintf(`"%d/%d"`, w, n)
					if err := api.PostStatuses(context.Background(), car1, []Message{status(1, int64(w), "r", data), status(2, int64(w), "r", data)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		written := make(chan struct{})
		go func() { wg.Wait(); close(written) }()
		var readers sync.WaitGroup
		for _, wait := range []bool{true, false} {
			readers.Go(func() {
				seen := map[string]int{}
				last := int64(0)
				for final := false; ; {
					messages, err := api.Statuses(context.Background(), car1, Query{Since: last + 1, Wait: wait})
					if err != nil && StatusOf(err) != 404 {
						t.Error(err)
						return
					}
					newest := last
					for i, m := range messages {
						if m.Timestamp <= last || m.Timestamp < newest {
							t.Errorf("timestamp %d after %d", m.Timestamp, newest)
						}
						if i%2 == 1 && m.Timestamp != messages[i-1].Timestamp {
							t.Errorf("messages of one POST at %d and %d", messages[i-1].Timestamp, m.Timestamp)
						}
						newest = m.Timestamp
						seen[string(m.Payload.Data)]++
					}
					last = newest
					if final && len(messages) == 0 {
						break
					}
					select {
					case <-written:
						final = true
					default:
						runtime.Gosched()
					}
				}
				if len(seen) != writers*posts {
					t.Errorf("wait=%v: read %d of %d posts", wait, len(seen), writers*posts)
				}
				for data, n := range seen {
					if n != 2 {
						t.Errorf("%s was read %d times, expected 2", data, n)
					}
				}
			})
		}
		readers.Wait()
	})
}

// TestTimestampsGrowAcrossRestarts moves the clock back by a day between two
// runs.
func TestTimestampsGrowAcrossRestarts(t *testing.T) {
	store := tempStore(t)
	var last int64
	for run, now := range []time.Time{time.Now(), time.Now().Add(-24 * time.Hour)} {
		s, err := New(context.Background(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: store, Retention: 1000 * time.Hour}, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		postStatus(t, s.API(), car1, status(1, 1, "r", `{}`))
		messages, err := s.API().Statuses(context.Background(), car1, Query{Since: last + 1})
		if err != nil || len(messages) != 1 || messages[0].Timestamp <= last {
			t.Fatalf("run %d: %v, %v; last was %d", run, messages, err, last)
		}
		last = messages[0].Timestamp
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWaitIsReleasedByTheNextPost(t *testing.T) { // HTTP-11
	s := newTestServer(t, Options{Config: config.HTTPAPI{WaitTimeout: testwait.Patience}})
	api := s.API()
	postStatus(t, api, car1, status(1, 1, "r", `{}`), status(2, 1, "r", `{}`))
	type result struct {
		messages []Message
		err      error
	}
	results := make(chan result, 3)
	for range 2 {
		go func() {
			m, err := api.Commands(context.Background(), car1, Query{Wait: true})
			results <- result{m, err}
		}()
	}
	api.PollCommands(car1, 1, func(m []Message, err error) { results <- result{m, err} })
	testwait.Until(t, "three requests wait", func() bool { return s.Stats().Waiting == 3 })
	postStatus(t, api, car1, status(1, 1, "r", `{}`)) // does not release them
	if n := s.Stats().Waiting; n != 3 {
		t.Errorf("%d wait after a status", n)
	}
	postCommand(t, api, car1, command(2, 1, "r", `"two"`), command(1, 1, "r", `"one"`))
	for range 3 {
		r := <-results
		if r.err != nil || len(r.messages) != 2 || string(r.messages[0].Payload.Data) != `"two"` || string(r.messages[1].Payload.Data) != `"one"` {
			t.Errorf("released with %v, %v", r.messages, r.err)
		}
	}
	if n := s.Stats().Waiting; n != 0 {
		t.Errorf("%d still wait", n)
	}
}

func TestWaitForCars(t *testing.T) { // HTTP-8
	s := newTestServer(t, Options{Config: config.HTTPAPI{WaitTimeout: testwait.Patience}})
	got := make(chan []Car, 1)
	go func() {
		cars, err := s.API().Cars(context.Background(), Query{Wait: true})
		if err != nil {
			t.Error(err)
		}
		got <- cars
	}()
	testwait.Until(t, "a request waits", func() bool { return s.Stats().Waiting == 1 })
	postStatus(t, s.API(), car1, status(1, 1, "r", `{}`))
	wantEqual(t, "cars", <-got, []Car{{CompanyName: car1.Company, CarName: car1.Car}})
	known, err := s.API().Cars(context.Background(), Query{})
	wantEqual(t, "cars", []any{known, err}, []any{[]Car{{CompanyName: car1.Company, CarName: car1.Car}}, nil})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	s := newTestServer(t, Options{Config: config.HTTPAPI{WaitTimeout: testwait.Patience}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() {
		_, err := s.API().Commands(ctx, car1, Query{Wait: true})
		ended <- err
	}()
	go func() {
		_, err := s.API().Cars(ctx, Query{Wait: true})
		ended <- err
	}()
	testwait.Until(t, "both wait", func() bool { return s.Stats().Waiting == 2 })
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	}
	c := s.core
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.cars) != 0 || c.waits != 0 {
		t.Errorf("%d cars and %d waits are left of an invented name", len(c.cars), c.waits)
	}
}

func TestPollCommands(t *testing.T) {
	s := newTestServer(t, Options{Config: config.HTTPAPI{WaitTimeout: 20 * time.Millisecond}, MaxWaits: 2})
	api := s.API()
	errs := make(chan error, 1)
	done := func(_ []Message, err error) { errs <- err }
	api.PollCommands(car1, 1, done)
	if err := <-errs; StatusOf(err) != 404 {
		t.Errorf("unknown car: %v", err)
	}
	api.PollCommands(fleet.CarID{Company: "A", Car: "b"}, 1, done)
	if err := <-errs; StatusOf(err) != 400 {
		t.Errorf("bad name: %v", err)
	}
	postStatus(t, api, car1, status(1, 1, "r", `{}`))
	api.PollCommands(car1, 1, done)
	if err := <-errs; err != nil {
		t.Errorf("known car, nothing came: %v", err)
	}
	postCommand(t, api, car1, command(1, 1, "r", `"stored"`))
	got := make(chan []Message, 1)
	api.PollCommands(car1, 1, func(m []Message, err error) { got <- m })
	if m := <-got; len(m) != 1 || string(m[0].Payload.Data) != `"stored"` {
		t.Errorf("stored command: %v", m)
	}
	never := func([]Message, error) { t.Error("called after a successful stop") }
	stop1 := api.PollCommands(car1, 1<<60, never)
	if !stop1() {
		t.Error("stop was too late for a poll that waits")
	}
	if stop1() {
		t.Error("stopped twice")
	}
	// One that finds a command does so in another goroutine: either it is stopped
	// or it is called.
	for range 200 {
		called := make(chan struct{}, 1)
		stop := api.PollCommands(car1, 1, func([]Message, error) { called <- struct{}{} })
		if stop() {
			select {
			case <-called:
				t.Error("called after a successful stop")
			default:
			}
		} else {
			<-called
		}
	}
}

func TestWaitsAreLimited(t *testing.T) {
	s := newTestServer(t, Options{Config: config.HTTPAPI{WaitTimeout: testwait.Patience}, MaxWaits: 1})
	stop := s.API().PollCommands(car1, 1, func([]Message, error) {})
	defer stop()
	errs := make(chan error, 1)
	s.API().PollCommands(car1, 1, func(_ []Message, err error) { errs <- err })
	if err := <-errs; StatusOf(err) != 503 {
		t.Errorf("poll: %v", err)
	}
	if _, err := s.API().Statuses(context.Background(), car1, Query{Wait: true}); StatusOf(err) != 503 {
		t.Errorf("statuses: %v", err)
	}
	if _, err := s.API().Cars(context.Background(), Query{Wait: true}); StatusOf(err) != 503 {
		t.Errorf("cars: %v", err)
	}
}

// TestRestartKeepsWhatIsKnown also checks that a device stays known for its
// commands.
func TestRestartKeepsWhatIsKnown(t *testing.T) {
	forEachStore(t, func(t *testing.T, store string) {
		o := Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: config.NewSecret(store)}}
		s, err := New(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		postStatus(t, s.API(), car1, status(1, 1, "r", `"first"`))
		postCommand(t, s.API(), car1, command(1, 1, "r", `"kept"`))
		before, _ := s.API().Cars(context.Background(), Query{})
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		s = newTestServer(t, o)
		after, _ := s.API().Cars(context.Background(), Query{})
		wantEqual(t, "cars", after, before)
		postStatus(t, s.API(), car1, status(1, 1, "r", `"second"`)) // is not the first one
		got, err := s.API().Commands(context.Background(), car1, Query{})
		if err != nil || len(got) != 1 || string(got[0].Payload.Data) != `"kept"` {
			t.Errorf("commands %v, %v", got, err)
		}
	})
}

// TestShutdownAnswersEverybody: what waits gets 503, what was accepted is stored.
func TestShutdownAnswersEverybody(t *testing.T) {
	dir := t.TempDir()
	o := Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: config.NewSecret("sqlite:" + filepath.Join(dir, "f.db")), WaitTimeout: testwait.Patience}}
	s, err := New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	s.API().PollCommands(car1, 1, func(_ []Message, err error) { errs <- err })
	go func() {
		_, err := s.API().Statuses(context.Background(), car1, Query{Wait: true})
		errs <- err
	}()
	testwait.Until(t, "both wait", func() bool { return s.Stats().Waiting == 2 })
	var stored atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for {
				err := s.API().PostStatuses(context.Background(), car1, []Message{status(9, int64(w), "r", `{}`)})
				if err != nil {
					if StatusOf(err) != 503 {
						t.Error(err)
					}
					return
				}
				stored.Add(1)
			}
		})
	}
	// The status releases one of them; the other is released by the stop.
	testwait.Until(t, "something is stored", func() bool { return stored.Load() > 20 })
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	<-errs
	<-errs
	if err := s.API().PostStatuses(context.Background(), car1, []Message{status(1, 1, "r", `{}`)}); StatusOf(err) != 503 {
		t.Errorf("post after the end: %v", err)
	}
	s = newTestServer(t, o)
	got, err := s.API().Statuses(context.Background(), car1, Query{})
	if err != nil || int64(len(got)) != stored.Load() {
		t.Errorf("%d statuses stored, %d acknowledged, %v", len(got), stored.Load(), err)
	}
}

// TestShutdownIsBounded: a store that does not return holds up neither the stop
// nor, once it has returned, what it was given.
func TestShutdownIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	s, err := New(context.Background(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: config.NewSecret("sqlite:" + path)}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite", sqliteDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	other.SetMaxOpenConns(1)
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	p := &post{car: car1, messages: []Message{status(1, 1, "r", `{}`)}, result: make(chan error, 1)}
	s.core.queue <- p
	testwait.Until(t, "the writer has taken the post", func() bool { return s.Stats().Queue == 0 })
	bound, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(bound); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stop that is not over: %v", err)
	}
	if _, err := other.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Errorf("the rest of the stop: %v", err)
	}
	if err := <-p.result; err != nil && StatusOf(err) != 503 {
		t.Errorf("the post: %v", err)
	}
}
