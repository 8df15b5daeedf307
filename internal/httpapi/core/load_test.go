package core

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testlog"
)

// slowStore opens after some failures and takes its time to load.
type slowStore struct {
	store.Store
	failures []error
	loading  time.Duration
}

func (s *slowStore) open(context.Context) (store.Store, error) {
	if len(s.failures) > 0 {
		err := s.failures[0]
		s.failures = s.failures[1:]
		return nil, err
	}
	return s, nil
}

func (s *slowStore) Load(ctx context.Context) (*store.State, error) {
	select {
	case <-time.After(s.loading):
		return &store.State{}, nil
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
		return &store.Error{Fault: store.FaultUnavailable, Reload: true, Err: errors.New("connection refused")}
	}
	for name, c := range map[string]struct {
		store  slowStore
		reason string
		fault  store.Fault
		within time.Duration
		lines  int
	}{
		"slow":        {slowStore{loading: 10 * time.Minute}, "is being opened and loaded", store.FaultLoading, 10 * time.Minute, 0},
		"not there":   {slowStore{failures: []error{down(), down(), down(), down(), down(), down(), down(), down()}}, "is not reachable", store.FaultUnavailable, 8 * longestPause, 1},
		"full at the": {slowStore{failures: []error{&store.Error{Fault: store.FaultFull, Err: errors.New("disk full")}}}, "no space left", store.FaultFull, reloadPause, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &testlog.Buffer{}
				core := New(Options{Open: c.store.open, Logger: log.Logger()})
				begin := time.Now()
				if err := core.Begin(t.Context()); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(begin); d > startPatience {
					t.Errorf("the start took %v", d)
				}
				synctest.Wait()
				asked := time.Now()
				answers := func() map[string]error {
					_, statuses := core.Statuses(t.Context(), apitest.Car1, httpapi.Query{Wait: true})
					_, commands := core.Commands(t.Context(), apitest.Car1, httpapi.Query{Wait: true})
					_, cars := core.Cars(t.Context(), httpapi.Query{Wait: true})
					_, devices := core.AvailableDevices(t.Context(), apitest.Car1, nil)
					polled := make(chan error, 1)
					core.PollCommands(apitest.Car1, 1, func(_ []httpapi.Message, err error) { polled <- err })
					return map[string]error{
						"statuses": statuses, "commands": commands, "cars": cars, "devices": devices, "poll": <-polled,
						"post": core.PostStatuses(t.Context(), apitest.Car1, []httpapi.Message{apitest.Status(1, 1, "r", `{}`)}), "command": core.PostCommands(t.Context(), apitest.Car1, nil),
					}
				}
				for what, err := range answers() {
					if httpapi.StatusOf(err) != 503 || !strings.Contains(err.Error(), c.reason) {
						t.Errorf("%s: %v; expected 503 because it %s", what, err, c.reason)
					}
				}
				if time.Since(asked) != 0 {
					t.Errorf("the answers took %v", time.Since(asked))
				}
				apitest.WantEqual(t, "fault", core.Stats().StoreFault, c.fault)
				time.Sleep(c.within)
				synctest.Wait()
				if _, err := core.Cars(t.Context(), httpapi.Query{}); err != nil {
					t.Errorf("after %v: %v", c.within, err)
				}
				apitest.WantEqual(t, "fault afterwards", core.Stats().StoreFault, store.Fault(""))
				apitest.WantEqual(t, "log lines about the fault", log.Count("the message store of the HTTP API failed"), c.lines)
				core.Close()
			})
		})
	}
}

// slowly is a log that takes a second of virtual time for each line.
type slowly struct{ io.Writer }

func (s slowly) Write(p []byte) (int, error) {
	time.Sleep(time.Second)
	return s.Writer.Write(p)
}

// TestStartKnowsWhyTheStoreIsMissing: once the start goes on, requests are answered with the
// fault that it has met, and so is who asks for the state.
func TestStartKnowsWhyTheStoreIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := slowStore{failures: []error{&store.Error{Fault: store.FaultUnavailable, Err: errors.New("connection refused")}}}
		core := New(Options{Open: gone.open, Logger: slog.New(slog.NewTextHandler(slowly{io.Discard}, nil))})
		if err := core.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer core.Close()
		if err := core.NotReady(); err == nil || !strings.Contains(err.Error(), "is not reachable") {
			t.Fatalf("requests are answered with %v", err)
		}
		apitest.WantEqual(t, "fault", core.Stats().StoreFault, store.FaultUnavailable)
	})
}

// TestStopWhileTheStoreIsLoaded takes no time.
func TestStopWhileTheStoreIsLoaded(t *testing.T) {
	for name, store := range map[string]slowStore{
		"slow":      {loading: 24 * time.Hour},
		"not there": {failures: []error{&store.Error{Fault: store.FaultUnavailable, Err: errors.New("x")}, &store.Error{Fault: store.FaultUnavailable, Err: errors.New("x")}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core := New(Options{Open: store.open})
				if err := core.Begin(t.Context()); err != nil {
					t.Fatal(err)
				}
				stopping := time.Now()
				core.Close()
				if d := time.Since(stopping); d != 0 {
					t.Errorf("the stop took %v", d)
				}
			})
		})
	}
}
