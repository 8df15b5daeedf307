package replica

import (
	"testing"
	"time"
)

// With a limit of 1 s the broker is asked after 0.6 s without an answer and is gone after 1 s;
// an answer ends that, and time in which this process stood still counts for little.
func TestContact(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	type look struct {
		now, answer float64 // seconds
		probe       bool
		since       float64 // of the silence; 0: none
	}
	for _, tt := range []struct {
		name  string
		looks []look
	}{
		{"silence", []look{
			{0, 0, false, 0}, {0.25, 0, false, 0}, {0.5, 0, false, 0}, {0.75, 0, true, 0}, {0.95, 0, true, 0}, {1, 0, true, 0.001}, {1.25, 0, true, 0.001}, {1.5, 1.4, false, 0},
		}},
		{"answers", []look{{0, 0, false, 0}, {0.25, 0.2, false, 0}, {0.5, 0.4, false, 0}, {0.75, 0.7, false, 0}, {1, 0.7, false, 0}, {1.25, 0.7, false, 0}, {1.5, 0.7, true, 0}, {1.75, 0.7, true, 0.7}}},
		{"halted", []look{{0, 0, false, 0}, {0.25, 0, false, 0}, {9.25, 0, true, 0}, {9.5, 0, true, 8.5}, {9.75, 9.6, false, 0}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := contact{limit: time.Second, last: start, answer: start}
			for _, l := range tt.looks {
				c.look(at(l.now), at(l.answer))
				if c.wantsProbe() != l.probe {
					t.Errorf("at %v s: asks %v, want %v", l.now, c.wantsProbe(), l.probe)
				}
				lost := c.lost()
				switch {
				case (lost != nil) != (l.since > 0):
					t.Errorf("at %v s: %v", l.now, lost)
				case lost != nil && lost.Since.Sub(at(l.since)).Abs() > 2*time.Millisecond:
					t.Errorf("at %v s: silent since %v, want %v s", l.now, lost.Since.Sub(start), l.since)
				}
			}
		})
	}
}
