package car

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/link"
	"external-server/internal/session"
)

func newLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A car that cannot keep up drops and counts messages, by number and by bytes;
// what is not a message of the gateway always fits.
func TestMailboxIsBounded(t *testing.T) {
	m := newMailbox(3, 100)
	message := func(size int) item { return item{kind: session.EventMessage, payload: make([]byte, size)} }
	for i, c := range []struct {
		it   item
		want verdict
	}{
		{message(150), taken}, // one message always fits
		{message(1), full},
		{item{kind: session.EventLinkDown}, taken},
	} {
		if got, _ := m.put(c.it); got != c.want {
			t.Errorf("item %d: %v, want %v", i, got, c.want)
		}
	}
	if got, ok := m.take(mail{}); !ok || len(got.items) != 2 {
		t.Errorf("%d items", len(got.items))
	}
	for i := range 5 {
		want := taken
		if i >= 3 {
			want = full
		}
		if got, _ := m.put(message(1)); got != want {
			t.Errorf("message %d: %v", i, got)
		}
	}
	if got, _ := m.put(item{kind: session.EventAdmission}); got != taken {
		t.Errorf("admission: %v", got)
	}
	m.putCommands(7)
	m.putCommands(7)
	if got, ok := m.take(mail{}); !ok || len(got.items) != 4 || len(got.modules) != 1 {
		t.Errorf("%d items, modules %v", len(got.items), got.modules)
	}
	m.close()
	if got, _ := m.put(message(1)); got != gone {
		t.Errorf("after close: %v", got)
	}
}

// One goroutine at a time works: the first that puts something while none does. After
// halt none begins, and idle says when the last one has ended.
func TestOneWorksAtATime(t *testing.T) {
	m := newMailbox(10, 100)
	message := item{kind: session.EventMessage}
	put := func(it item, want bool) {
		t.Helper()
		if v, work := m.put(it); v != taken || work != want {
			t.Errorf("verdict %v, work %v, want %v", v, work, want)
		}
	}
	put(message, false) // not open yet
	if !m.open() {
		t.Error("no goroutine is told to handle what came before")
	}
	put(message, false)
	got, ok := m.take(mail{})
	if !ok || len(got.items) != 2 {
		t.Errorf("%d items", len(got.items))
	}
	if _, ok := m.take(mail{}); ok {
		t.Error("there is something in an empty mailbox")
	}
	put(message, true) // his, not queued
	if m.putCommands(1) || m.putDue() || m.poke() {
		t.Error("two work")
	}
	if got, ok := m.take(mail{}); !ok || len(got.items) != 0 || len(got.modules) != 1 || !got.due {
		t.Errorf("%+v", got)
	}
	idle := m.halt()
	select {
	case <-idle:
		t.Error("idle although a goroutine works")
	default:
	}
	put(message, false)
	if _, ok := m.take(mail{}); ok {
		t.Error("work goes on after halt")
	}
	<-idle
	if put(message, false); m.putDue() {
		t.Error("a goroutine begins after halt")
	}
	if !m.resume() {
		t.Error("no goroutine is told to handle what came during the halt")
	}
	if got, ok := m.take(mail{}); !ok || len(got.items) != 2 || !got.due {
		t.Errorf("%+v", got)
	}
}

func TestBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMailbox(1000, 1<<20)
		m.setRate(10, 0)
		send := func(n int) (ok int) {
			for range n {
				if v, _ := m.put(item{kind: session.EventMessage}); v == taken {
					ok++
				}
			}
			return ok
		}
		if n := send(100); n != 20 {
			t.Errorf("%d messages at once, want a burst of 20", n)
		}
		time.Sleep(500 * time.Millisecond)
		if n := send(100); n != 5 {
			t.Errorf("%d messages after half a second at 10/s", n)
		}
		time.Sleep(time.Hour)
		if n := send(100); n != 20 {
			t.Errorf("%d messages after an hour", n)
		}
		m.setRate(0, 0)
		if n := send(100); n != 100 {
			t.Errorf("%d messages without a limit", n)
		}
	})
}

// What is not a protocol message is counted and logged, rarely, and changes
// nothing (CONN-32).
func TestUnreadableMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		io := &fakeModule{number: 2}
		r := newRig(t, Options{Limits: Limits{Payload: 1000}}, io).run()
		r.connect(button)
		r.link.take()
		for range 100 {
			r.link.receiver.Message([]byte("not protobuf at all"), link.Delivery{})
			r.link.receiver.Message(make([]byte, 1001), link.Delivery{})
			synctest.Wait()
		}
		r.status(2, button, "s2")
		r.wantSent("statusResponse 2")
		if s := r.seat.Snapshot(); s.Unreadable != 100 || s.TooLarge != 100 || s.Overflow != 0 {
			t.Errorf("snapshot %+v", s)
		}
		r.wantLogged("cannot be read", 1)
		r.wantLogged("too large", 1)
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
}

// Before Run no goroutine empties the mailbox; it must not grow without bound.
func TestOverflowIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{MailboxSize: 10}, &fakeModule{number: 2})
		for range 25 {
			r.link.receiver.Message([]byte{0xff}, link.Delivery{})
		}
		if s := r.seat.Snapshot(); s.Overflow != 15 {
			t.Errorf("snapshot %+v", s)
		}
		r.wantLogged("faster than they are handled", 1)
		r.run()
		if s := r.seat.Snapshot(); s.Unreadable != 10 {
			t.Errorf("snapshot %+v", s)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if strings.Contains(r.log.String(), "level=ERROR") {
			t.Error(r.log.String())
		}
	})
}
