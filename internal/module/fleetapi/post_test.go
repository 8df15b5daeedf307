package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/httpapi"
	"external-server/internal/module"
	"external-server/internal/support/testlog"
)

// recorder keeps what was posted; answer decides about each request.
type recorder struct {
	mu     sync.Mutex
	posts  []string
	stored []string
	at     []time.Time
	answer func(n int, messages []httpapi.Message) error
}

func (r *recorder) post(_ context.Context, messages []httpapi.Message) error {
	r.mu.Lock()
	n := len(r.posts)
	r.posts = append(r.posts, summary(messages))
	r.at = append(r.at, time.Now())
	r.mu.Unlock()
	if r.answer != nil {
		if err := r.answer(n, messages); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range messages {
		r.stored = append(r.stored, summary([]httpapi.Message{m}))
	}
	return nil
}

func (r *recorder) all() (posts, stored []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.posts), slices.Clone(r.stored)
}

// TestArrays: what queues up while a request runs goes out as one array per
// device, in order, one request at a time (HTTP-16, MM-3, MM-60).
func TestArrays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := &recorder{answer: func(int, []httpapi.Message) error { <-gate; return nil }}
		i := open(t, Options{Builtin: IO, API: &faultyAPI{post: r.post}})
		forward(t, i, "a", 0, 0)
		synctest.Wait()
		forward(t, i, "a", 1, 2)
		forward(t, i, "b", 3, 3)
		if err := i.ForwardError(t.Context(), device(2, "b"), []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		forward(t, i, "a", 4, 4)
		if s := i.Stats(); s.Queued != 6 || s.OldestQueued.IsZero() {
			t.Errorf("waiting: %+v", s)
		}
		close(gate)
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		posts, _ := r.all()
		if want := []string{"a[0]", "a[1] a[2] a[4]", "b[3] b{}!"}; !slices.Equal(posts, want) {
			t.Errorf("posted %q, want %q", posts, want)
		}
		if s := i.Stats(); s.Posted != 6 || s.Queued != 0 || !s.OldestQueued.IsZero() || s.Lost != 0 {
			t.Errorf("at the end: %+v", s)
		}
	})
}

// TestOutage: an API that is down for a minute costs nothing but time; the
// requests meanwhile are few, and the log tells once that it is down and once
// that it is back.
func TestOutage(t *testing.T) {
	for _, fault := range []error{errors.New("connection refused"), status(500), status(503)} {
		t.Run(fault.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log testlog.Buffer
				up := time.Now().Add(time.Minute)
				r := &recorder{answer: func(int, []httpapi.Message) error {
					if time.Now().Before(up) {
						return fault
					}
					return nil
				}}
				pool := NewPool(log.Logger())
				a := &faultyAPI{post: r.post}
				var all []*Instance
				for range 20 {
					all = append(all, open(t, Options{Builtin: IO, API: a, Pool: pool, Logger: log.Logger()}))
				}
				for n := range 30 {
					for _, i := range all {
						forward(t, i, "a", n, n)
					}
					time.Sleep(time.Second)
				}
				if s := all[0].Stats(); s.APIUp || s.Queued != 30 || time.Since(s.OldestQueued) < 30*time.Second {
					t.Errorf("during the outage: %+v", s)
				}
				time.Sleep(29 * time.Second)
				if posts, _ := r.all(); len(posts) > 20*4+60 {
					t.Errorf("%d requests while the API was down", len(posts))
				}
				time.Sleep(10 * time.Second)
				for n, i := range all {
					if s := i.Stats(); !s.APIUp || s.Posted != 30 || s.Queued != 0 {
						t.Errorf("instance %d afterwards: %+v", n, s)
					}
				}
				_, stored := r.all()
				if len(stored) != 600 {
					t.Errorf("%d statuses arrived, want 600", len(stored))
				}
				text := log.String()
				if down, up := strings.Count(text, "does not answer"), strings.Count(text, "answers again"); down != 1 || up != 1 {
					t.Errorf("logged down %d times, up %d times:\n%s", down, up, text)
				}
			})
		})
	}
}

// TestOrderAfterOutage: the order of a device survives failures anywhere.
func TestOrderAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{answer: func(n int, _ []httpapi.Message) error {
			if n%3 != 2 {
				return status(502)
			}
			return nil
		}}
		i := open(t, Options{Builtin: IO, API: &faultyAPI{post: r.post}})
		var want []string
		for n := range 300 {
			forward(t, i, "a", n, n)
			want = append(want, fmt.Sprintf("a[%d]", n))
		}
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, stored := r.all(); !slices.Equal(stored, want) {
			t.Errorf("arrived: %q", stored)
		}
	})
}

// TestRefused is DEF-43: a refused status is posted again after at least 1 ms,
// then it is lost, counted and logged with the API's reason; others are not
// touched by it.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		gate := make(chan struct{})
		r := &recorder{answer: func(n int, messages []httpapi.Message) error {
			if n == 0 {
				<-gate
			}
			if strings.Contains(summary(messages), "[2]") {
				return &httpapi.Error{Status: 400, Title: "Bad Request", Detail: "two is no number"}
			}
			return nil
		}}
		i := open(t, Options{Builtin: IO, API: &faultyAPI{post: r.post}, Logger: log.Logger()})
		forward(t, i, "a", 0, 0)
		synctest.Wait()
		forward(t, i, "a", 1, 3)
		close(gate)
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		posts, stored := r.all()
		if want := []string{"a[0]", "a[1] a[2] a[3]", "a[1]", "a[2]", "a[2]", "a[3]"}; !slices.Equal(posts, want) {
			t.Errorf("posted %q, want %q", posts, want)
		}
		for n := 2; n < len(r.at); n++ {
			if r.at[n].Sub(r.at[n-1]) < time.Millisecond {
				t.Errorf("request %d came %v after the one before", n, r.at[n].Sub(r.at[n-1]))
			}
		}
		if want := []string{"a[0]", "a[1]", "a[3]"}; !slices.Equal(stored, want) {
			t.Errorf("arrived %q, want %q", stored, want)
		}
		if s := i.Stats(); s.Refused != 1 || s.Posted != 3 {
			t.Errorf("counted %+v", s)
		}
		if !strings.Contains(log.String(), "two is no number") || !strings.Contains(log.String(), "level=WARN") {
			t.Errorf("the log does not tell why: %s", log.String())
		}
	})
}

// TestCollision: a 400 because of an equal timestamp goes away with the retry.
func TestCollision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{answer: func(n int, _ []httpapi.Message) error {
			if n == 0 {
				return status(400)
			}
			return nil
		}}
		i := open(t, Options{Builtin: Transparent, API: &faultyAPI{post: r.post}})
		forward(t, i, "a", 1, 1)
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if posts, _ := r.all(); !slices.Equal(posts, []string{"a[1]", "a[1]"}) || i.Stats().Refused != 0 {
			t.Errorf("posted %q, %+v", posts, i.Stats())
		}
	})
}

// TestUnauthorized: a wrong key is a warning now and then, and statuses wait.
func TestUnauthorized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		right := time.Now().Add(25 * time.Second)
		r := &recorder{answer: func(int, []httpapi.Message) error {
			if time.Now().Before(right) {
				return status(401)
			}
			return nil
		}}
		i := open(t, Options{Builtin: IO, API: &faultyAPI{post: r.post}, Logger: log.Logger()})
		forward(t, i, "a", 1, 5)
		time.Sleep(time.Until(right))
		posts, _ := r.all()
		if len(posts) < 4 || len(posts) > 12 {
			t.Errorf("%d requests in 25 s", len(posts))
		}
		if n := strings.Count(log.String(), "check api_key"); n < 1 || n > 3 {
			t.Errorf("warned %d times: %s", n, log.String())
		}
		time.Sleep(31 * time.Second)
		if s := i.Stats(); s.Posted != 5 || s.Lost+s.Refused != 0 {
			t.Errorf("with the right key: %+v", s)
		}
	})
}

// TestFullQueueHoldsBack: ForwardStatus waits for room, so that the promise of
// statuses already answered is kept.
func TestFullQueueHoldsBack(t *testing.T) {
	for name, opts := range map[string]Options{"by number": {QueueSize: 3}, "by bytes": {QueueBytes: 3 * 160}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				r := &recorder{answer: func(int, []httpapi.Message) error { <-gate; return nil }}
				opts := opts
				opts.Builtin, opts.API = IO, &faultyAPI{post: r.post}
				i := open(t, opts)
				forward(t, i, "a", 1, 3)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := i.ForwardStatus(ctx, device(2, "a"), []byte("[4]"))
				var code *module.CallError
				if !errors.As(err, &code) || code.Code != module.CodeTimeoutOccurred || !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("a fourth status: %v", err)
				}
				returned := make(chan error, 1)
				go func() { returned <- i.ForwardStatus(t.Context(), device(2, "a"), []byte("[5]")) }()
				synctest.Wait()
				select {
				case err := <-returned:
					t.Fatalf("returned %v while the queue was full", err)
				default:
				}
				close(gate)
				if err := <-returned; err != nil {
					t.Fatal(err)
				}
				if err := i.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, stored := r.all(); !slices.Equal(stored, []string{"a[1]", "a[2]", "a[3]", "a[5]"}) {
					t.Errorf("arrived %q", stored)
				}
			})
		})
	}
}

// TestClose: what can be posted in time is, the rest is counted.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		r := &recorder{answer: func(n int, _ []httpapi.Message) error {
			time.Sleep(time.Second)
			return nil
		}}
		a := &faultyAPI{post: func(ctx context.Context, m []httpapi.Message) error {
			done := make(chan error, 1)
			go func() { done <- r.post(ctx, m) }()
			select {
			case err := <-done:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		i := open(t, Options{Builtin: IO, API: a, Logger: log.Logger()})
		for n := range 10 { // ten devices, ten requests
			forward(t, i, fmt.Sprintf("r%d", n), n, n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		started := time.Now()
		err := i.Close(ctx)
		if took := time.Since(started); took != 3150*time.Millisecond {
			t.Errorf("Close took %v", took)
		}
		s := i.Stats()
		if err == nil || s.Lost == 0 || s.Posted+s.Lost != 10 || s.Posted < 2 {
			t.Errorf("error %v, %+v", err, s)
		}
		if !strings.Contains(log.String(), "are lost") {
			t.Errorf("the loss is not logged: %s", log.String())
		}
		err = i.ForwardStatus(t.Context(), device(2, "a"), []byte("[1]"))
		var code *module.CallError
		if !errors.As(err, &code) || code.Code != module.CodeContextIncorrect {
			t.Errorf("a status after Close: %v", err)
		}
		time.Sleep(time.Minute) // the requests given up end
	})
}

// TestAwait: with Options.Await forward_status returns when the API has stored the status, however long that takes, and
// when the caller gives up nothing counts as lost.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		r := &recorder{answer: func(int, []httpapi.Message) error {
			if up.Load() {
				return nil
			}
			return status(503)
		}}
		i := open(t, Options{Builtin: IO, API: &faultyAPI{post: r.post}, Await: true})
		done := make(chan error, 1)
		go func() { done <- i.ForwardStatus(t.Context(), device(2, "a"), []byte(`0`)) }()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("forward_status has returned %v before the API has stored the status", err)
		default:
		}
		up.Store(true)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, stored := r.all(); !slices.Equal(stored, []string{"a0"}) {
			t.Errorf("stored %q", stored)
		}
		up.Store(false)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- i.ForwardStatus(ctx, device(2, "a"), []byte(`1`)) }()
		time.Sleep(time.Second)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("a call that was given up has returned %v", err)
		}
		closing, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		if err := i.Close(closing); err != nil {
			t.Error(err)
		}
		if s := i.Stats(); s.Lost != 0 {
			t.Errorf("lost %d, and the caller knows that it was not taken", s.Lost)
		}
	})
}
