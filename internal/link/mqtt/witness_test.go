package mqtt

import (
	"testing"
	"time"
)

// A connection is silent for as long as others are answered and it is not. A broker that answers no client, a
// process that stood still, and one that has not asked or not read, are no silence of the connection.
func TestWitness(t *testing.T) {
	const h = 500 * time.Millisecond
	start := time.Unix(1000, 0)
	type look struct {
		others   float64 // s
		answered int64
		reads    uint64
		busy     bool
		silent   float64 // s
	}
	for _, tt := range []struct {
		name  string
		looks []look
	}{
		{"dead among others", []look{{1, 0, 0, false, 0}, {1.25, 0, 0, false, 0.25}, {1.5, 0, 0, false, 0.5}, {1.75, 0, 0, false, 0.75}, {2, 0, 0, false, 1}}},
		{"answered as well", []look{{1, 1, 1, false, 0}, {1.5, 1, 1, false, 0.5}, {2, 2, 2, false, 0}, {2.5, 2, 2, false, 0.5}}},
		{"messages come", []look{{1, 1, 1, false, 0}, {1.5, 1, 2, false, 0}, {2, 1, 3, false, 0}, {2.5, 1, 4, false, 0}}},
		{"no one is answered", []look{{1, 0, 0, false, 0}, {1, 0, 0, false, 0}, {1, 0, 0, false, 0}}},
		{"the broker or this process stood still", []look{{1, 0, 0, false, 0}, {21, 0, 0, false, 0.5}, {21.25, 1, 1, false, 0}}},
		{"not asked, or not read", []look{{1, 0, 0, true, 0}, {1.5, 0, 0, true, 0}, {2, 0, 0, true, 0}, {2.5, 0, 0, false, 0.5}}},
		{"the others' connections are new", []look{{2, 0, 0, false, 0}, {1, 0, 0, false, 0}, {2.25, 0, 0, false, 0.25}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w witness
			for i, l := range tt.looks {
				others := start.Add(time.Duration(l.others * float64(time.Second)))
				if got := w.look(signs{l.answered, l.reads}, others, !l.busy, h).Seconds(); got != l.silent {
					t.Errorf("look %d: silent for %v s, want %v s", i, got, l.silent)
				}
			}
		})
	}
}
