package car

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
		if s := r.car.Snapshot(); s.Modules[0].Errors != 2 {
			t.Errorf("modules %+v", s.Modules)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// A panic of our own ends Run only; Abandon then releases everything, and the
// modules hear that the devices are gone.
func TestAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2}
		r := newRig(t, Options{}, io)
		failed := make(chan any)
		go func() {
			defer func() { failed <- recover() }()
			_ = r.car.Run(context.Background())
		}()
		r.connect(button)
		r.link.set(func() { r.link.broken = true })
		r.status(2, button, "s2")
		if d, ok := (<-failed).(*Defect); !ok || d.Value != "a defect" || !bytes.Contains(d.Stack, []byte("Publish")) {
			t.Fatalf("Run ended with %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.car.Abandon(ctx); err != nil {
			t.Error(err)
		}
		r.wantCalls(io, "connected button", "status button first", "status button s2", "disconnected button timeout", "close")
		if !r.link.closed {
			t.Error("the car has not left the link")
		}
		r.link.receiver.Message([]byte{1}, link.Delivery{}) // must not pile up anywhere
		if len(r.car.mail.items) != 0 {
			t.Error("an abandoned car takes messages")
		}
	})
}

// A car whose Run was never called closes its modules.
func TestCloseWithoutRun(t *testing.T) {
	io := &fakeModule{number: 2}
	c, err := New(Options{ID: carID, Logger: newLogger(), Modules: []Binding{{Module: io, Instance: fakeInstance{io}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
	if got := io.made(); !slices.Equal(got, []string{"close"}) {
		t.Errorf("calls %q", got)
	}
	if err := c.Run(t.Context()); err == nil {
		t.Error("Run without Attach gives no error")
	}
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
		if s := r.car.Snapshot(); s.Phase != session.PhaseWaiting || s.Ended[session.ReasonPublishFailed] != 1 {
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
		if s := r.car.Snapshot(); s.LinkUp || s.Phase != session.PhaseWaiting {
			t.Errorf("snapshot %+v", s)
		}
		r.link.receiver.LinkUp(link.Fresh)
		r.connect(button)
		if s := r.car.Snapshot(); !s.LinkUp || s.Sessions != 2 {
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
		if s := r.car.Snapshot(); s.Ended[session.ReasonSessionTimeout] != 1 {
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
		r.car.Configure(Limits{Session: session.Options{SessionTimeout: 2 * time.Second}, Payload: 100, MessagesPerSec: 1, MessageBurst: 2})
		synctest.Wait()
		r.link.take()
		r.status(2, button, "s2")
		r.status(3, button, strings.Repeat("x", 100))
		r.status(3, button, "s3")
		r.status(4, button, "too fast")
		r.wantSent("statusResponse 2", "statusResponse 3")
		if s := r.car.Snapshot(); s.TooLarge != 1 || s.Limited != 1 || s.Phase != session.PhaseRunning {
			t.Errorf("snapshot %+v", s)
		}
		advance(2 * time.Second)
		r.wantSent("disconnect")
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}
