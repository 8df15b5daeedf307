package httpapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/config"
	"external-server/internal/support/testwait"
)

// slowStore opens after some failures and takes its time to load.
type slowStore struct {
	Store
	failures []error
	loading  time.Duration
}

func (s *slowStore) open(context.Context) (Store, error) {
	if len(s.failures) > 0 {
		err := s.failures[0]
		s.failures = s.failures[1:]
		return nil, err
	}
	return s, nil
}

func (s *slowStore) Load(ctx context.Context) (*StoredState, error) {
	select {
	case <-time.After(s.loading):
		return &StoredState{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *slowStore) Close() error { return nil }

// TestStartDoesNotWaitForTheStore: one that takes minutes to load, or is not there yet,
// leaves the start alone. Until then every request is answered at once with 503 and
// the reason; afterwards the API works.
func TestStartDoesNotWaitForTheStore(t *testing.T) {
	down := func() error {
		return &StoreError{Fault: FaultUnavailable, Reload: true, Err: errors.New("connection refused")}
	}
	for name, c := range map[string]struct {
		store  slowStore
		reason string
		fault  StoreFault
		within time.Duration
		lines  int
	}{
		"slow":        {slowStore{loading: 10 * time.Minute}, "is being opened and loaded", FaultLoading, 10 * time.Minute, 0},
		"not there":   {slowStore{failures: []error{down(), down(), down(), down(), down(), down(), down(), down()}}, "is not reachable", FaultUnavailable, 8 * longestPause, 1},
		"full at the": {slowStore{failures: []error{&StoreError{Fault: FaultFull, Err: errors.New("disk full")}}}, "no space left", FaultFull, reloadPause, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &logLines{}
				core := newCore(coreOptions{Open: c.store.open, Logger: log.logger()})
				begin := time.Now()
				if err := core.begin(t.Context()); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(begin); d > startPatience {
					t.Errorf("the start took %v", d)
				}
				synctest.Wait()
				asked := time.Now()
				answers := func() map[string]error {
					_, statuses := core.Statuses(t.Context(), car1, Query{Wait: true})
					_, commands := core.Commands(t.Context(), car1, Query{Wait: true})
					_, cars := core.Cars(t.Context(), Query{Wait: true})
					_, devices := core.AvailableDevices(t.Context(), car1, nil)
					polled := make(chan error, 1)
					core.PollCommands(car1, 1, func(_ []Message, err error) { polled <- err })
					return map[string]error{
						"statuses": statuses, "commands": commands, "cars": cars, "devices": devices, "poll": <-polled,
						"post": core.PostStatuses(t.Context(), car1, []Message{status(1, 1, "r", `{}`)}), "command": core.PostCommands(t.Context(), car1, nil),
					}
				}
				for what, err := range answers() {
					if StatusOf(err) != 503 || !strings.Contains(err.Error(), c.reason) {
						t.Errorf("%s: %v; expected 503 because it %s", what, err, c.reason)
					}
				}
				if time.Since(asked) != 0 {
					t.Errorf("the answers took %v", time.Since(asked))
				}
				wantEqual(t, "fault", core.snapshot().StoreFault, c.fault)
				time.Sleep(c.within)
				synctest.Wait()
				if _, err := core.Cars(t.Context(), Query{}); err != nil {
					t.Errorf("after %v: %v", c.within, err)
				}
				wantEqual(t, "fault afterwards", core.snapshot().StoreFault, StoreFault(""))
				wantEqual(t, "log lines about the fault", log.count("the message store of the HTTP API failed"), c.lines)
				core.close()
			})
		})
	}
}

// TestStopWhileTheStoreIsLoaded takes no time.
func TestStopWhileTheStoreIsLoaded(t *testing.T) {
	for name, store := range map[string]slowStore{
		"slow":      {loading: 24 * time.Hour},
		"not there": {failures: []error{&StoreError{Fault: FaultUnavailable, Err: errors.New("x")}, &StoreError{Fault: FaultUnavailable, Err: errors.New("x")}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core := newCore(coreOptions{Open: store.open})
				if err := core.begin(t.Context()); err != nil {
					t.Fatal(err)
				}
				stopping := time.Now()
				core.close()
				if d := time.Since(stopping); d != 0 {
					t.Errorf("the stop took %v", d)
				}
			})
		})
	}
}

// TestStartTellsWhatNoWaitingMends: a damaged database or one of a newer program ends
// the start.
func TestStartTellsWhatNoWaitingMends(t *testing.T) {
	store := tempStore(t)
	s := openStore(t, store.Reveal())
	if _, err := s.(*sqlStore).writer.ExecContext(t.Context(), `UPDATE fleet_meta SET value = 99 WHERE name = 'schema'`); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	for _, store := range []config.Secret{store, config.NewSecret("sqlite:/proc/none/f.db"), config.NewSecret("mysql:x")} {
		s, err := New(t.Context(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: store}})
		if err == nil {
			_ = s.Shutdown(t.Context())
			t.Errorf("%s: started", store.Reveal())
		} else if !strings.HasPrefix(err.Error(), "http_api.store: ") {
			t.Error(err)
		}
	}
}

// TestPostgresComesUpLater: the server starts before the database, as at a boot, and is
// served as soon as that runs. Nothing it is given meanwhile is acknowledged.
func TestPostgresComesUpLater(t *testing.T) {
	url := sharedPostgres.Database(t)
	sharedPostgres.Halt()
	log := &logLines{}
	s := startServer(t, Options{Config: config.HTTPAPI{Store: config.NewSecret(url)}, Logger: log.logger()})
	testwait.Until(t, "the server knows that the database is not there", func() bool { // it has begun to look for it
		err := tryPost(s)
		return err != nil && strings.Contains(err.Error(), "not reachable")
	})
	for range 3 {
		if err := tryPost(s); StatusOf(err) != 503 || !strings.Contains(err.Error(), "not reachable") {
			t.Errorf("post: %v", err)
		}
		code, body, header := request(t, s, "GET", "/v2/protocol/cars", "")
		if code != 503 || !strings.Contains(body, "not reachable") || header.Get("Retry-After") == "" {
			t.Errorf("GET: %d %s", code, body)
		}
	}
	if err := sharedPostgres.Restart(); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "posts are stored", func() bool { return tryPost(s) == nil })
	got, err := s.API().Statuses(t.Context(), car1, Query{})
	if err != nil || len(got) != 1 {
		t.Errorf("%d statuses, %v", len(got), err)
	}
	wantEqual(t, "log lines", []int{log.count("the message store of the HTTP API failed"), log.count("works again")}, []int{1, 1})
}

// TestOneCarWithManyDevicesLoads: the time to load is that of looking at each message of
// the last minute once, not once for each device.
func TestOneCarWithManyDevicesLoads(t *testing.T) {
	forEachStore(t, func(t *testing.T, name string) {
		s := openStore(t, name)
		defer func() { _ = s.Close() }()
		const devices, rounds = 950, 50
		var first []Message
		for n := range devices {
			first = append(first, status(3, int64(n), "r", "{}"))
		}
		apply(t, s, 1001, statusPost(car1, 1000, first...))
		// As many statuses as come within a minute.
		if _, err := s.(*sqlStore).writer.ExecContext(t.Context(), fmt.Sprintf(`WITH RECURSIVE rounds (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM rounds WHERE n < %d)
			INSERT INTO fleet_messages (car_id, kind, at, stored_at, position, message_type, module, type, role, name, encoding, data)
			SELECT car_id, 0, 1000 * n, 1000 * n + 1, type, 'STATUS', module, type, role, name, 'JSON', '{}' FROM rounds CROSS JOIN fleet_devices`, rounds)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), testwait.Patience)
		defer cancel()
		state, err := s.Load(ctx)
		if err != nil || len(state.Devices) != devices || len(state.Stale) != 0 {
			t.Fatalf("%d devices, %d stale, %v", len(state.Devices), len(state.Stale), err)
		}
		for _, d := range state.Devices {
			if d.StatusAt != rounds*1000 || d.StoredAt != rounds*1000+1 {
				t.Fatalf("%+v, expected the newest status at %d", d, rounds*1000)
			}
		}
	})
}
