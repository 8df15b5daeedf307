package liveness

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
			var w Witness
			for i, l := range tt.looks {
				others := start.Add(time.Duration(l.others * float64(time.Second)))
				if got := w.Look(Signs{l.answered, l.reads}, others, !l.busy, h).Seconds(); got != l.silent {
					t.Errorf("look %d: silent for %v s, want %v s", i, got, l.silent)
				}
			}
		})
	}
}

// Each look says what has come until then; the keepalive is 15 s.
func TestPinger(t *testing.T) {
	const keepAlive = 15 * time.Second
	start := time.Unix(1000, 0)
	type look struct {
		at    float64 // s
		signs Signs
		ask   bool
		lost  bool
	}
	for _, tt := range []struct {
		name      string
		heartbeat time.Duration
		looks     []look
	}{
		{"asked after two thirds, lost after the third", 0, []look{{9, Signs{}, false, false}, {10, Signs{}, true, false}, {14, Signs{}, false, false}, {15, Signs{}, false, true}}},
		{"whatever comes is an answer", 0, []look{{10, Signs{}, true, false}, {12, Signs{Reads: 1}, false, false}, {20, Signs{Reads: 1}, true, false}}},
		{"what has come before is none", 0, []look{{5, Signs{Reads: 7}, false, false}, {10, Signs{Reads: 7}, true, false}, {15, Signs{Reads: 7}, false, true}}},
		{"with heartbeat messages are no answer", 2 * time.Second, []look{{2, Signs{Reads: 1}, true, false}, {9, Signs{Reads: 2}, false, false}, {17, Signs{Reads: 3}, false, true}}},
		{"who answers other things is not asked", 2 * time.Second, []look{{1, Signs{Answered: 1}, false, false}, {2, Signs{Answered: 2}, false, false}, {3, Signs{Answered: 2}, false, false}, {4, Signs{Answered: 2}, true, false}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := NewPinger(tt.heartbeat, keepAlive, start)
			has := Signs{}
			next := tt.looks
			for now := start; len(next) > 0; now = now.Add(p.Period()) {
				at := start.Add(time.Duration(next[0].at * float64(time.Second)))
				if now.Before(at) {
					if ask, err := p.Look(now, has); ask || err != nil {
						t.Fatalf("%v: asked %v, lost %v, before %v", now.Sub(start), ask, err, at.Sub(start))
					}
					continue
				}
				has = next[0].signs
				if ask, err := p.Look(now, has); ask != next[0].ask || (err != nil) != next[0].lost {
					t.Errorf("%v: asked %v, lost %v", now.Sub(start), ask, err)
				}
				next = next[1:]
			}
		})
	}
}

// A process that stood still gives the broker the time that it could not hear.
func TestPingerAfterHalt(t *testing.T) {
	start := time.Unix(1000, 0)
	p := NewPinger(0, 15*time.Second, start)
	for i := range 11 {
		if _, err := p.Look(start.Add(time.Duration(i)*time.Second), Signs{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Look(start.Add(time.Minute), Signs{}); err != nil {
		t.Errorf("asked 1 s before the halt: %v", err)
	}
	lost := start
	for now := start.Add(61 * time.Second); lost == start; now = now.Add(time.Second) {
		if _, err := p.Look(now, Signs{}); err != nil {
			lost = now
		}
	}
	if after := lost.Sub(start); after < 64*time.Second || after > 66*time.Second {
		t.Errorf("lost after %v", after)
	}
}

// The answer to an earlier question proves nothing about the time of a later one.
func TestPings(t *testing.T) {
	var p Pings
	p.Ask()
	at := time.Unix(1000, 0)
	if !p.Prove(at) || p.Prove(at.Add(time.Second)) {
		t.Error("expected one question at a time")
	}
	p.Ask()
	p.Answer()
	if !p.Proved().IsZero() || !p.Unanswered() {
		t.Errorf("proved at %v by the answer to the question before", p.Proved())
	}
	p.Answer()
	if !p.Proved().Equal(at) || p.Unanswered() {
		t.Errorf("proved at %v, asked at %v", p.Proved(), at)
	}
	p.Ask()
	if p.Answer(); !p.Proved().Equal(at) {
		t.Errorf("proved at %v by an answer that was not to prove", p.Proved())
	}
	if !p.Prove(at.Add(time.Minute)) {
		t.Error("no further question")
	}
}

// Connections that were made at different moments look together from their first look on.
func TestUntilNext(t *testing.T) {
	start := time.Now()
	for _, period := range []time.Duration{250 * time.Millisecond, 750 * time.Millisecond, time.Second} {
		var first time.Time
		for i := range 32 {
			made := start.Add(time.Duration(i) * period / 32)
			wait := UntilNext(made, period)
			if wait <= 0 || wait > period {
				t.Errorf("period %v: the first look comes after %v", period, wait)
			}
			look := made.Add(wait)
			if first.IsZero() {
				first = look
			}
			if d := look.Sub(first); d != 0 && d != period {
				t.Errorf("period %v: a look is %v after the first one", period, d)
			}
			if again := UntilNext(look, period); again != period {
				t.Errorf("period %v: the second look comes after %v", period, again)
			}
		}
	}
}
