package car

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/session"
)

// memory is a journal that outlives its seats.
type memory struct {
	mu      sync.Mutex
	records [][]byte
}

func (m *memory) Append(records ...[]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		m.records = append(m.records, bytes.Clone(r))
	}
}

// known is what the journal says of the car.
func (m *memory) known(t *testing.T) *session.Resumption {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	f := session.NewFold()
	for _, r := range m.records {
		if err := f.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
	known, err := f.Car(carID.String())
	if err != nil {
		t.Fatal(err)
	}
	return known
}

// A seat that is suspended tells neither gateway nor modules: another one goes on with the session, delivers
// first what a module had not taken, and answers what comes again (RES-13).
func TestSuspendAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		defer close(hold)
		stuck := &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
			if call == "status button s3" {
				<-hold
			}
			return nil
		}}
		journal := new(memory)
		r := newRig(t, Options{Journal: journal, Limits: Limits{Stop: time.Second}}, stuck).run()
		r.connect(button)
		r.status(2, button, "s2")
		r.status(3, button, "s3")
		r.status(4, button, "s4")
		r.link.take()
		if err := r.suspend(); err == nil {
			t.Error("the call that does not return is not told")
		}
		r.wantSent()
		r.wantCalls(stuck, "connected button", "status button first", "status button s2", "status button s3", "close")

		known := journal.known(t)
		if known.Record == nil || known.Record.Expected != 5 || len(known.Left) != 2 {
			t.Fatalf("the journal knows %+v", known)
		}
		io := &fakeModule{number: 2}
		next := newRig(t, Options{Journal: journal, Down: 2 * time.Second})
		if _, err := next.seat.Replace(t.Context(), Occupant{Known: known, Modules: bindings(io)}); err != nil {
			t.Fatal(err)
		}
		next.watch()
		synctest.Wait()
		next.wantCalls(io, "connected button", "status button s3", "status button s4")
		next.seat.LinkUp(link.Continued)
		next.status(4, button, "s4") // the broker was not told that it was handled
		next.status(5, button, "s5")
		next.seat.BacklogRead()
		next.wantSent("statusResponse 4", "statusResponse 5")
		next.wantCalls(io, "connected button", "status button s3", "status button s4", "status button s5")
		s := next.seat.Snapshot()
		if s.Phase != session.PhaseRunning || s.Resumed.IsZero() || s.SessionID != "session1" {
			t.Errorf("snapshot %+v", s)
		}
		if known := journal.known(t); len(known.Left) != 0 {
			t.Errorf("confirmed statuses are left: %+v", known.Left)
		}
		if err := next.end(); err != nil {
			t.Error(err)
		}
		next.wantSent("disconnect")
		if known := journal.known(t); known.Record != nil {
			t.Errorf("an ended session can be resumed: %+v", known.Record)
		}
	})
}

// A lost connection whose messages the broker keeps costs a seat with a journal nothing,
// and one without its session.
func TestLinkIsKept(t *testing.T) {
	for _, durable := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			opts := Options{}
			if durable {
				opts.Journal = new(memory)
			}
			io := &fakeModule{number: 2}
			r := newRig(t, opts, io).run()
			r.connect(button)
			r.link.take()
			r.seat.LinkDown(nil, true)
			advance(3 * time.Second)
			r.seat.LinkUp(link.Continued)
			r.status(2, button, "s2")
			r.seat.BacklogRead()
			if durable {
				r.wantSent("statusResponse 2")
			}
			if got := r.seat.Snapshot().Phase == session.PhaseRunning; got != durable {
				t.Errorf("journal %v: running %v", durable, got)
			}
			if err := r.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Without a change of what is supported, a gateway does not notice that its car got
// other modules (RES-18).
func TestReplaceIsNotNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := &fakeModule{number: 2}, &fakeModule{number: 2, commands: make(chan []fleet.Command)}
		r := newRig(t, Options{}, old).run()
		r.connect(button)
		r.status(2, button, "s2")
		r.link.take()
		ended := r.replace(fresh, &fakeModule{number: 9})
		r.status(3, button, "s3")
		fresh.commands <- []fleet.Command{{Device: button, Data: []byte("go")}}
		synctest.Wait()
		r.wantSent("statusResponse 3", "command 1 button go")
		if err := ended(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		r.wantCalls(fresh, "connected button", "status button s3")
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// A defect that a car meets once costs it nothing: the next occupant goes on with the
// session and handles what the one before had in hand. What a car fails at twice is given
// up, and its session with it.
func TestDefectIsNotNoticed(t *testing.T) {
	for _, twice := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			journal := new(memory)
			io := &fakeModule{number: 2}
			r := newRig(t, Options{Journal: journal}, io).run()
			r.connect(button)
			r.link.take()
			r.link.set(func() { r.link.broken = true })
			r.status(2, button, "s2")
			r.wantFailed(false)
			if !twice {
				r.link.set(func() { r.link.broken = false })
			}
			known := journal.known(t)
			known.Local = true
			fresh := &fakeModule{number: 2}
			r.watch()
			if _, err := r.seat.Replace(t.Context(), Occupant{Known: known, Modules: bindings(fresh)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if twice {
				r.wantFailed(true)
				r.link.set(func() { r.link.broken = false })
				last := &fakeModule{number: 2}
				r.watch()
				r.replace(last)
				r.status(3, button, "s3")
				if s := r.seat.Snapshot(); s.Phase != session.PhaseWaiting {
					t.Errorf("a session that failed twice goes on: %+v", s)
				}
			} else {
				r.status(3, button, "s3")
				r.wantSent("statusResponse 2", "statusResponse 3")
				r.wantCalls(io, "connected button", "status button first", "status button s2", "disconnected button timeout", "close")
				r.wantCalls(fresh, "connected button", "status button s3")
			}
			if err := r.end(); err != nil {
				t.Error(err)
			}
		})
	}
}
