package replica

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A replica that does not answer is waited for once: who asks later has what is left of that wait, or its result. What is
// older than half a second is asked anew.
func TestInquiries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		gone := errors.New("it does not answer")
		q := &inquiries{ask: func(context.Context, string) (peerShard, error) {
			asked++
			time.Sleep(time.Second)
			return peerShard{}, gone
		}}
		begun := time.Now()
		go func() { _, _ = q.answer(t.Context(), "r2") }()
		time.Sleep(800 * time.Millisecond)
		for range 3 {
			go func() {
				if _, err := q.answer(t.Context(), "r2"); err != gone || time.Since(begun) != time.Second {
					t.Errorf("after %v: %v", time.Since(begun), err)
				}
			}()
		}
		time.Sleep(700 * time.Millisecond) // the result is half a second old
		if _, err := q.answer(t.Context(), "r2"); err != gone || time.Since(begun) != 1500*time.Millisecond || asked != 1 {
			t.Errorf("after %v, asked %d times: %v", time.Since(begun), asked, err)
		}
		time.Sleep(time.Millisecond)
		if _, err := q.answer(t.Context(), "r2"); err != gone || asked != 2 {
			t.Errorf("asked %d times: %v", asked, err)
		}
		if _, err := q.answer(t.Context(), "r3"); err != gone || asked != 3 {
			t.Errorf("asked %d times: %v", asked, err)
		}
		go func() { _, _ = q.answer(t.Context(), "r4") }()
		synctest.Wait()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := q.answer(ended, "r4"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		q.forget()
		time.Sleep(2 * time.Second)
	})
}
