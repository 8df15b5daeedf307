package outbox

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func text(s string) Message { return Message{Payload: []byte(s)} }

// drain takes everything out, in the order in which it would be written.
func drain(l *Line) (out []string) {
	for {
		b, m := l.Next()
		if b == nil {
			return out
		}
		out = append(out, b.TopicOf(m)+" "+string(m.Payload))
	}
}

func newLine() *Line { return &Line{MaxMessages: 3, MaxBytes: 10} }

// A car that has much to be sent delays the others by one message each.
func TestBoxesTakeTurns(t *testing.T) {
	l, a, b := newLine(), &Box{Topic: "a"}, &Box{Topic: "b"}
	for _, s := range []string{"1", "2", "3"} {
		l.Push(a, text(s))
	}
	l.Push(b, text("1"))
	l.Push(b, text("2"))
	if l.Queued() != 5 || l.Idle() {
		t.Errorf("%d queued, idle %v", l.Queued(), l.Idle())
	}
	if got, want := drain(l), []string{"a 1", "b 1", "a 2", "b 2", "a 3"}; !slices.Equal(got, want) {
		t.Errorf("%q, expected %q", got, want)
	}
	if l.Queued() != 0 || !l.Idle() || !a.Empty() {
		t.Errorf("%d queued, idle %v", l.Queued(), l.Idle())
	}
}

// A box has bounds, and a full one still takes a notification.
func TestBounds(t *testing.T) {
	l, b := newLine(), &Box{Topic: "a", Bye: "bye"}
	if l.HasRoom(b, 11) || !l.HasRoom(b, 10) {
		t.Error("expected room for 10 bytes")
	}
	l.Push(b, text("1234567"))
	if l.HasRoom(b, 4) || !l.HasRoom(b, 3) {
		t.Error("expected room for 3 bytes more")
	}
	l.Push(b, text("8"))
	l.Push(b, text("9"))
	if l.HasRoom(b, 0) {
		t.Error("room for a fourth message")
	}
	for n := 0; l.HasRoomToNotify(b); n++ {
		if n == extraNotifications {
			t.Fatal("notifications without bound")
		}
		l.Push(b, Message{Kind: Notification})
	}
	if l.Queued() != 3+extraNotifications {
		t.Errorf("%d queued", l.Queued())
	}
	if l.Next(); l.HasRoom(b, 0) {
		t.Error("room although the notifications fill the box")
	}
	drain(l)
	if !l.HasRoom(b, 10) {
		t.Error("no room in an empty box")
	}
}

// What is discarded is not sent, but what was acknowledged with it is acknowledged, in
// order; notifications stay.
func TestDiscard(t *testing.T) {
	l, a, b := newLine(), &Box{Topic: "a", Bye: "bye"}, &Box{Topic: "b"}
	l.Push(a, text("old"))
	l.Push(a, Message{Payload: []byte("answer"), Ack: 7})
	l.Push(a, Message{Kind: Notification})
	if !l.Acknowledge(a, 8) || l.Acknowledge(b, 9) {
		t.Error("an acknowledgement waits behind what is queued, and for nothing else")
	}
	if n := l.Discard(a); n != 2 || l.Queued() != 3 {
		t.Errorf("%d discarded, %d left", n, l.Queued())
	}
	var got []Message
	for {
		box, m := l.Next()
		if box == nil {
			break
		}
		got = append(got, m)
	}
	if want := []Message{{Ack: 7, Kind: Ack}, {Kind: Notification}, {Ack: 8, Kind: Ack}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, expected %+v", got, want)
	}
	l.Push(a, text("1"))
	l.Discard(a)
	l.Push(b, text("2"))
	l.Push(a, text("3"))
	if got, want := drain(l), []string{"a 3", "b 2"}; !slices.Equal(got, want) {
		t.Errorf("%q, expected %q", got, want)
	}
	l.Push(a, text("1"))
	if l.Discard(a); l.Idle() {
		t.Error("a box that was emptied is passed over when it is its turn, not before")
	}
	if b, _ := l.Next(); b != nil || !l.Idle() {
		t.Error("something left of what was discarded")
	}
}

func TestClear(t *testing.T) {
	l, a, b := newLine(), &Box{Topic: "a", Bye: "bye"}, &Box{Topic: "b"}
	l.Push(a, text("1"))
	l.Push(a, text("2"))
	l.Push(b, text("3"))
	if n := l.Clear(); n != 3 || !l.Idle() || l.Queued() != 0 || !a.Empty() || !b.Empty() {
		t.Errorf("%d cleared, %d left", n, l.Queued())
	}
	l.Push(b, text("4"))
	l.Push(a, Message{Kind: Notification})
	if got, want := drain(l), []string{"b 4", "bye "}; !slices.Equal(got, want) {
		t.Errorf("%q, expected %q", got, want)
	}
}

// Whatever happens, each box keeps its order, and nothing is lost or sent twice.
func TestAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	l := &Line{MaxMessages: 1 << 10, MaxBytes: 1 << 20}
	boxes, model := make([]Box, 4), make([][]uint16, 4)
	id := uint16(0)
	for range 20_000 {
		switch i, what := r.IntN(4), r.IntN(100); {
		case what < 50:
			id++
			l.Push(&boxes[i], Message{Payload: []byte("x"), Ack: id})
			model[i] = append(model[i], id)
		case what < 55:
			if id++; l.Acknowledge(&boxes[i], id) {
				model[i] = append(model[i], id)
			}
		case what < 57:
			l.Discard(&boxes[i]) // the acknowledgements stay
		case what < 58:
			l.Clear()
			clear(model)
		default:
			b, m := l.Next()
			if b == nil {
				if total(model) > 0 {
					t.Fatalf("nothing waits, expected %v", model)
				}
				continue
			}
			n := 0
			for k := range boxes {
				if &boxes[k] == b {
					n = k
				}
			}
			if len(model[n]) == 0 || model[n][0] != m.Ack {
				t.Fatalf("box %d sends %d, expected the first of %v", n, m.Ack, model[n])
			}
			model[n] = model[n][1:]
		}
		if l.Queued() != total(model) {
			t.Fatalf("%d queued, expected %d", l.Queued(), total(model))
		}
	}
}

func total(model [][]uint16) (n int) {
	for _, m := range model {
		n += len(m)
	}
	return n
}
