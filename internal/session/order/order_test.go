package order

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

var start = time.Unix(0, 0)

func status(counter uint32, bytes int) fleet.ClientMessage {
	return fleet.ClientMessage{Kind: fleet.ClientStatus, Counter: counter, Data: make([]byte, bytes)}
}

// STAT-4, STAT-7, REC-22: in whatever order statuses come, over the wrap-around, their turns come in the order
// of the counters, each once; what is left counts for nothing.
func TestTurnsComeInOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		const n = 20
		first := -uint32(rnd.IntN(n))
		o := New()
		o.Begin(first)
		next := first
		for _, i := range rnd.Perm(n) {
			o.Put(status(first+uint32(i), rnd.IntN(9)), start, false)
			counters := o.Counters()
			if !slices.IsSortedFunc(counters, func(a, b uint32) int { return int(int32(a - b)) }) || len(counters) != o.Len() {
				t.Fatalf("seed %d: %d wait, in the order %d", seed, o.Len(), counters)
			}
			for m, ok := o.Waiting(o.Expected); ok; m, ok = o.Waiting(o.Expected) {
				if m.Counter != next {
					t.Fatalf("seed %d: the turn of %d came, expected %d", seed, m.Counter, next)
				}
				next++
				o.Take(&m)
			}
		}
		if m := status(next, 0); next != first+n || o.Len() != 0 || o.Full(&m, 1, 0) {
			t.Fatalf("seed %d: %d turns came, %d statuses with %d bytes wait", seed, next-first, o.Len(), o.bytes)
		}
	}
}

// STAT-5: a gap was seen when the first status behind it came, or when it is judged anew.
func TestGapIsSeenWithTheFirstStatusBehindIt(t *testing.T) {
	o := New()
	o.Begin(1)
	o.Put(status(3, 0), start.Add(time.Second), false)
	o.Put(status(2, 0), start.Add(2*time.Second), false)
	if at := o.SeenMissing(); !at.Equal(start.Add(time.Second)) {
		t.Errorf("seen at %v, expected a second", at.Sub(start))
	}
	o.SeeNow(start.Add(time.Minute))
	if at := o.SeenMissing(); !at.Equal(start.Add(time.Minute)) {
		t.Errorf("seen at %v, expected a minute", at.Sub(start))
	}
}

// RES-9: a status was answered if it is one of the session's, its turn has come, and it was not passed over.
func TestAnswered(t *testing.T) {
	o := New()
	o.Begin(1<<32 - 2)
	for range 4 {
		m := status(o.Expected, 0)
		o.Put(m, start, false)
		o.Take(&m)
	}
	o.Pass(0)
	for counter, want := range map[uint32]bool{1<<32 - 3: false, 1<<32 - 2: true, 1<<32 - 1: true, 0: false, 1: true, 2: false} {
		if o.Answered(counter) != want {
			t.Errorf("status %d answered: %t, expected %t", counter, !want, want)
		}
	}
}

// What comes again is not recorded and can be dropped, until it is acknowledged. What was recorded is restored.
func TestWhatComesAgain(t *testing.T) {
	o := New()
	o.Begin(1)
	for i, again := range []bool{true, false, true} {
		o.Put(status(uint32(4-i), 1), start, again)
	}
	var r record.Session
	o.Record(&r)
	if len(r.Ahead) != 1 || r.Ahead[0].Counter != 3 {
		t.Errorf("recorded: %+v, expected 3 alone", r.Ahead)
	}
	restored := New()
	restored.Restore(&r, start)
	if !restored.Started || restored.Expected != 1 || !slices.Equal(restored.Counters(), []uint32{3}) {
		t.Errorf("restored: %+v", restored)
	}
	if o.Put(status(1, 1), start, false); o.Untold() != 2 { // 2 comes again
		t.Errorf("the broker was not told of %d, expected 2", o.Untold())
	}
	if got := o.Acknowledge(); !slices.Equal(got, []uint32{2, 4}) {
		t.Errorf("acknowledged %d, expected 2 and 4", got)
	}
	if o.Untold() != 5 {
		t.Errorf("the broker was not told of %d, expected 5", o.Untold())
	}
	o.Put(status(9, 1), start, true)
	if counter, changed, waits := o.Leave(fleet.DeviceID{}); counter != 9 || changed || !waits {
		t.Errorf("a device leaves with status %d, changed: %t, waits: %t; expected 9, which comes again", counter, changed, waits)
	}
	if m, _ := o.Waiting(9); m.State != fleet.StateDisconnect {
		t.Errorf("the device does not leave with %+v", m)
	}
	if counter, changed, waits := o.Leave(fleet.DeviceID{Role: "r"}); waits || changed {
		t.Errorf("a device without statuses leaves with %d", counter)
	}
	if o.DropAgain(); !slices.Equal(o.Counters(), []uint32{1, 2, 3, 4}) || o.bytes != 4 {
		t.Errorf("left: %d with %d bytes, expected 1 to 4 with 4", o.Counters(), o.bytes)
	}
}
