package owed

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"external-server/internal/fleet"
)

var start = time.Unix(0, 0)

// hold returns an answer with a limit of 10 s, of which the broker is told after 1 s.
func hold(counter uint32, awaited bool, number uint64) Answer {
	a := Answer{Awaited: awaited, Number: number, By: start.Add(10 * time.Second), TellBy: start.Add(time.Second)}
	a.Counter, a.Device = counter, fleet.Device{Module: 1, Role: "r"}
	return a
}

func due(h *Answers, after time.Duration, ordered bool) (counters []uint32) {
	h.TakeDue(start.Add(after), ordered, func(a Answer, _, _ bool) { counters = append(counters, a.Counter) })
	return counters
}

// RES-26: answers of normal communication leave in the order of their counters, over the wrap-around,
// each once, and none before its module has taken the status or let the limit pass.
func TestAnswersLeaveInOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		var h Answers
		const n = 20
		first := -uint32(rnd.IntN(n))
		for _, i := range rnd.Perm(n) {
			h.Add(hold(first+uint32(i), true, uint64(i)), true)
		}
		var left []uint32
		taken := 0
		for taken < n {
			taken += 1 + rnd.IntN(3)
			h.Delivered(1, uint64(min(taken, n)-1))
			left = append(left, due(&h, 0, true)...)
			if len(left) != min(taken, n) {
				t.Fatalf("seed %d: %d answers have left, the module has taken %d", seed, len(left), taken)
			}
		}
		for i, counter := range left {
			if counter != first+uint32(i) {
				t.Fatalf("seed %d: answers left in the order %d, expected from %d on", seed, left, first)
			}
		}
	}
}

// RES-10: the broker is told of a status when its time has come, whatever becomes of the answer, and of all when the
// connection on which they came is lost.
func TestWhatTheBrokerWasNotTold(t *testing.T) {
	var h Answers
	untold := func(want uint32, any bool) {
		t.Helper()
		if got, ok := h.Untold(); ok != any || got != want {
			t.Errorf("the broker was not told of %d (%t), expected %d (%t)", got, ok, want, any)
		}
	}
	untold(0, false)
	for n := range uint32(3) {
		a := hold(n+1, true, uint64(n))
		a.TellBy = start.Add(time.Duration(n) * time.Second)
		h.Add(a, true)
	}
	untold(1, true)
	var told []uint32
	h.Tell(start.Add(time.Second), func(counter uint32) { told = append(told, counter) })
	if untold(3, true); !slices.Equal(told, []uint32{1, 2}) || h.Len() != 3 {
		t.Errorf("told of %d with %d answers held, expected 1 and 2 with 3", told, h.Len())
	}
	h.ToldAll()
	untold(0, false)
}

// GW-15: in the connect sequence an answer waits for its own module only.
func TestAnswersOfTheSequence(t *testing.T) {
	var h Answers
	h.Add(hold(7, true, 0), false)
	h.Add(hold(3, false, 0), false)
	if got := due(&h, 0, false); !slices.Equal(got, []uint32{3}) {
		t.Errorf("left: %d, expected the one that no module has to take", got)
	}
	if got := due(&h, 10*time.Second, false); !slices.Equal(got, []uint32{7}) || h.Len() != 0 {
		t.Errorf("left at the limit: %d, expected 7", got)
	}
}

// The broker is told once that a status was handled, and the end of the session tells the rest.
func TestBrokerIsToldOnce(t *testing.T) {
	var h Answers
	late := hold(2, true, 1)
	late.TellBy = start.Add(time.Hour)
	h.Add(hold(1, true, 0), true)
	h.Add(late, true)
	var told []uint32
	tell := func(counter uint32) { told = append(told, counter) }
	for range 2 {
		h.Tell(start.Add(time.Second), tell)
	}
	if !slices.Equal(told, []uint32{1}) {
		t.Errorf("told of %d, expected 1 once", told)
	}
	h.Forget(tell)
	if !slices.Equal(told, []uint32{1, 2}) || h.Len() != 0 {
		t.Errorf("told of %d at the end, expected 2 besides", told)
	}
}

// Another server is told of a front part without gaps: up to the last status that does not come again.
func TestCarriedHasNoGaps(t *testing.T) {
	var h Answers
	for i := range uint32(4) {
		a := hold(i, true, uint64(i))
		a.Told = i == 1
		h.Add(a, true)
	}
	owes, left := h.Carried()
	if len(owes) != 2 || owes[1].Counter != 1 || len(left) != 2 {
		t.Errorf("carried %+v and %d statuses, expected those of 0 and 1", owes, len(left))
	}
	h.Delivered(1, 0)
	if owes, left = h.Carried(); len(owes) != 2 || len(left) != 1 || left[0].Number != 1 {
		t.Errorf("carried %+v and statuses %+v, expected no status that its module has taken", owes, left)
	}
	h.DeviceLeft(fleet.DeviceID{Module: 1, Role: "r"})
	if owes, _ = h.Carried(); len(owes) != 4 {
		t.Errorf("carried %d answers, expected all: their device has left", len(owes))
	}
}
