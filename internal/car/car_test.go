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
	"external-server/internal/module"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// A status on its way to the module, a command on its way to the car, and what
// the car tells about itself.
func TestStatusAndCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mission := &fakeModule{number: 1}
		io := &fakeModule{number: 2, commands: make(chan []fleet.Command)}
		r := newRig(t, Options{}, mission, io).run()
		r.connect(button, driver)
		r.wantSent("connectResponse session1", "statusResponse 1", "statusResponse 2", "command 0 button ", "command 1 driver ")
		r.send(fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, Counter: 3, Device: button,
			Data: []byte("on"), Error: []byte("hot")})
		r.wantSent("statusResponse 3")
		io.commands <- []fleet.Command{{Device: button, Data: []byte("x")}, {Device: button, Data: []byte("y")}}
		synctest.Wait()
		r.wantSent("command 2 button x", "command 3 button y")
		r.respond(2)
		r.respond(3)
		since := time.Now()
		advance(time.Second)

		s := r.seat.Snapshot()
		if s.ID != carID || !s.LinkUp || s.Phase != session.PhaseRunning || s.SessionID != "session1" || !s.Since.Equal(since) ||
			!s.LastSeen.Equal(since) || !slices.Equal(s.Devices, []fleet.Device{button, driver}) || s.Statuses != 3 || s.Sessions != 1 || len(s.Ended) != 0 {
			t.Errorf("snapshot %+v", s)
		}
		if len(s.Modules) != 2 || s.Modules[0].Number != 1 || s.Modules[1].Statuses != 2 || s.Modules[1].CommandsFetched != 2 {
			t.Errorf("modules %+v", s.Modules)
		}

		if err := r.end(); err != nil {
			t.Error(err)
		}
		r.wantSent("disconnect")
		r.wantCalls(mission, "connected driver", "status driver first", "disconnected driver timeout", "close")
		r.wantCalls(io, "connected button", "status button first", "status button on", "error button hot",
			"ack button x", "ack button y", "disconnected button timeout", "close")
		if s := r.seat.Snapshot(); s.Phase != session.PhaseWaiting || s.SessionID != "" || s.Ended[session.ReasonStopped] != 1 || len(s.Devices) != 0 {
			t.Errorf("snapshot after the stop %+v", s)
		}
		if !r.link.closed {
			t.Error("the car has not left the link")
		}
		r.wantLogged("level=ERROR", 0)
		r.wantLogged("level=WARN", 0)
		r.wantLogged("session ended", 1)
	})
}

// A status is answered first; its module is called when the link has sent the answer,
// or at once when somebody else handles the status.
func TestModuleIsCalledAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2}
		r := newRig(t, Options{}, io).run()
		r.connect(button)
		r.link.take()
		before := len(io.made())
		raw, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "session1", State: fleet.StateRunning,
			Counter: 2, Device: button, Data: []byte("s2")}, carID)
		if err != nil {
			t.Fatal(err)
		}
		r.link.receiver.Message(raw, link.Delivery{})
		synctest.Wait()
		r.wantSent("statusResponse 2")
		if n := len(io.made()); n != before {
			t.Errorf("%d calls before the answer has left", n-before)
		}
		r.link.receiver.Sent()
		synctest.Wait()
		if calls := io.made(); len(calls) != before+1 {
			t.Errorf("calls after the answer: %q", calls[before:])
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// An answer is a promise: a module that does not take statuses fills its
// queue, then answers stop; when it is back, nothing is missing and the order
// is kept.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		io := &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
			if call == "status button 2" {
				<-release
			}
			return nil
		}}
		r := newRig(t, Options{Limits: Limits{Queue: 3}}, io).run()
		r.connect(button)
		r.link.take()
		for i := uint32(2); i < 10; i++ {
			r.status(i, button, fmt.Sprint(i))
		}
		r.wantSent("statusResponse 2", "statusResponse 3", "statusResponse 4")
		advance(10 * time.Second) // longer than any limit of the sequence
		r.wantSent()
		r.wantLogged("module queue full", 1)
		close(release)
		advance(time.Second)
		r.wantSent("statusResponse 5", "statusResponse 6", "statusResponse 7", "statusResponse 8", "statusResponse 9")
		calls := []string{"connected button", "status button first"}
		for i := 2; i < 10; i++ {
			calls = append(calls, fmt.Sprintf("status button %d", i))
		}
		r.wantCalls(io, calls...)
		if s := r.seat.Snapshot(); s.Statuses != 9 || s.Lost != 0 || s.Phase != session.PhaseRunning {
			t.Errorf("snapshot %+v", s)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// The room of a module's queue changes while the car runs, in both directions, and
// nothing that waits is lost by it.
func TestQueueSizeChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		io := &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
			if call == "status button 2" {
				<-release
			}
			return nil
		}}
		r := newRig(t, Options{Limits: Limits{Queue: 2}}, io).run()
		r.connect(button)
		r.link.take()
		send := func(from, to uint32) {
			for i := from; i <= to; i++ {
				r.status(i, button, fmt.Sprint(i))
			}
		}
		send(2, 4)
		r.wantSent("statusResponse 2", "statusResponse 3")
		r.seat.Configure(Limits{Queue: 4})
		send(5, 6)
		advance(time.Second)
		r.wantSent("statusResponse 4", "statusResponse 5")
		r.seat.Configure(Limits{Queue: 1})
		send(7, 7)
		advance(time.Second)
		r.wantSent()
		close(release)
		advance(time.Second)
		r.wantSent("statusResponse 6", "statusResponse 7")
		if s := r.seat.Snapshot(); s.Statuses != 7 || s.Lost != 0 {
			t.Errorf("snapshot %+v", s)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// One module that hangs delays neither the answers for another one nor the stop
// beyond its bound (CLI-24).
func TestStuckModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		mission := &fakeModule{number: 1}
		io := &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
			if strings.HasPrefix(call, "status button s") {
				<-release
			}
			return nil
		}}
		r := newRig(t, Options{Limits: Limits{Stop: 4 * time.Second}}, mission, io).run()
		r.connect(button, driver)
		r.link.take()
		r.status(3, button, "s1")
		r.status(4, button, "s2")
		r.status(5, driver, "s3")
		r.wantSent("statusResponse 3", "statusResponse 4", "statusResponse 5")
		r.wantCalls(mission, "connected driver", "status driver first", "status driver s3")
		begin := time.Now()
		err := r.end()
		if d := time.Since(begin); d != 4*time.Second {
			t.Errorf("the stop took %v", d)
		}
		if !errors.Is(err, module.ErrStuck) || !strings.Contains(err.Error(), "car car_1: module 2: 2 answered statuses were not delivered") {
			t.Errorf("stop: %v", err)
		}
		r.wantSent("disconnect")
		if calls := mission.made(); calls[len(calls)-1] != "close" {
			t.Errorf("the healthy module was not closed: %q", calls)
		}
		close(release)
	})
}

// DEV-3: what a module sent while it had no device is stale when one connects.
func TestStaleCommandsAreDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2, commands: make(chan []fleet.Command)}
		r := newRig(t, Options{}, io).run()
		io.commands <- []fleet.Command{{Device: button, Data: []byte("stale")}}
		synctest.Wait()
		r.connect(button)
		r.wantSent("connectResponse session1", "statusResponse 1", "command 0 button ")
		r.wantLogged("commands fetched while the module had no device", 1)
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// DEV-3 also holds for commands that come at the moment of the Connect.
func TestCommandsAtTheMomentOfConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mission := &fakeModule{number: 1}
		io := &fakeModule{number: 2, commands: make(chan []fleet.Command)}
		r := newRig(t, Options{}, mission, io).run()
		r.connect(driver)
		release := r.busy()
		r.status(2, driver, "s2")
		io.commands <- []fleet.Command{{Device: button, Data: []byte("stale")}}
		r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "session2", Devices: []fleet.Device{button}})
		release()
		r.link.take()
		r.send(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "session2", Counter: 1, Device: button})
		r.wantSent("statusResponse 1", "command 1 button ")
		r.wantLogged("commands fetched while the module had no device were discarded", 1)
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// DEF-27: what came before a deadline was handled may move it, however late the
// actor is.
func TestMessageBeforeDeadline(t *testing.T) {
	for range 10 { // the choice between mailbox and timer is random
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Options{Limits: Limits{Session: session.Options{SessionTimeout: 10 * time.Second}}}, &fakeModule{number: 2}).run()
			r.connect(button)
			release := r.busy()
			r.status(2, button, "s2")
			advance(11 * time.Second)
			r.status(3, button, "s3")
			release()
			if s := r.seat.Snapshot(); s.Phase != session.PhaseRunning {
				t.Errorf("the session ended: %v", s.Ended)
			}
			if err := r.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// REC-8: a module that is slow to accept a device delays the answer by 2 s at
// most; what it says later still counts.
func TestSlowAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
			if call == "connected button" {
				time.Sleep(10 * time.Second)
				return &module.CallError{Op: "device_connected", Code: module.CodeNotOK}
			}
			return nil
		}}
		r := newRig(t, Options{}, io).run()
		r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, Devices: []fleet.Device{button, lamp}})
		advance(2*time.Second - time.Millisecond)
		r.wantSent()
		advance(time.Millisecond)
		r.wantSent("connectResponse session1")
		r.send(fleet.ClientMessage{Kind: fleet.ClientStatus, Counter: 1, Device: button, Data: []byte("first")})
		r.send(fleet.ClientMessage{Kind: fleet.ClientStatus, Counter: 2, Device: lamp, Data: []byte("first")})
		r.respond(0)
		r.respond(1)
		r.status(3, button, "s3")
		r.wantSent("statusResponse 1", "statusResponse 2", "command 0 button ", "command 1 lamp ", "statusResponse 3")
		if s := r.seat.Snapshot(); len(s.Devices) != 2 {
			t.Errorf("devices %v", s.Devices)
		}
		advance(10 * time.Second)
		if s := r.seat.Snapshot(); !slices.Equal(s.Devices, []fleet.Device{lamp}) {
			t.Errorf("devices after the refusal %v", s.Devices)
		}
		r.status(4, button, "s4") // REC-6: answered, not forwarded
		r.wantSent("statusResponse 4")
		if calls := strings.Join(io.made(), ","); strings.Contains(calls, "s4") || !strings.Contains(calls, "s3") {
			t.Errorf("calls %s", calls)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// A gateway that connects anew without end while a module hangs does not fill the
// memory.
func TestConnectsWhileModuleHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices = 100
		hold := make(chan struct{})
		r := newRig(t, Options{}, &fakeModule{number: 2, onCall: func(context.Context, string) error {
			<-hold
			return nil
		}}).run()
		listed := make([]fleet.Device, devices)
		for n := range listed {
			listed[n] = fleet.Device{Module: 2, Type: 4, Role: fmt.Sprint("role", n)}
		}
		for n := range 50 {
			r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: fmt.Sprint("session", n), Devices: listed})
		}
		if n := r.seat.Snapshot().Modules[0].Queued; n > 3*devices {
			t.Errorf("%d calls wait for the module", n)
		}
		close(hold)
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}
