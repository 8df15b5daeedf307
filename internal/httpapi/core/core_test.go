package core

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testwait"
)

// TestCursorNeverMisses posts from many goroutines with a clock that jumps, while
// readers follow with since = newest + 1 (HTTP-10, HTTP-16).
func TestCursorNeverMisses(t *testing.T) {
	forEachStore(t, func(t *testing.T, store string) {
		start := time.Now()
		var offset atomic.Int64
		c := startCore(t, store, Options{WaitTimeout: 50 * time.Millisecond, Now: func() time.Time {
			if n := rand.IntN(20); n == 0 {
				offset.Store(rand.Int64N(20_000) - 10_000)
			}
			return start.Add(time.Duration(offset.Load()) * time.Millisecond) // stands still but for steps
		}})
		const writers, posts = 8, 40
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for n := range posts {
					data := fmt.Sprintf(`"%d/%d"`, w, n)
					if err := c.PostStatuses(context.Background(), apitest.Car1, []httpapi.Message{apitest.Status(1, int64(w), "r", data), apitest.Status(2, int64(w), "r", data)}); err != nil {
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
					messages, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{Since: last + 1, Wait: wait})
					if err != nil && httpapi.StatusOf(err) != 404 {
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
	store := apitest.TempStore(t).Reveal()
	var last int64
	for run, now := range []time.Time{time.Now(), time.Now().Add(-24 * time.Hour)} {
		c := beginCore(t, store, Options{Retention: 1000 * time.Hour, Now: func() time.Time { return now }})
		postStatus(t, c, apitest.Car1, apitest.Status(1, 1, "r", `{}`))
		messages, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{Since: last + 1})
		if err != nil || len(messages) != 1 || messages[0].Timestamp <= last {
			t.Fatalf("run %d: %v, %v; last was %d", run, messages, err, last)
		}
		last = messages[0].Timestamp
		endCore(t, c)
	}
}

func TestWaitIsReleasedByTheNextPost(t *testing.T) { // HTTP-11
	c := startCore(t, apitest.TempStore(t).Reveal(), Options{WaitTimeout: testwait.Patience})
	postStatus(t, c, apitest.Car1, apitest.Status(1, 1, "r", `{}`), apitest.Status(2, 1, "r", `{}`))
	type result struct {
		messages []httpapi.Message
		err      error
	}
	results := make(chan result, 3)
	for range 2 {
		go func() {
			m, err := c.Commands(context.Background(), apitest.Car1, httpapi.Query{Wait: true})
			results <- result{m, err}
		}()
	}
	c.PollCommands(apitest.Car1, 1, func(m []httpapi.Message, err error) { results <- result{m, err} })
	testwait.Until(t, "three requests wait", func() bool { return c.Stats().Waiting == 3 })
	postStatus(t, c, apitest.Car1, apitest.Status(1, 1, "r", `{}`)) // does not release them
	if n := c.Stats().Waiting; n != 3 {
		t.Errorf("%d wait after a status", n)
	}
	postCommand(t, c, apitest.Car1, apitest.Command(2, 1, "r", `"two"`), apitest.Command(1, 1, "r", `"one"`))
	for range 3 {
		r := <-results
		if r.err != nil || len(r.messages) != 2 || string(r.messages[0].Payload.Data) != `"two"` || string(r.messages[1].Payload.Data) != `"one"` {
			t.Errorf("released with %v, %v", r.messages, r.err)
		}
	}
	if n := c.Stats().Waiting; n != 0 {
		t.Errorf("%d still wait", n)
	}
}

func TestWaitForCars(t *testing.T) { // HTTP-8
	c := startCore(t, apitest.TempStore(t).Reveal(), Options{WaitTimeout: testwait.Patience})
	got := make(chan []httpapi.Car, 1)
	go func() {
		cars, err := c.Cars(context.Background(), httpapi.Query{Wait: true})
		if err != nil {
			t.Error(err)
		}
		got <- cars
	}()
	testwait.Until(t, "a request waits", func() bool { return c.Stats().Waiting == 1 })
	postStatus(t, c, apitest.Car1, apitest.Status(1, 1, "r", `{}`))
	apitest.WantEqual(t, "cars", <-got, []httpapi.Car{{CompanyName: apitest.Car1.Company, CarName: apitest.Car1.Car}})
	known, err := c.Cars(context.Background(), httpapi.Query{})
	apitest.WantEqual(t, "cars", []any{known, err}, []any{[]httpapi.Car{{CompanyName: apitest.Car1.Company, CarName: apitest.Car1.Car}}, nil})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	c := startCore(t, apitest.TempStore(t).Reveal(), Options{WaitTimeout: testwait.Patience})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() {
		_, err := c.Commands(ctx, apitest.Car1, httpapi.Query{Wait: true})
		ended <- err
	}()
	go func() {
		_, err := c.Cars(ctx, httpapi.Query{Wait: true})
		ended <- err
	}()
	testwait.Until(t, "both wait", func() bool { return c.Stats().Waiting == 2 })
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.cars) != 0 || c.waits != 0 {
		t.Errorf("%d cars and %d waits are left of an invented name", len(c.cars), c.waits)
	}
}

func TestPollCommands(t *testing.T) {
	c := startCore(t, apitest.TempStore(t).Reveal(), Options{WaitTimeout: 20 * time.Millisecond, MaxWaits: 2})
	errs := make(chan error, 1)
	done := func(_ []httpapi.Message, err error) { errs <- err }
	c.PollCommands(apitest.Car1, 1, done)
	if err := <-errs; httpapi.StatusOf(err) != 404 {
		t.Errorf("unknown car: %v", err)
	}
	c.PollCommands(fleet.CarID{Company: "A", Car: "b"}, 1, done)
	if err := <-errs; httpapi.StatusOf(err) != 400 {
		t.Errorf("bad name: %v", err)
	}
	postStatus(t, c, apitest.Car1, apitest.Status(1, 1, "r", `{}`))
	c.PollCommands(apitest.Car1, 1, done)
	if err := <-errs; err != nil {
		t.Errorf("known car, nothing came: %v", err)
	}
	c.SetWaitTimeout(testwait.Patience) // those below end by what the test does
	postCommand(t, c, apitest.Car1, apitest.Command(1, 1, "r", `"stored"`))
	got := make(chan []httpapi.Message, 1)
	c.PollCommands(apitest.Car1, 1, func(m []httpapi.Message, err error) { got <- m })
	if m := <-got; len(m) != 1 || string(m[0].Payload.Data) != `"stored"` {
		t.Errorf("stored command: %v", m)
	}
	never := func([]httpapi.Message, error) { t.Error("called after a successful stop") }
	stop1 := c.PollCommands(apitest.Car1, 1<<60, never)
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
		stop := c.PollCommands(apitest.Car1, 1, func([]httpapi.Message, error) { called <- struct{}{} })
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
	c := startCore(t, apitest.TempStore(t).Reveal(), Options{WaitTimeout: testwait.Patience, MaxWaits: 1})
	stop := c.PollCommands(apitest.Car1, 1, func([]httpapi.Message, error) {})
	defer stop()
	errs := make(chan error, 1)
	c.PollCommands(apitest.Car1, 1, func(_ []httpapi.Message, err error) { errs <- err })
	if err := <-errs; httpapi.StatusOf(err) != 503 {
		t.Errorf("poll: %v", err)
	}
	if _, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{Wait: true}); httpapi.StatusOf(err) != 503 {
		t.Errorf("statuses: %v", err)
	}
	if _, err := c.Cars(context.Background(), httpapi.Query{Wait: true}); httpapi.StatusOf(err) != 503 {
		t.Errorf("cars: %v", err)
	}
}

// TestRestartKeepsWhatIsKnown also checks that a device stays known for its
// commands.
func TestRestartKeepsWhatIsKnown(t *testing.T) {
	forEachStore(t, func(t *testing.T, store string) {
		c := beginCore(t, store, Options{})
		postStatus(t, c, apitest.Car1, apitest.Status(1, 1, "r", `"first"`))
		postCommand(t, c, apitest.Car1, apitest.Command(1, 1, "r", `"kept"`))
		before, _ := c.Cars(context.Background(), httpapi.Query{})
		endCore(t, c)
		c = startCore(t, store, Options{})
		after, _ := c.Cars(context.Background(), httpapi.Query{})
		apitest.WantEqual(t, "cars", after, before)
		postStatus(t, c, apitest.Car1, apitest.Status(1, 1, "r", `"second"`)) // is not the first one
		got, err := c.Commands(context.Background(), apitest.Car1, httpapi.Query{})
		if err != nil || len(got) != 1 || string(got[0].Payload.Data) != `"kept"` {
			t.Errorf("commands %v, %v", got, err)
		}
	})
}
