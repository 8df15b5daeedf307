package module

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/support/testlog"
)

// A worker that is suspended waits for the call that is under way, not for those behind
// it: they stay for the next process, and their restart is short. Without a next process
// they are lost and counted.
func TestSuspend(t *testing.T) {
	const perCall = 140 * time.Millisecond // no multiple of it is when the delivery ends
	for _, suspend := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var log testlog.Buffer
			var confirmed []uint64
			s := &scripted{onCall: func(ctx context.Context, call string) error {
				time.Sleep(perCall)
				return nil
			}}
			w := start(s, WorkerOptions{Logger: log.Logger(), Confirmed: func(n uint64) { confirmed = append(confirmed, n) }})
			for n := range uint64(100) {
				if ok, begin := w.QueueStatus(Status{Device: button, Number: n}); !ok {
					t.Fatal("no room")
				} else if begin {
					w.Begin()
				}
			}
			synctest.Wait()
			begin := time.Now()
			bound, cancel := context.WithTimeout(t.Context(), 4100*time.Millisecond) // of them 3075 for deliveries: within the 21st call
			defer cancel()
			end := w.Close
			if suspend {
				end = w.Suspend
			}
			err := end(bound)
			took := time.Since(begin)
			lost := w.Stats().Lost
			if suspend {
				if err != nil || lost != 0 || took != 2*perCall || !slices.Equal(confirmed, []uint64{0, 1}) {
					t.Errorf("%v, %d lost, after %v, confirmed %v", err, lost, took, confirmed)
				}
				if !log.Has("level=INFO", "wait in the state directory", "statuses=98") {
					t.Errorf("log:\n%s", &log)
				}
			} else if err == nil || lost != 79 || !log.Has("level=WARN", "are lost", "statuses=79") {
				t.Errorf("%v, %d lost; log:\n%s", err, lost, &log)
			}
		})
	}
}
