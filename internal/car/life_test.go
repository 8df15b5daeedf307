package car

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/session"
)

// A module written in Go that panics is an error like any other.
func TestPanickingModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
			if strings.HasPrefix(call, "status") {
				panic("index out of range")
			}
			return nil
		}}
		r := newRig(t, Options{}, io).run()
		r.connect(button)
		r.status(2, button, "s2")
		r.wantSent("connectResponse session1", "statusResponse 1", "command 0 button ", "statusResponse 2") // STAT-31
		r.wantLogged("forward_status panicked: index out of range", 1)
		if s := r.seat.Snapshot(); s.Modules[0].Errors != 2 {
			t.Errorf("modules %+v", s.Modules)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// A panic of our own ends the occupant only: Run says so and leaves an empty seat, the
// modules hear that the devices are gone. What the gateway sends then waits for the
// next occupant.
func TestDefect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io, fresh := &fakeModule{number: 2}, &fakeModule{number: 2}
		r := newRig(t, Options{}, io).run()
		r.connect(button)
		r.link.take()
		r.link.set(func() { r.link.broken = true })
		r.status(2, button, "s2")
		var d *Defect
		if err := <-r.ended; !errors.As(err, &d) || d.Value != "a defect" || !bytes.Contains(d.Stack, []byte("Publish")) {
			t.Fatalf("Run ended with %v", err)
		}
		r.wantLogged("a car failed by a defect of the server", 1)
		r.wantLogged("fakeLink).Publish", 1)
		r.wantCalls(io, "connected button", "status button first", "status button s2", "disconnected button timeout", "close")
		if s := r.seat.Snapshot(); r.seat.Occupied() || s.Phase != session.PhaseWaiting || len(s.Devices) > 0 || s.SessionID != "" {
			t.Errorf("snapshot %+v", s)
		}
		r.link.set(func() {
			r.link.broken = false
			if r.link.closed {
				t.Error("the seat was left")
			}
		})
		r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "session2", Devices: []fleet.Device{button}})
		r.wantSent()
		r.watch()
		r.replace(fresh)
		synctest.Wait()
		r.wantSent("connectResponse session2")
		if err := r.end(); err != nil {
			t.Error(err)
		}
		r.wantCalls(fresh, "connected button", "disconnected button timeout", "close")
	})
}

// An occupant with a defect can be replaced, and the seat left, before Run has looked.
func TestDefectThatRunDoesNotSee(t *testing.T) {
	for name, ends := range map[string]func(r *rig){
		"replaced": func(r *rig) {
			if err := r.replace(&fakeModule{number: 2})(context.Background()); err != nil {
				r.t.Error(err)
			}
			r.watch()
		},
		"left": func(r *rig) { r.watch(); r.stop(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				io := &fakeModule{number: 2}
				r := newRig(t, Options{}, io)
				r.replace(io)
				r.link.receiver.LinkUp(link.Fresh)
				r.connect(button)
				r.link.set(func() { r.link.broken = true })
				r.status(2, button, "s2")
				r.link.set(func() { r.link.broken = false })
				ends(r)
				if err := r.end(); err != nil {
					var d *Defect
					if !errors.As(err, &d) {
						t.Error(err)
					}
				}
				synctest.Wait()
				r.wantCalls(io, "connected button", "status button first", "status button s2", "disconnected button timeout", "close")
			})
		})
	}
}

// A seat that was never taken is left all the same; what it needs is asked for.
func TestEmptySeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{ID: carID, Logger: newLogger()})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); err == nil {
			t.Error("Run without Attach gives no error")
		}
		if _, err := s.Replace(t.Context(), Occupant{}); err == nil {
			t.Error("Replace without Attach gives no error")
		}
		r := newRig(t, Options{})
		r.watch()
		r.seat.Configure(Limits{})
		if err := r.end(); err != nil || !r.link.closed {
			t.Errorf("error %v, left %t", err, r.link.closed)
		}
		if _, err := r.seat.Replace(t.Context(), Occupant{}); !errors.Is(err, ErrLeft) {
			t.Errorf("Replace of a seat that was left: %v", err)
		}
	})
}

func TestNewNeedsALogger(t *testing.T) {
	if _, err := New(Options{ID: carID}); err == nil {
		t.Error("no error")
	}
}

// CONN-29: a message that cannot be sent ends the session, once.
func TestPublishFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2}
		r := newRig(t, Options{}, io).run()
		r.connect(button)
		r.link.take()
		r.link.set(func() { r.link.down = true })
		r.status(2, button, "s2")
		r.wantSent("disconnect")
		if s := r.seat.Snapshot(); s.Phase != session.PhaseWaiting || s.Ended[session.ReasonPublishFailed] != 1 {
			t.Errorf("snapshot %+v", s)
		}
		r.link.set(func() { r.link.down = false })
		r.connect(button) // as if nothing had happened
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// A lost broker ends the session, with its reason in the log; the car serves
// again when it is back.
func TestLinkDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2}
		r := newRig(t, Options{}, io).run()
		r.connect(button)
		r.link.take()
		r.link.receiver.LinkDown(errors.New("connection reset"), false)
		synctest.Wait()
		r.wantSent()
		r.wantLogged(`reason="broker connection lost"`, 1)
		r.wantLogged(`error="connection reset"`, 1)
		if s := r.seat.Snapshot(); s.LinkUp || s.Phase != session.PhaseWaiting {
			t.Errorf("snapshot %+v", s)
		}
		r.link.receiver.LinkUp(link.Fresh)
		r.connect(button)
		if s := r.seat.Snapshot(); !s.LinkUp || s.Sessions != 2 {
			t.Errorf("snapshot %+v", s)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// The timer follows a deadline that moves with every status, and fires when it
// stops moving (SESS-7).
func TestSessionTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2}
		r := newRig(t, Options{Limits: Limits{Session: session.Options{SessionTimeout: 10 * time.Second}}}, io).run()
		r.connect(button)
		for i := range 5 {
			advance(9 * time.Second)
			r.status(uint32(i+2), button, "s")
		}
		r.link.take()
		advance(10*time.Second - time.Millisecond)
		r.wantSent()
		advance(time.Millisecond)
		r.wantSent("disconnect")
		if s := r.seat.Snapshot(); s.Ended[session.ReasonSessionTimeout] != 1 {
			t.Errorf("snapshot %+v", s)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// Limits change while the session goes on.
func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2}
		r := newRig(t, Options{}, io).run()
		r.connect(button)
		r.seat.Configure(Limits{Session: session.Options{SessionTimeout: 2 * time.Second}, Payload: 100, MessagesPerSec: 1, MessageBurst: 2})
		synctest.Wait()
		r.link.take()
		r.status(2, button, "s2")
		r.status(3, button, strings.Repeat("x", 100))
		r.status(3, button, "s3")
		r.status(4, button, "too fast")
		r.wantSent("statusResponse 2", "statusResponse 3")
		if s := r.seat.Snapshot(); s.TooLarge != 1 || s.Limited != 1 || s.Phase != session.PhaseRunning {
			t.Errorf("snapshot %+v", s)
		}
		advance(2 * time.Second)
		r.wantSent("disconnect")
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}
