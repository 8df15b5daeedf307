package httpapi

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// unreachable is a store whose connection is lost: every attempt to reach it takes
// its time.
type unreachable struct {
	Store
	attempts int
}

const connectTime = 5 * time.Second

func (u *unreachable) lost() error {
	return &StoreError{Fault: FaultUnavailable, Reload: true, Err: errors.New("no route to host")}
}

func (u *unreachable) Load(context.Context) (*StoredState, error) {
	if u.attempts++; u.attempts == 1 {
		return &StoredState{}, nil
	}
	time.Sleep(connectTime)
	return nil, u.lost()
}

func (u *unreachable) Apply(context.Context, *Batch) error { return u.lost() }

// TestUnreachableStoreAnswersEverybody: posts that queue up while a lost store is
// tried are all refused when that attempt is over, not one batch per attempt.
func TestUnreachableStoreAnswersEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &unreachable{}
		c := newCore(coreOptions{Open: func(context.Context) (Store, error) { return store, nil }})
		if err := c.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		const posts = 4 * batchPosts
		answers := make(chan error, posts)
		for range posts {
			go func() { answers <- c.PostStatuses(t.Context(), car1, []Message{status(1, 1, "r", `{}`)}) }()
		}
		for range posts {
			if err := <-answers; StatusOf(err) != 503 {
				t.Errorf("post: %v", err)
			}
		}
		if d := time.Since(begin); d > connectTime+reloadPause {
			t.Errorf("the last of %d posts was answered after %v", posts, d)
		}
		c.close()
	})
}
