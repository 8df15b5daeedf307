package session

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// journaled plays one session with everything that a journal can hold and returns its
// records.
func journaled(tb testing.TB, car string) (records [][]byte) {
	tb.Helper()
	s := New(Options{}, allModules{})
	s.Durable(car)
	now := start
	step := func(ev Event) {
		effects := s.Step(now, ev)
		if r := s.Journal(); r != nil {
			records = append(records, bytes.Clone(r))
		}
		var answers []Event
		for _, e := range effects {
			if e.Kind == EffectDeviceConnected {
				answers = append(answers, Event{Kind: EventAdmission, Ticket: e.Ticket, Admitted: true})
			}
		}
		for _, a := range answers {
			s.Step(now, a)
			if r := s.Journal(); r != nil {
				records = append(records, bytes.Clone(r))
			}
		}
	}
	message := func(m fleet.ClientMessage) {
		m.SessionID = "abcdefgh"
		step(Event{Kind: EventMessage, Message: m})
	}
	message(fleet.ClientMessage{Kind: fleet.ClientConnect, Devices: []fleet.Device{button}})
	message(fleet.ClientMessage{Kind: fleet.ClientStatus, Counter: 1, Device: button, Data: []byte("first")})
	message(fleet.ClientMessage{Kind: fleet.ClientCommandResponse})
	message(fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, Counter: 2, Device: button, Data: []byte("a"), Error: []byte("e")})
	message(fleet.ClientMessage{Kind: fleet.ClientStatus, State: fleet.StateRunning, Counter: 4, Device: button, Data: []byte("held")})
	step(Event{Kind: EventCommands, Module: 1, Position: []byte{7}, Commands: []fleet.Command{{Device: button, Data: []byte("go")}, {Device: button, Data: []byte("stop")}}})
	message(fleet.ClientMessage{Kind: fleet.ClientCommandResponse, Counter: 2})
	records = append(records, record.Begin(nil, car).Delivered(1, 0), s.AppendSettled(nil), s.AppendRecord(nil))
	return records
}

// A record belongs to the car that it names, whatever file it is found in.
func TestRecordsNameTheirCar(t *testing.T) {
	f := record.NewFold()
	for _, r := range journaled(t, "c/a") {
		if err := f.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := f.Car("c/b"); r != nil || err != nil {
		t.Errorf("another car got %+v, %v", r, err)
	}
	r, err := f.Car("c/a")
	if err != nil || r == nil || r.Record == nil || r.Record.ID != "abcdefgh" || len(r.Record.Commands) != 2 || len(r.Record.Ahead) != 1 {
		t.Fatalf("the car got %+v, %v", r, err)
	}
	if len(r.Left) != 1 || string(r.Left[0].Data) != "a" || string(r.Left[0].Error) != "e" || string(r.Position(1)) != "\x07" {
		t.Errorf("left %+v, position %q", r.Left, r.Position(1))
	}
}

// What a newer program has written is refused with a reason, and what was accepted
// before is still known. So is a record that was cut at any place.
func TestRecordsThatCannotBeUnderstood(t *testing.T) {
	records := journaled(t, "c/a")
	spoil := map[string]func([]byte) []byte{
		"newer version": func(r []byte) []byte { r[0]++; return r },
		"unknown kind":  func(r []byte) []byte { return append(record.Begin(nil, "c/a"), 200) },
	}
	for n := range records[3] {
		spoil["cut at "+string(rune('0'+n%10))] = func(r []byte) []byte { return r[:min(len(r)-1, n+1)] }
	}
	for name, spoilt := range spoil {
		f := record.NewFold()
		for _, r := range records[:3] {
			if err := f.Apply(r); err != nil {
				t.Fatal(err)
			}
		}
		bad := spoilt(bytes.Clone(records[3]))
		if err := f.Apply(bad); err == nil && len(bad) > len(record.Begin(nil, "c/a")) {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzJournal: whatever a journal holds, reading it neither panics nor takes memory
// that its size does not justify, compacting it loses nothing, and a session that goes
// on from it keeps its promises.
func FuzzJournal(f *testing.F) {
	for _, r := range journaled(f, "c/a") {
		f.Add(binary.AppendUvarint(nil, uint64(len(r))))
	}
	var all []byte
	for _, r := range journaled(f, "c/a") {
		all = append(binary.AppendUvarint(all, uint64(len(r))), r...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, data []byte) {
		fold := record.NewFold()
		for len(data) > 0 {
			n, used := binary.Uvarint(data)
			if used <= 0 || n > uint64(len(data)-used) {
				break
			}
			_ = fold.Apply(data[used : used+int(n)])
			data = data[used+int(n):]
		}
		again := record.NewFold()
		fold.Snapshot(func(r []byte) {
			if err := again.Apply(r); err != nil {
				t.Fatalf("a compacted record: %v", err)
			}
		})
		for _, car := range fold.Cars() {
			resumed, err := fold.Car(car)
			if err == nil {
				compact, _ := again.Car(car)
				if compact == nil || plain(compact.Record) != plain(resumed.Record) || len(compact.Left) != len(resumed.Left) {
					t.Fatalf("compacting changed %+v into %+v", resumed, compact)
				}
			}
			goOn(t, car, resumed)
		}
	})
}

// goOn resumes a session and plays a few messages.
func goOn(t *testing.T, car string, known *record.Resumption) {
	s := New(Options{}, allModules{})
	s.Durable(car)
	now := start
	step := func(ev Event) {
		for _, e := range s.Step(now, ev) {
			if e.Kind == EffectPublish && e.Message.SessionID != s.ID() && s.ID() != "" {
				t.Fatalf("an answer of session %q in session %q", e.Message.SessionID, s.ID())
			}
		}
	}
	id, expected := "", uint32(0)
	if known.Record != nil {
		id, expected = known.Record.ID, known.Record.Expected
	}
	step(Event{Kind: EventResume, Resume: known, Down: time.Second})
	step(Event{Kind: EventLinkUp, Kept: true, Down: time.Second})
	for _, counter := range []uint32{expected - 1, expected - 1, expected, expected + 2} {
		step(Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: id, Counter: counter, State: fleet.StateRunning, Device: button}})
	}
	step(Event{Kind: EventBacklogRead})
	for range 5 {
		if at := s.Deadline(); !at.IsZero() {
			now = at
			step(Event{Kind: EventDeadline})
		}
	}
	step(Event{Kind: EventStop})
}
