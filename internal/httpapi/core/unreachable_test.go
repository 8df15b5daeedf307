package core

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
)

// unreachable is a store whose connection is lost: every attempt to reach it takes
// its time.
type unreachable struct {
	store.Store
	attempts int
}

const connectTime = 5 * time.Second

func (u *unreachable) lost() error {
	return &store.Error{Fault: store.FaultUnavailable, Reload: true, Err: errors.New("no route to host")}
}

func (u *unreachable) Load(context.Context) (*store.State, error) {
	if u.attempts++; u.attempts == 1 {
		return &store.State{}, nil
	}
	time.Sleep(connectTime)
	return nil, u.lost()
}

func (u *unreachable) Apply(context.Context, *store.Batch) error { return u.lost() }

// TestUnreachableStoreAnswersEverybody: posts that queue up while a lost store is
// tried are all refused when that attempt is over, not one batch per attempt.
func TestUnreachableStoreAnswersEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := &unreachable{}
		c := New(Options{Open: func(context.Context) (store.Store, error) { return lost, nil }})
		if err := c.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		const posts = 4 * batchPosts
		answers := make(chan error, posts)
		for range posts {
			go func() {
				answers <- c.PostStatuses(t.Context(), apitest.Car1, []httpapi.Message{apitest.Status(1, 1, "r", `{}`)})
			}()
		}
		for range posts {
			if err := <-answers; httpapi.StatusOf(err) != 503 {
				t.Errorf("post: %v", err)
			}
		}
		if d := time.Since(begin); d > connectTime+reloadPause {
			t.Errorf("the last of %d posts was answered after %v", posts, d)
		}
		c.Close()
	})
}
