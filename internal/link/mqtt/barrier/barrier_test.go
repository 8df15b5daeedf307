package barrier

import (
	"testing"
	"time"
)

var start = time.Unix(1000, 0)

func at(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }

// The greeting is repeated until it comes back, and the reader hears of that once.
func TestRepeatedUntilBack(t *testing.T) {
	var b Barrier
	b.Begin(start, true, 0)
	if again, _ := b.Look(at(0.5)); again {
		t.Error("repeated before the first")
	}
	if n := b.Send(); n != 1 {
		t.Errorf("number %d", n)
	}
	for _, s := range []float64{1, 1.5, 4.9} {
		if again, givenUp := b.Look(at(s)); !again || givenUp {
			t.Errorf("%v s: again %v, given up %v", s, again, givenUp)
		}
	}
	if b.Back(1, true); b.Pass() {
		t.Error("passed by what was retained from an earlier time")
	}
	b.Send()
	b.Back(1, false)
	if again, _ := b.Look(at(4.95)); again {
		t.Error("repeated after it has come back")
	}
	if !b.Open() || !b.Pass() || b.Pass() || b.Open() {
		t.Error("expected to pass once")
	}
}

// The greeting of the connection before proves nothing about this one.
func TestNumbersGoOn(t *testing.T) {
	var b Barrier
	b.Begin(start, true, 0)
	b.Send()
	b.Begin(at(1), true, 0)
	if b.Back(1, false); b.Pass() {
		t.Error("passed by the greeting of the session before")
	}
	if again, _ := b.Look(at(1.5)); again {
		t.Error("repeated before the first")
	}
	if n := b.Send(); n != 2 {
		t.Errorf("number %d, expected 2", n)
	}
	if b.Back(2, false); !b.Pass() {
		t.Error("not passed")
	}
}

func TestGivenUp(t *testing.T) {
	var b Barrier
	b.Begin(start, true, 0)
	b.Send()
	if again, givenUp := b.Look(start.Add(Limit)); again || !givenUp {
		t.Errorf("again %v, given up %v", again, givenUp)
	}
	if again, givenUp := b.Look(start.Add(2 * Limit)); again || givenUp || !b.Pass() {
		t.Error("expected to be given up once, and to pass then")
	}
	b.Begin(at(10), true, 0)
	if b.Refuse(); !b.Refused() || !b.Pass() {
		t.Error("expected to pass where the topic is refused")
	}
	if b.Begin(at(20), false, 0); b.Refused() || b.Open() || b.Pass() {
		t.Error("a new session that holds nothing is open or refused")
	}
}

// The first greeting leaves when the broker has answered after the subscription: what a rival has
// said is heard before it is overwritten.
func TestProbe(t *testing.T) {
	var b Barrier
	b.Begin(start, true, 0)
	if b.Answered() {
		t.Error("sent by an answer before the subscription")
	}
	if !b.Granted() || !b.Answered() || b.Answered() {
		t.Error("expected one question, and one greeting after its answer")
	}
	b.Send()
	if b.Granted() || b.Answered() {
		t.Error("asked although the greeting was sent")
	}
}

// A broker with a full window says nothing for four looks, and that is told once.
func TestSlow(t *testing.T) {
	for _, tt := range []struct {
		name  string
		open  bool
		heard []uint64
		slow  int // the look at which it is told, -1: never
	}{
		{"quiet", true, []uint64{7, 7, 7, 7, 7, 7, 7, 7, 7}, 3},
		{"messages come", true, []uint64{8, 9, 9, 9, 10, 10, 10, 11}, -1},
		{"quiet later", true, []uint64{8, 9, 9, 9, 9, 9, 9}, 5},
		{"nothing is held", false, []uint64{7, 7, 7, 7, 7, 7}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b Barrier
			b.Begin(start, tt.open, 7)
			for i, heard := range tt.heard {
				if slow := b.Slow(heard); slow != (i == tt.slow) {
					t.Errorf("look %d: %v", i, slow)
				}
			}
		})
	}
}

func TestRival(t *testing.T) {
	type meeting struct {
		at               float64 // s
		token            string
		connection       uint32
		first            bool
		takenOver, again bool
	}
	for _, tt := range []struct {
		name     string
		meetings []meeting
	}{
		{"the process before", []meeting{{0, "a", 9, true, false, false}, {1, "a", 9, false, false, false}}},
		{"a fight", []meeting{{0, "a", 1, false, true, false}, {1, "a", 1, false, false, false}, {59, "a", 2, false, true, true}}},
		{"one that comes back in time", []meeting{{0, "a", 1, true, false, false}, {5, "a", 2, false, true, false}, {10, "a", 3, false, true, true}}},
		{"once a minute", []meeting{{0, "a", 1, false, true, false}, {60, "a", 2, false, true, false}, {120, "a", 3, false, true, false}}},
		{"three processes", []meeting{{0, "a", 5, false, true, false}, {9, "b", 1, false, true, true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r Rival
			for i, m := range tt.meetings {
				takenOver, again := r.Meet(Greeting{Connection: m.connection, Token: m.token}, at(m.at), m.first)
				if takenOver != m.takenOver || again != m.again {
					t.Errorf("meeting %d: taken over %v, again %v", i, takenOver, again)
				}
			}
		})
	}
}

// FuzzGreeting: whatever is published on the private topic does no harm.
func FuzzGreeting(f *testing.F) {
	f.Add(Greeting{3, 9, "token", "host, process 1"}.Encode())
	f.Add([]byte("1 1 1  "))
	f.Fuzz(func(t *testing.T, payload []byte) {
		g, ok := Parse(payload)
		if !ok {
			return
		}
		if again, ok := Parse(g.Encode()); !ok && len(g.Encode()) <= MaxSelf+64 || ok && again != g {
			t.Errorf("%+v became %+v", g, again)
		}
	})
}

func TestPrivate(t *testing.T) {
	for topic, private := range map[string]bool{
		"p/es-0": true, "p/es-12": true, "p/es-": true, "p/es": false, "p/other-0": false, "company/car/module_gateway": false, "": false, "x/p/es-0": false,
	} {
		if got := Private([]byte(topic), "p/", "es"); got != private {
			t.Errorf("%q: %t", topic, got)
		}
	}
}
