package server

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testwait"
)

// TestShutdownAnswersEverybody: what waits gets 503, what was accepted is stored.
func TestShutdownAnswersEverybody(t *testing.T) {
	dir := t.TempDir()
	o := Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: config.NewSecret("sqlite:" + filepath.Join(dir, "f.db")), WaitTimeout: testwait.Patience}, store: testwait.Patience}
	s, err := New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	s.API().PollCommands(apitest.Car1, 1, func(_ []httpapi.Message, err error) { errs <- err })
	go func() {
		_, err := s.API().Statuses(context.Background(), apitest.Car1, httpapi.Query{Wait: true})
		errs <- err
	}()
	testwait.Until(t, "both wait", func() bool { return s.Stats().Waiting == 2 })
	var stored atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for {
				err := s.API().PostStatuses(context.Background(), apitest.Car1, []httpapi.Message{apitest.Status(9, int64(w), "r", `{}`)})
				if err != nil {
					if httpapi.StatusOf(err) != 503 {
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
	if err := s.API().PostStatuses(context.Background(), apitest.Car1, []httpapi.Message{apitest.Status(1, 1, "r", `{}`)}); httpapi.StatusOf(err) != 503 {
		t.Errorf("post after the end: %v", err)
	}
	s = startServer(t, o)
	got, err := s.API().Statuses(context.Background(), apitest.Car1, httpapi.Query{})
	if err != nil || int64(len(got)) != stored.Load() {
		t.Errorf("%d statuses stored, %d acknowledged, %v", len(got), stored.Load(), err)
	}
}

// TestShutdownIsBounded: a store that does not return holds up neither the stop
// nor, once it has returned, what it was given.
func TestShutdownIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	applying := make(chan struct{}, 1)
	s, err := New(context.Background(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0"}, store: testwait.Patience, open: func(ctx context.Context) (store.Store, error) {
		opened, err := store.Open(ctx, "sqlite:"+path)
		return &toldStore{opened, applying}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := apitest.OtherProgram(t, "sqlite:"+path).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if _, err := other.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	posted := make(chan error, 1)
	go func() {
		posted <- s.API().PostStatuses(context.Background(), apitest.Car1, []httpapi.Message{apitest.Status(1, 1, "r", `{}`)})
	}()
	<-applying // the writer has taken the post
	bound, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(bound); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stop that is not over: %v", err)
	}
	if _, err := other.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Errorf("the rest of the stop: %v", err)
	}
	if err := <-posted; err != nil && httpapi.StatusOf(err) != 503 {
		t.Errorf("the post: %v", err)
	}
}

// toldStore tells when a transaction begins.
type toldStore struct {
	store.Store
	applying chan<- struct{}
}

func (s *toldStore) Apply(ctx context.Context, batch *store.Batch) error {
	select {
	case s.applying <- struct{}{}:
	default:
	}
	return s.Store.Apply(ctx, batch)
}
