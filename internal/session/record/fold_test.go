package record

import (
	"testing"

	"external-server/internal/fleet"
)

// What a process has begun with is known to the next ones, also from a compacted journal,
// and nothing of a car that was forgotten.
func TestTriedAndForgotten(t *testing.T) {
	f := NewFold()
	apply := func(f *Fold, record []byte) {
		t.Helper()
		if err := f.Apply(record); err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint64(3) {
		apply(f, Begin(nil, "c/a").Left(&Left{Device: fleet.Device{Module: int32(n % 2)}, Data: []byte{byte(n)}, Number: n}))
	}
	apply(f, Begin(nil, "c/a").Tried(0, 0, 1))
	apply(f, Begin(nil, "c/a").Tried(0, 0, 1))
	apply(f, Begin(nil, "c/a").Tried(1, 7, 1)) // is not left
	again := NewFold()
	f.Snapshot(func(r []byte) { apply(again, r) })
	for _, f := range []*Fold{f, again} {
		known, err := f.Car("c/a")
		if err != nil {
			t.Fatal(err)
		}
		heads := known.Heads()
		if len(heads) != 2 || heads[0].Tried != 2 || heads[1].Tried != 0 {
			t.Errorf("heads %+v", heads)
		}
		known.Drop(0)
		if heads := known.Heads(); len(known.Left) != 2 || len(heads) != 2 || heads[1].Number != 2 {
			t.Errorf("without the first, heads %+v", heads)
		}
		apply(f, Begin(nil, "c/a").Forgotten())
		if known, _ := f.Car("c/a"); known != nil || len(f.Cars()) != 0 {
			t.Errorf("a forgotten car: %+v", known)
		}
	}
}
