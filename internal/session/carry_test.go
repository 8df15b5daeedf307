package session

import (
	"bytes"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/owed"
	"external-server/internal/session/record"
)

// carriedOf returns what another server gets of a car's session that has everything.
func carriedOf(tb testing.TB, car string) []byte {
	tb.Helper()
	records := journaled(tb, car)
	return append(record.BeginCarried(nil), records[len(records)-1]...)
}

// What is carried of one car is not taken for another one, whatever topic it was found at; nor is one
// that was cut or comes from a newer program (RES-22).
func TestCarriedNamesItsCar(t *testing.T) {
	data := carriedOf(t, "c/a")
	r, err := record.Carried("c/a", data)
	if err != nil || r.Hint == nil || r.Record.ID != "abcdefgh" || len(r.Record.Commands) != 2 || len(r.Record.Ahead) != 1 || r.Next != 3 || string(r.Position(1)) != "\x07" {
		t.Fatalf("%+v, %v", r, err)
	}
	for name, tc := range map[string]struct {
		car  string
		data []byte
	}{
		"another car":   {"c/b", data},
		"empty":         {"c/a", nil},
		"newer":         {"c/a", append([]byte{data[0] + 1}, data[1:]...)},
		"no session":    {"c/a", record.Begin(record.BeginCarried(nil), "c/a").Forgotten()},
		"two cars":      {"c/a", append(bytes.Clone(data), data[1:]...)},
		"left statuses": {"c/a", record.Entries(bytes.Clone(data)).Left(&record.Left{Device: button})},
	} {
		if r, err := record.Carried(tc.car, tc.data); err == nil {
			t.Errorf("%s: accepted as %+v", name, r)
		}
	}
	for n := range data {
		if r, err := record.Carried("c/a", data[:n]); err == nil && r.Record.ID != "abcdefgh" {
			t.Errorf("cut at %d: %+v", n, r)
		}
	}
}

// The counter of statuses alone is told every 256 only, everything else at once (RES-22).
func TestVersionChangesRarely(t *testing.T) {
	s, now := carrying(t)
	status := func(counter uint32) {
		s.Step(now, Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, SessionID: "abcdefgh", Counter: counter, Device: button}})
	}
	status(2)
	before, changes := s.Version(), 0
	for n := range uint32(10 * hintEvery) {
		if status(3 + n); s.Version() != before {
			before, changes = s.Version(), changes+1
		}
	}
	if changes != 10 {
		t.Errorf("%d changes in %d statuses", changes, 10*hintEvery)
	}
	for what, ev := range map[string]Event{
		"a command": {Kind: EventCommands, Module: 1, Commands: []fleet.Command{{Device: button}}},
		"a gap":     {Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "abcdefgh", Counter: 9000, Device: button}},
	} {
		if s.Step(now, ev); s.Version() == before {
			t.Errorf("%s is not told", what)
		}
		before = s.Version()
	}
	if s.Step(now, Event{Kind: EventStop}); s.Version() == before || len(s.AppendCarried(nil)) > 0 {
		t.Error("the end is not told")
	}
}

// carrying returns a session in normal communication with one device.
func carrying(tb testing.TB) (*Session, time.Time) {
	tb.Helper()
	s := New(Options{}, allModules{})
	s.Durable("c/a")
	for _, m := range []fleet.ClientMessage{
		{Kind: fleet.ClientConnect, Devices: []fleet.Device{button}},
		{Kind: fleet.ClientStatus, Counter: 1, Device: button},
		{Kind: fleet.ClientCommandResponse},
	} {
		m.SessionID = "abcdefgh"
		for _, e := range s.Step(start, Event{Kind: EventMessage, Message: m}) {
			if e.Kind == EffectDeviceConnected {
				s.Step(start, Event{Kind: EventAdmission, Ticket: e.Ticket, Admitted: true})
				break
			}
		}
	}
	if s.Phase() != PhaseRunning {
		tb.Fatalf("phase %v", s.Phase())
	}
	return s, start
}

// FuzzCarried: whatever is retained at a car's topic, reading it neither panics nor resumes
// the session of another car, and a session that goes on from it keeps its promises: it answers
// no counter twice, sends nothing before the first message, and its own record can be read.
func FuzzCarried(f *testing.F) {
	data := carriedOf(f, "c/a")
	f.Add(data, uint32(3), uint32(4))
	f.Add(carriedOf(f, "c/b"), uint32(3), uint32(4))
	for n := 1; n < len(data); n += 7 {
		flipped := bytes.Clone(data)
		flipped[n] ^= 0x41
		f.Add(flipped, uint32(n), uint32(3))
		f.Add(data[:n], uint32(1), uint32(2))
	}
	f.Fuzz(func(t *testing.T, data []byte, first, second uint32) {
		r, err := record.Carried("c/a", data)
		if err != nil {
			return
		}
		s := New(Options{}, allModules{})
		s.Durable("c/a")
		now := start
		answered := map[uint32]bool{}
		heard := false
		journal := record.NewFold()
		step := func(ev Event) {
			heard = heard || ev.Kind == EventMessage
			effects := s.Step(now, ev)
			var answers []Event
			for _, e := range effects {
				switch {
				case e.Kind == EffectPublish && !heard:
					t.Fatalf("%+v is published before the first message", e.Message)
				case e.Kind == EffectPublish && e.Message.Kind == fleet.ServerStatusResponse:
					if answered[e.Message.Counter] {
						t.Fatalf("status %d is answered twice", e.Message.Counter)
					}
					answered[e.Message.Counter] = true
				case e.Kind == EffectDeviceConnected:
					answers = append(answers, Event{Kind: EventAdmission, Ticket: e.Ticket, Admitted: true})
				}
			}
			if rec := s.Journal(); rec != nil {
				if err := journal.Apply(rec); err != nil {
					t.Fatal(err)
				}
			}
			if carried := s.AppendCarried(nil); len(carried) > 0 {
				if _, err := record.Carried("c/a", carried); err != nil {
					t.Fatalf("its own record: %v", err)
				}
			}
			for _, a := range answers {
				s.Step(now, a)
			}
		}
		step(Event{Kind: EventResume, Resume: r})
		step(Event{Kind: EventLinkUp, Kept: true, Down: 3 * time.Second})
		id := r.Record.ID
		for _, n := range []uint32{first, second, second} {
			step(Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, SessionID: id, Counter: n, Device: button}})
		}
		step(Event{Kind: EventBacklogRead})
		for n := range uint32(3) {
			now = now.Add(2 * time.Second)
			step(Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, SessionID: id, Counter: second + n, Device: button}})
			step(Event{Kind: EventDeadline})
		}
	})
}

// All answers that are held while a module does not take a status are carried, up to the contents of what
// it has not taken (RES-26): the next server owes each of them.
func TestCarriesAllHeldAnswers(t *testing.T) {
	const many = 500
	large := 1 + owed.MaxCarriedBytes/(many/2)
	for name, tc := range map[string]struct {
		data    int
		carried int
	}{
		"small": {0, many},
		"large": {large, owed.MaxCarriedBytes / (&fleet.ClientMessage{Device: button, SessionID: "abcdefgh", Data: make([]byte, large)}).Size()},
	} {
		s, now := carrying(t)
		s.UseModules(awaitedOne{})
		for n := range uint32(many) {
			s.Step(now, Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning,
				SessionID: "abcdefgh", Counter: 2 + n, Device: button, Data: make([]byte, tc.data)}})
		}
		s.Step(now.Add(time.Second), Event{Kind: EventDeadline}) // the broker is told of all
		r, err := record.Carried("c/a", s.AppendCarried(nil))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(r.Record.Owed) != tc.carried || len(r.Left) != tc.carried {
			t.Errorf("%s: %d answers and %d statuses are carried of %d, expected %d", name, len(r.Record.Owed), len(r.Left), many, tc.carried)
		}
	}
}
