package car

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/protocol"
	"external-server/internal/session"
)

// A car that is replaced leaves its heir everything it does not handle itself: the
// gateway, told to connect anew, is heard whatever the modules of the old car take
// their time for.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		old := newRig(t, Options{}, &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
			if call == "close" {
				<-hold
			}
			return nil
		}})
		ctx, stop := context.WithCancelCause(context.Background())
		go func() { old.ended <- old.car.Run(ctx) }()
		old.link.receiver.LinkUp(link.Fresh)
		synctest.Wait()
		old.connect(button)
		old.link.take()

		fresh := newRig(t, Options{}, &fakeModule{number: 2})
		heir := fresh.car
		heir.port, fresh.link = nil, old.link
		old.car.HandOver(heir)
		before := old.link.receiver
		stop(ErrReload)
		synctest.Wait()
		if old.link.receiver != heir {
			t.Fatal("the link does not deliver to the heir")
		}
		if heir.mail.messages > 0 {
			t.Error("the heir has heard something before anything was sent")
		}
		// One message still goes to the old car, as if it was under way.
		connect := fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "session1", Devices: []fleet.Device{button}}
		old.link.receiver = before
		old.send(connect)
		old.link.receiver = heir
		if heir.Leave() {
			t.Fatal("what was still delivered to the old car is lost")
		}
		old.wantSent()
		close(hold)
		if err := <-old.ended; err != nil {
			t.Error(err)
		}
		old.wantSent() // a notification would fail the attempt that has begun (GW-20)
		old.link.set(func() {
			if old.link.closed {
				t.Error("the port is closed although the heir has it")
			}
		})

		if err := heir.Attach(nil); err != nil { // it has its place
			t.Error(err)
		}
		running, end := context.WithCancel(context.Background())
		go func() { fresh.ended <- heir.Run(running) }()
		synctest.Wait()
		fresh.wantSent("connectResponse session1")
		if s := heir.Snapshot(); !s.LinkUp || s.Phase == session.PhaseWaiting {
			t.Errorf("snapshot %+v", s)
		}
		end()
		if err := <-fresh.ended; err != nil {
			t.Error(err)
		}
		if calls := fresh.modules[0].made(); !slices.Contains(calls, "close") {
			t.Errorf("calls %q", calls)
		}
		old.link.set(func() {
			if !old.link.closed {
				t.Error("the port is still open")
			}
		})
	})
}

// An heir that has heard nothing leaves. What the link still delivers then, to it or
// to the car before it, is refused, so that somebody else can be found for it.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2}
		old, fresh := newRig(t, Options{}, &fakeModule{number: 2}).run(), newRig(t, Options{}, io)
		heir := fresh.car
		heir.port = nil
		old.car.HandOver(heir)
		before := old.link.receiver
		if err := old.end(); err != nil {
			t.Fatal(err)
		}
		if !heir.Leave() {
			t.Fatal("an heir that has heard nothing stays")
		}
		for _, r := range []link.Receiver{before, heir} {
			if r.Message([]byte{1}, link.Delivery{}) {
				t.Errorf("%p has heard a message that nobody will handle", r)
			}
			r.Sent()
			r.LinkUp(link.Fresh)
		}
		old.link.set(func() {
			if !old.link.closed {
				t.Error("the port is still open")
			}
		})
		if err := heir.Close(t.Context()); err != nil {
			t.Error(err)
		}
		fresh.wantCalls(io, "close")
	})
}

// Silence is measured from the last message while there is no session, whatever
// happens to the clock of the machine; the heir goes on with it.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, fresh := newRig(t, Options{}, &fakeModule{number: 2}).run(), newRig(t, Options{}, &fakeModule{number: 2})
		advance(time.Hour)
		if got := r.car.Silent(); got != 0 {
			t.Errorf("silent for %v before the first message", got)
		}
		r.connect(button)
		advance(time.Second)
		if got := r.car.Silent(); got != 0 {
			t.Errorf("silent for %v in a session", got)
		}
		r.send(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "x"}) // without devices: ends it
		r.link.receiver.LinkDown(errors.New("reset"), false)
		advance(time.Minute)
		r.car.counters.lastSeen.Store(0) // the clock of the machine was set
		if got := r.car.Silent(); got != time.Minute {
			t.Errorf("silent for %v, want a minute", got)
		}
		fresh.car.port = nil
		r.car.HandOver(fresh.car)
		if err := r.end(); err != nil {
			t.Error(err)
		}
		advance(time.Minute)
		if got := fresh.car.Silent(); got < 2*time.Minute {
			t.Errorf("the heir: silent for %v, want two minutes", got)
		}
		if err := fresh.car.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestSilenceIsMonotonic(t *testing.T) {
	c, err := New(Options{ID: carID, Logger: newLogger()})
	if err != nil {
		t.Fatal(err)
	}
	if c.born == c.born.Round(0) {
		t.Error("silence is measured from a time without monotonic reading")
	}
}

// A gateway that has not connected anew by itself is told, whatever else it sends.
func TestHandOverTellsTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newRig(t, Options{}, &fakeModule{number: 2}).run(), newRig(t, Options{}, &fakeModule{number: 2})
		old.connect(button)
		old.link.take()
		fresh.car.port = nil
		old.car.HandOver(fresh.car)
		old.car.mail.halt()
		old.status(2, button, "s2") // left to the heir
		if err := old.end(); err != nil {
			t.Error(err)
		}
		old.wantSent("disconnect")
		if err := fresh.car.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// handOverLink is a link whose goroutine has something for the receiver right before
// and right after it changes.
type handOverLink struct {
	*fakeLink
	before, after func(link.Receiver)
}

func (l *handOverLink) HandOver(r link.Receiver) {
	l.before(l.receiver)
	l.fakeLink.HandOver(r)
	l.after(l.receiver)
}

// The heir hears everything in the order of arrival: what the old car had left, what
// the link still delivered to that one, and what it delivers to the heir.
func TestHandOverKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connect := func(to link.Receiver, session string) {
			raw, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: session, Devices: []fleet.Device{button}}, carID)
			if err != nil {
				t.Error(err)
			}
			to.Message(raw, link.Delivery{})
		}
		old := newRig(t, Options{}, &fakeModule{number: 2})
		old.car.port = &handOverLink{
			fakeLink: old.link,
			before: func(r link.Receiver) {
				connect(r, "second")
				r.LinkDown(errors.New("reset"), false)
			},
			after: func(r link.Receiver) {
				r.LinkUp(link.Fresh)
				connect(r, "third")
			},
		}
		ctx, stop := context.WithCancelCause(context.Background())
		go func() { old.ended <- old.car.Run(ctx) }()
		old.link.receiver.LinkUp(link.Fresh)
		synctest.Wait()
		fresh := newRig(t, Options{}, &fakeModule{number: 2})
		heir := fresh.car
		heir.port, fresh.link = nil, old.link
		old.car.HandOver(heir)
		old.car.mail.halt() // as Run does; what comes from now on is left to the heir
		connect(old.link.receiver, "first")
		stop(ErrReload)
		if err := <-old.ended; err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, it := range heir.mail.items {
			switch it.kind {
			case session.EventLinkUp:
				got = append(got, "up")
			case session.EventLinkDown:
				got = append(got, "down")
			case session.EventMessage:
				m, err := heir.decoder.Client(it.payload)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, m.SessionID)
			}
		}
		if want := []string{"up", "first", "second", "down", "up", "third"}; !slices.Equal(got, want) {
			t.Errorf("the heir hears %q, want %q", got, want)
		}
		running, end := context.WithCancel(context.Background())
		go func() { fresh.ended <- heir.Run(running) }()
		synctest.Wait()
		if s := heir.Snapshot(); s.SessionID != "third" || !s.LinkUp {
			t.Errorf("snapshot %+v", s)
		}
		end()
		if err := <-fresh.ended; err != nil {
			t.Error(err)
		}
	})
}
