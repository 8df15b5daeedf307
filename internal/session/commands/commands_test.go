package commands

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"external-server/internal/fleet"
)

// CMD-11, CMD-20, CMD-21, REC-22: whatever the order of the responses, counters are consecutive
// over the wrap-around, commands leave in their order and only with a response, and what each
// module has under way is what was added and has not left.
func TestQueue(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 1))
	q := Queue{Next: 1<<32 - 20}
	first := q.Next
	q.Begin()
	out := uint32(0) // how many have left
	for range 2000 {
		switch rnd.IntN(3) {
		case 0:
			want := q.Next
			c := Sent{Command: fleet.Command{Data: make([]byte, rnd.IntN(9))}, From: int32(rnd.IntN(3)), Fetched: rnd.IntN(4) > 0}
			if got := q.Add(c); got != want || q.Next != want+1 {
				t.Fatalf("seed %d: command %d, the next one is %d; expected %d", seed, got, q.Next, want)
			}
		case 1:
			counter := q.Next - uint32(rnd.IntN(40))
			c := q.Find(counter)
			if waits := counter-first >= out && counter-first < q.Next-first; waits != (c != nil) {
				t.Fatalf("seed %d: command %d found %t, it waits: %t", seed, counter, c != nil, waits)
			}
			if c != nil {
				c.Responded = true
			}
		case 2:
			c, counter, ok := q.Pop()
			if ok && (!c.Responded || counter != first+out) {
				t.Fatalf("seed %d: command %d left, responded to: %t; expected %d", seed, counter, c.Responded, first+out)
			}
			if ok {
				out++
			} else if w := q.Waiting(); len(w) > 0 && w[0].Responded {
				t.Fatalf("seed %d: the oldest command was responded to and stays", seed)
			}
		}
		unacked := 0
		for module := range int32(3) {
			n, bytes := q.Load(module)
			for _, c := range q.Waiting() {
				if c.Fetched && c.From == module {
					n, bytes = n-1, bytes-len(c.Command.Data)
					unacked++
				}
			}
			if n != 0 || bytes != 0 {
				t.Fatalf("seed %d: the load of module %d is wrong by %d commands and %d bytes", seed, module, n, bytes)
			}
		}
		if q.Unacked() != unacked || !q.Ours(first) != (q.Next == first) || q.Ours(q.Next) {
			t.Fatalf("seed %d: %d commands of modules are unacknowledged, expected %d", seed, q.Unacked(), unacked)
		}
	}
}

// REC-13, REC-22, SEQ-31: what is held back is in the order of the configuration, and the oldest
// are dropped when there is too much.
func TestPending(t *testing.T) {
	place := func(module int32) int { return int(-module) } // the higher number comes first
	some := func(data ...byte) (out []fleet.Command) {
		for _, d := range data {
			out = append(out, fleet.Command{Data: make([]byte, d)})
		}
		return out
	}
	var p Pending
	p.Add(1, place, some(1, 2), []byte("one"), 3)
	p.Add(3, place, some(5), nil, 3)
	p.Add(2, place, some(7), []byte("seven"), 3)
	if dropped := p.Add(1, place, some(3, 4), nil, 3); dropped != 1 {
		t.Errorf("dropped %d commands, expected 1", dropped)
	}
	var order []int32
	for _, b := range p {
		order = append(order, b.Module)
	}
	if !slices.Equal(order, []int32{3, 2, 1}) {
		t.Errorf("modules in the order %v", order)
	}
	if n, bytes := p.Load(1); n != 3 || bytes != 2+3+4 {
		t.Errorf("module 1 has %d commands with %d bytes, expected 3 with 9", n, bytes)
	}
	if last := p[2]; string(last.Position) != "one" || len(last.Commands[0].Data) != 2 {
		t.Errorf("module 1 has %+v: expected the position behind the last batch that had one, and the newest commands", last)
	}
	p[2].Keep(some(4))
	if n, bytes := p.Load(1); n != 1 || bytes != 4 || p.Len() != 3 {
		t.Errorf("of module 1 remain %d commands with %d bytes, expected 1 with 4; %d in all, expected 3", n, bytes, p.Len())
	}
	if n, bytes := p.Load(9); n != 0 || bytes != 0 {
		t.Errorf("a module without commands has %d with %d bytes", n, bytes)
	}
}
