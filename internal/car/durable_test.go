package car

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/session"
	"external-server/internal/session/record"
)

// memory is a journal that outlives its seats.
type memory struct {
	mu      sync.Mutex
	records [][]byte
	epoch   uint64
}

func (m *memory) AppendAt(epoch uint64, records ...[]byte) (now uint64, ok bool) {
	m.mu.Lock()
	ok, now = epoch == m.epoch, m.epoch
	m.mu.Unlock()
	if ok {
		m.Append(records...)
	}
	return now, ok
}

func (m *memory) Flush() error { return nil }

// restart forgets everything, as a journal does that begins anew.
func (m *memory) restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records, m.epoch = nil, m.epoch+1
}

func (m *memory) Append(records ...[]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		m.records = append(m.records, bytes.Clone(r))
	}
}

// known is what the journal says of the car.
func (m *memory) known(t *testing.T) *record.Resumption {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	f := record.NewFold()
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

// What a car wants to send in the moment in which the connection is lost does not end its
// session, and no later connection carries it (RES-9).
func TestAnswerWhileTheLinkIsLost(t *testing.T) {
	for _, told := range []bool{false, true} { // whether the loss waits in the mailbox already
		synctest.Test(t, func(t *testing.T) {
			journal := new(memory)
			hold := make(chan struct{})
			r := newRig(t, Options{Journal: journal}, &fakeModule{number: 2}).run()
			r.connect(button)
			r.link.take()
			if told {
				r.link.set(func() { r.link.hold = hold })
				r.status(2, button, "s2") // keeps the car busy
				r.status(3, button, "s3")
			} else {
				r.link.set(func() { r.link.down, r.link.lost = true, true })
				r.status(2, button, "s2")
			}
			r.seat.LinkDown(nil, true)
			r.link.set(func() { r.link.down, r.link.lost, r.link.hold = false, false, nil })
			close(hold)
			synctest.Wait()
			r.link.take() // what was under way
			r.seat.AppendSettled()
			if known := journal.known(t); known.Record == nil || known.Record.Settled {
				t.Errorf("told %v: the journal knows %+v", told, known.Record)
			}
			r.seat.LinkUp(link.Continued)
			again := uint32(2)
			if told {
				again = 3
			}
			r.status(again, button, "again")
			r.seat.BacklogRead()
			synctest.Wait()
			r.wantSent(fmt.Sprintf("statusResponse %d", again))
			if s := r.seat.Snapshot(); s.Phase != session.PhaseRunning || s.SessionID != "session1" {
				t.Errorf("told %v: the session is %v %q", told, s.Phase, s.SessionID)
			}
			if err := r.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A journal that begins anew gets the whole session with the next step of the car, or when
// it is asked to, and what its modules have not confirmed.
func TestJournalBeginsAnew(t *testing.T) {
	for _, idle := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			hold := make(chan struct{})
			stuck := &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
				if call == "status button s3" {
					<-hold
				}
				return nil
			}}
			journal := new(memory)
			r := newRig(t, Options{Journal: journal, Limits: Limits{Stop: time.Second}}, stuck).run()
			r.connect(button)
			for n := uint32(2); n <= 4; n++ {
				r.status(n, button, fmt.Sprintf("s%d", n))
			}
			journal.restart()
			left := 2
			if idle {
				r.seat.Record()
				synctest.Wait()
			} else {
				r.status(5, button, "s5")
				left = 3
			}
			known := journal.known(t)
			if known == nil || known.Record == nil || known.Record.ID != "session1" || int(known.Record.Expected) != left+3 || len(known.Left) != left {
				t.Fatalf("idle %v: the journal knows %+v", idle, known)
			}
			for i, l := range known.Left {
				if string(l.Data) != fmt.Sprintf("s%d", i+3) || l.Device.Module != 2 {
					t.Errorf("left is %+v", l)
				}
			}
			close(hold)
			synctest.Wait()
			if known := journal.known(t); len(known.Left) != 0 || len(known.Numbers) != 1 || int(known.Numbers[0].Next) != left+2 {
				t.Errorf("idle %v: when everything is confirmed: %+v", idle, known)
			}
			if err := r.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A journal that begins anew while modules that a reload has replaced still take what was
// accepted for them gets that, too: it is delivered first if the process ends now.
func TestJournalBeginsAnewDuringAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		stuck := func() *fakeModule {
			return &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
				if call == "status button s3" {
					<-hold
				}
				return nil
			}}
		}
		journal := new(memory)
		r := newRig(t, Options{Journal: journal, Limits: Limits{Stop: time.Minute}}, stuck()).run()
		r.connect(button)
		r.status(2, button, "s2")
		r.status(3, button, "s3")
		r.status(4, button, "s4")
		second := stuck() // begins when the first has ended
		first := r.replace(second)
		r.status(5, button, "s5")
		last := r.replace(stuck())
		r.status(6, button, "s6")
		journal.restart()
		r.status(7, button, "s7")
		known := journal.known(t)
		if known == nil || known.Record == nil || known.Record.Expected != 8 {
			t.Fatalf("the journal knows %+v", known)
		}
		var left []string
		for _, l := range known.Left {
			left = append(left, string(l.Data))
		}
		if got := strings.Join(left, " "); got != "s3 s4 s5 s6 s7" {
			t.Errorf("left are %q", got)
		}
		close(hold)
		for _, ended := range []func(context.Context) error{first, last} {
			if err := ended(t.Context()); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if known := journal.known(t); len(known.Left) != 0 || len(known.Numbers) != 1 || known.Numbers[0].Next != 7 {
			t.Errorf("when everything is confirmed: %+v", known)
		}
		if n := len(r.seat.closing); n != 0 {
			t.Errorf("%d modules that have ended are remembered", n)
		}
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

// What the modules had to say before a restart is with the session before the connection
// is left, and the gateway is served meanwhile. Modules that take long for it are not
// waited for.
func TestEndPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		commands := make(chan []fleet.Command)
		asked := &fakeModule{number: 2, commands: commands}
		journal := new(memory)
		r := newRig(t, Options{Journal: journal}, asked, &fakeModule{number: 9}).run()
		r.connect(button)
		r.link.take()

		begin := time.Now()
		bound, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		done := make(chan struct{})
		go func() {
			r.seat.EndPolling(bound)
			close(done)
		}()
		synctest.Wait()
		r.status(2, button, "s2")
		commands <- []fleet.Command{{Device: button, Data: []byte("last")}}
		synctest.Wait()
		r.wantSent("statusResponse 2", "command 1 button last")
		select {
		case commands <- []fleet.Command{{Device: button, Data: []byte("later")}}:
			t.Error("the module was asked again")
		default:
		}
		<-done // module 9 never answers
		if took := time.Since(begin); took != time.Second {
			t.Errorf("the polls ended after %v", took)
		}
		r.status(3, button, "s3")
		r.wantSent("statusResponse 3")
		if err := r.suspend(); err != nil {
			t.Error(err)
		}
		if known := journal.known(t); known.Record == nil || len(known.Record.Commands) != 1 {
			t.Errorf("the journal knows %+v", known.Record)
		}
	})
}
