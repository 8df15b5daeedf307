package fleetapi

import (
	"testing"
	"time"
)

func TestGuard(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	type call struct {
		at      int // ms
		pause   int // ms
		delayed bool
	}
	tests := []struct {
		name     string
		settings guardSettings
		calls    []call
	}{
		{"MM-6 long polls never reach it", guardSettings{3, ms(1000), ms(500), ms(220)}, []call{
			{at: 5000}, {at: 10000}, {at: 15000}, {at: 20000}, {at: 25000},
		}},
		{"MM-6 K polls within P, then K slow ones, then normal", guardSettings{3, ms(1000), ms(500), ms(220)}, []call{
			{at: 0}, {at: 10}, {at: 20, pause: 500, delayed: true},
			{at: 530, pause: 220}, {at: 760, pause: 220}, {at: 990, pause: 220},
			// two of the slow ones are remembered
			{at: 1220, pause: 500, delayed: true},
		}},
		{"MM-6 exactly P apart is not over", guardSettings{2, ms(100), ms(7), ms(3)}, []call{
			{at: 0}, {at: 100}, {at: 199, pause: 7, delayed: true},
		}},
		{"MM-6 the window slides", guardSettings{3, ms(100), ms(7), ms(3)}, []call{
			{at: 0}, {at: 90}, {at: 120}, {at: 150, pause: 7, delayed: true}, {at: 151, pause: 3}, {at: 152, pause: 3}, {at: 153, pause: 3}, {at: 400},
		}},
		{"MM-9 K and P of 0 never delay", guardSettings{0, 0, ms(7), ms(3)}, []call{
			{at: 0}, {at: 0}, {at: 0}, {at: 1},
		}},
		{"K of 0 with a period delays every second poll", guardSettings{0, ms(10), ms(7), ms(3)}, []call{
			{at: 0, pause: 7, delayed: true}, {at: 1, pause: 3}, {at: 1000, pause: 7, delayed: true}, {at: 2000, pause: 3},
		}},
		{"K of 1", guardSettings{1, ms(10), ms(7), ms(3)}, []call{
			{at: 0, pause: 7, delayed: true}, {at: 9, pause: 3}, {at: 100, pause: 7, delayed: true},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := guard{guardSettings: tt.settings}
			start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			for i, c := range tt.calls {
				pause, delayed := g.after(start.Add(ms(c.at)))
				if pause != ms(c.pause) || delayed != c.delayed {
					t.Fatalf("poll %d at %d ms: pause %v, delayed %v; want %v, %v", i, c.at, pause, delayed, ms(c.pause), c.delayed)
				}
			}
		})
	}
}
