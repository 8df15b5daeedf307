package car

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// held is a module whose context ends when it is let.
func held(number int32) (m *fakeModule, let func()) {
	hold := make(chan struct{})
	return &fakeModule{number: number, onCall: func(_ context.Context, call string) error {
		if call == "close" {
			<-hold
		}
		return nil
	}}, func() { close(hold) }
}

// When an occupant is replaced, the next one serves the gateway at once, however long
// the modules of the old one take to end. Here a device stops to be supported, so the
// gateway is called to connect anew, once; its session goes on until it does.
func TestReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, let := held(1)
		fresh := &fakeModule{number: 2}
		r := newRig(t, Options{}, old).run()
		r.connect(driver)
		r.link.take()
		ended := r.replace(fresh)
		r.wantSent("connectResponse session1") // GW-34
		r.status(2, driver, "under way")
		r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "session2", Devices: []fleet.Device{button}})
		r.send(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "session2", Counter: 1, Device: button, Data: []byte("first")})
		r.wantSent("statusResponse 2", "connectResponse session2", "statusResponse 1", "command 1 button ") // CMD-3
		if s := r.seat.Snapshot(); !s.LinkUp || s.SessionID != "session2" || s.Ended[session.ReasonReplaced] != 1 || s.Modules[0].Number != 2 {
			t.Errorf("snapshot %+v", s)
		}
		let()
		if err := ended(t.Context()); err != nil {
			t.Error(err)
		}
		r.wantCalls(old, "connected driver", "status driver first", "disconnected driver timeout", "close")
		if err := r.end(); err != nil {
			t.Error(err)
		}
		r.wantCalls(fresh, "connected button", "status button first", "disconnected button timeout", "close")
	})
}

// A gateway whose Connect waits while the occupant is replaced is not called to connect
// anew: that would fail its attempt (GW-13).
func TestReplaceWhileTheGatewayConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{}, &fakeModule{number: 1}).run()
		r.connect(driver)
		r.link.take()
		r.seat.mail.halt()
		r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "session2", Devices: []fleet.Device{button}})
		r.replace(&fakeModule{number: 2})
		synctest.Wait()
		r.wantSent("connectResponse session2")
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// A module that both occupants have hears everything in order: its new context is
// called when the old one has taken what was accepted for it and has ended.
func TestReplaceKeepsOrderPerModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		var calls []string
		said := func(of string) func(_ context.Context, call string) error {
			return func(_ context.Context, call string) error {
				if of == "old" && strings.HasPrefix(call, "status button s") {
					<-slow
				}
				calls = append(calls, of+" "+call)
				return nil
			}
		}
		old, fresh := &fakeModule{number: 2, onCall: said("old")}, &fakeModule{number: 2, onCall: said("new")}
		r := newRig(t, Options{}, old).run()
		r.connect(button)
		r.status(2, button, "s2")
		r.status(3, button, "s3")
		ended := r.replace(fresh)
		r.link.take()
		r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "session2", Devices: []fleet.Device{button}})
		r.wantSent()
		if len(fresh.made()) > 0 {
			t.Errorf("the new context was called before the old one has ended: %q", fresh.made())
		}
		close(slow)
		if err := ended(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		r.wantSent("connectResponse session2")
		want := []string{"old connected button", "old status button first", "old status button s2", "old status button s3",
			"old disconnected button timeout", "old close", "new connected button"}
		if !slices.Equal(calls, want) {
			t.Errorf("calls %q\nwant %q", calls, want)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// The stop is bounded also when it meets an occupant whose modules wait for those of
// the one before it.
func TestStopWhileModulesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		defer close(hold)
		stuck := &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
			if strings.HasPrefix(call, "status button s") {
				<-hold
			}
			return nil
		}}
		fresh := &fakeModule{number: 2}
		r := newRig(t, Options{Limits: Limits{Stop: 4 * time.Second}}, stuck).run()
		r.connect(button)
		r.status(2, button, "s2")
		ended := r.replace(fresh)
		begin := time.Now()
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > 4*time.Second {
			t.Errorf("the stop took %v", d)
		}
		if err := ended(t.Context()); err == nil {
			t.Error("the status that was not delivered is not told")
		}
		r.wantCalls(fresh, "close")
	})
}

// What has arrived before is handled by the old occupant, up to a Connect, which waits
// for the next one. The session goes on.
func TestReplaceHandlesWhatHasArrived(t *testing.T) {
	for name, connects := range map[string]bool{"status": false, "connect": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old, fresh := &fakeModule{number: 2}, &fakeModule{number: 2}
				r := newRig(t, Options{}, old).run()
				r.connect(button)
				r.link.take()
				release := r.busy()
				r.status(2, button, "s2") // in hand
				replaced := make(chan func(context.Context) error)
				go func() {
					ended, err := r.seat.Replace(context.Background(), Occupant{Modules: bindings(fresh)})
					if err != nil {
						t.Error(err)
					}
					replaced <- ended
				}()
				synctest.Wait()
				r.status(3, button, "s3")
				want := []string{"statusResponse 2", "statusResponse 3"}
				if connects {
					r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "session2", Devices: []fleet.Device{button}})
					want = append(want, "connectResponse session2")
				}
				release()
				if err := (<-replaced)(t.Context()); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				r.wantSent(want...)
				r.wantCalls(old, "connected button", "status button first", "status button s2", "status button s3", "disconnected button timeout", "close")
				if err := r.end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// An occupant that does not come to rest in time is not replaced, and goes on.
func TestReplaceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := &fakeModule{number: 2}, &fakeModule{number: 2}
		r := newRig(t, Options{}, old).run()
		r.connect(button)
		r.link.take()
		release := r.busy()
		r.status(2, button, "s2")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := r.seat.Replace(ctx, Occupant{Modules: bindings(fresh)}); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), carID.Car) {
			t.Errorf("Replace: %v", err)
		}
		r.status(3, button, "s3")
		release()
		r.wantSent("statusResponse 2", "statusResponse 3")
		r.wantCalls(fresh)
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// A session that was taken out of one seat goes on in another one, with its counters
// and its time limits.
func TestSessionIsPutIntoASeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := Options{Limits: Limits{Session: session.Options{SessionTimeout: 10 * time.Second}}}
		first := newRig(t, opts, &fakeModule{number: 2}).run()
		first.connect(button)
		if err := first.seat.rest(t.Context(), first.seat.occupant.Load()); err != nil {
			t.Fatal(err)
		}
		sess := first.seat.occupant.Load().session
		first.seat.occupant.Load().timer.Stop()

		io := &fakeModule{number: 2}
		r := newRig(t, opts)
		if _, err := r.seat.Replace(t.Context(), Occupant{Session: sess, Modules: bindings(io)}); err != nil {
			t.Fatal(err)
		}
		r.watch()
		if s := r.seat.Snapshot(); s.Phase != session.PhaseRunning || s.SessionID != "session1" || !slices.Equal(s.Devices, []fleet.Device{button}) {
			t.Errorf("snapshot %+v", s)
		}
		r.status(2, button, "s2")
		r.wantSent("statusResponse 2")
		r.wantCalls(io, "connected button", "status button s2")
		advance(10 * time.Second)
		r.wantSent("disconnect")
		if s := r.seat.Snapshot(); s.Ended[session.ReasonSessionTimeout] != 1 {
			t.Errorf("snapshot %+v", s)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
		first.seat.occupant.Load().session = session.New(session.Options{}, moduleView{first.seat.occupant.Load()})
		if err := first.end(); err != nil {
			t.Error(err)
		}
	})
}

// A seat is left when it is empty and nothing was heard in it. What the link still
// delivers then is refused, so that somebody else can be found for it.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io, again := &fakeModule{number: 2}, &fakeModule{number: 2}
		r := newRig(t, Options{}, io).run()
		if r.seat.Leave() {
			t.Error("a seat is left that has an occupant")
		}
		vacate := func() {
			t.Helper()
			ended, err := r.seat.Vacate(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := ended(t.Context()); err != nil {
				t.Error(err)
			}
		}
		vacate()
		r.wantCalls(io, "close")
		r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, Devices: []fleet.Device{button}})
		if r.seat.Leave() {
			t.Fatal("a seat is left in which a message waits")
		}
		r.replace(again)
		synctest.Wait()
		r.wantSent("connectResponse session1")
		r.send(fleet.ClientMessage{Kind: fleet.ClientConnect}) // without devices: ends it
		vacate()
		if !r.seat.Leave() {
			t.Fatal("an empty seat is not left")
		}
		if r.link.receiver.Message([]byte{1}, link.Delivery{}) {
			t.Error("a message was heard that no occupant will handle")
		}
		r.link.receiver.Sent()
		r.link.receiver.LinkUp(link.Fresh)
		if !r.link.closed {
			t.Error("the port is still open")
		}
		if _, err := r.seat.Replace(t.Context(), Occupant{}); !errors.Is(err, ErrLeft) {
			t.Errorf("Replace: %v", err)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// Every message is acknowledged once, also those that were dropped, met a change of the
// occupant, or will not be handled any more.
func TestEverythingIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{Limits: Limits{Payload: 100}}, &fakeModule{number: 2}).run()
		r.connect(button)
		packet := uint16(0)
		say := func(payload []byte) {
			packet++
			r.link.receiver.Message(payload, link.Delivery{Ack: link.Ack{Connection: 1, Packet: packet}})
		}
		status, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "session1", Counter: 2, Device: button}, carID)
		if err != nil {
			t.Fatal(err)
		}
		say(status)
		say([]byte{1}) // cannot be read
		if err := r.seat.rest(t.Context(), r.seat.occupant.Load()); err != nil {
			t.Fatal(err)
		}
		say(status)            // waits
		say(make([]byte, 101)) // too large, waits to be acknowledged
		r.replace(&fakeModule{number: 2})
		synctest.Wait()
		if err := r.seat.rest(t.Context(), r.seat.occupant.Load()); err != nil {
			t.Fatal(err)
		}
		connect, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "s2", Devices: []fleet.Device{button}}, carID)
		if err != nil {
			t.Fatal(err)
		}
		say(connect) // is left
		say(status)  // is left, too
		if err := r.end(); err != nil {
			t.Error(err)
		}
		all, answered := r.link.acknowledged()
		slices.Sort(all)
		if !slices.Equal(all, []uint16{1, 2, 3, 4, 5, 6}) || !slices.Equal(answered, []uint16{1}) {
			t.Errorf("acknowledged %v, with an answer %v", all, answered)
		}
	})
}

// Silence is measured from the last message while there is no session, whatever
// happens to the clock of the machine, and whichever occupant has the seat.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{}, &fakeModule{number: 2}).run()
		advance(time.Hour)
		if got := r.seat.Silent(); got != 0 {
			t.Errorf("silent for %v before the first message", got)
		}
		r.connect(button)
		advance(time.Second)
		if got := r.seat.Silent(); got != 0 {
			t.Errorf("silent for %v in a session", got)
		}
		r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "x"}) // without devices: ends it
		r.link.receiver.LinkDown(errors.New("reset"), false)
		advance(time.Minute)
		r.seat.counters.lastSeen.Store(0) // the clock of the machine was set
		if got := r.seat.Silent(); got != time.Minute {
			t.Errorf("silent for %v, want a minute", got)
		}
		r.replace(&fakeModule{number: 2})
		advance(time.Minute)
		if got := r.seat.Silent(); got != 2*time.Minute {
			t.Errorf("silent for %v after a change, want two minutes", got)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

func TestSilenceIsMonotonic(t *testing.T) {
	s, err := New(Options{ID: carID, Logger: newLogger()})
	if err != nil {
		t.Fatal(err)
	}
	if s.born == s.born.Round(0) {
		t.Error("silence is measured from a time without monotonic reading")
	}
}

// While occupants follow one another, a gateway is heard without a gap: whatever the
// moment, its Connect is answered, or its gateway is told that this attempt has ended.
func TestReplaceLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{}, &fakeModule{number: 2}).run()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 50 {
				time.Sleep(time.Millisecond)
				ended, err := r.seat.Replace(context.Background(), Occupant{Modules: bindings(&fakeModule{number: 2})})
				if err != nil {
					t.Error(err)
					return
				}
				if err := ended(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}()
		for n := range 100 {
			id := fmt.Sprint("session", n)
			r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: id, Devices: []fleet.Device{button}})
			synctest.Wait()
			if sent := r.link.take(); !slices.Contains(sent, "connectResponse "+id) && !slices.Contains(sent, "disconnect") {
				t.Errorf("the Connect of %s was not answered: %q", id, sent)
			}
			time.Sleep(710 * time.Microsecond)
		}
		<-done
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}
