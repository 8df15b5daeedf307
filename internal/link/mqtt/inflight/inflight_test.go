package inflight

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt/wire"
)

var start = time.Unix(1000, 0)

// An identifier is in use once, also when the numbers have gone round and some are never acknowledged.
func TestMessages(t *testing.T) {
	var m Messages
	used := make(map[uint16]bool)
	for i := range 3 * MaxMessages {
		id := m.Take()
		if id == 0 || id > MaxMessages || used[id] || id != m.Last() {
			t.Fatalf("identifier %d, in use %v, last %d", id, used[id], m.Last())
		}
		if used[id] = true; i%100 != 0 {
			m.Release(id)
			m.Release(id) // a second acknowledgement changes nothing
			delete(used, id)
		}
		if i%1000 == 0 {
			old := slices.Min(slices.Collect(maps.Keys(used)))
			m.Release(old)
			delete(used, old)
		}
		if m.Len() != len(used) {
			t.Fatalf("%d in use, expected %d", m.Len(), len(used))
		}
	}
	m.Release(MaxMessages + 1)
	m.Release(0)
	last := m.Last()
	if m.Clear(); m.Len() != 0 || m.Last() != last {
		t.Errorf("%d in use, last %d, expected %d", m.Len(), m.Last(), last)
	}
}

// What counts is the time since the last acknowledgement, or since the first message.
func TestMessagesCheck(t *testing.T) {
	var m Messages
	at := func(s int) error { return m.Check(start.Add(time.Duration(s)*time.Second), 30*time.Second) }
	if err := errors.Join(at(0), at(100)); err != nil {
		t.Errorf("nothing waits: %v", err)
	}
	first, second := m.Take(), m.Take()
	if err := errors.Join(at(101), at(131)); err != nil {
		t.Error(err)
	}
	m.Release(first)
	if err := errors.Join(at(132), at(162)); err != nil {
		t.Error(err)
	}
	if at(163) == nil {
		t.Error("not noticed after 31 s")
	}
	m.Release(second)
	if err := at(164); err != nil {
		t.Error(err)
	}
}

func TestRequests(t *testing.T) {
	var r Requests[string]
	r.Clear()
	a := r.Add("a", 2, true, start)
	b := r.Add("b", 1, true, start)
	c := r.Add("c", 0, false, start.Add(time.Minute))
	if a <= MaxMessages || a == b || b == c {
		t.Errorf("identifiers %d, %d, %d", a, b, c)
	}
	for name, p := range map[string]wire.Packet{
		"not sent":       {Type: wire.Suback, ID: c + 1, Codes: []byte{0}},
		"too few":        {Type: wire.Suback, ID: a, Codes: []byte{1}},
		"wrong kind":     {Type: wire.Unsuback, ID: a, Codes: []byte{1, 1}},
		"other kind":     {Type: wire.Suback, ID: c},
		"unknown result": {Type: wire.Suback, ID: a, Codes: []byte{1, 3}},
	} {
		if of, _, err := r.Answer(&p); !errors.Is(err, wire.ErrMalformed) || of != "" {
			t.Errorf("%s: %q, %v", name, of, err)
		}
	}
	if r.Check(start.Add(30*time.Second), 30*time.Second) != nil || r.Check(start.Add(31*time.Second), 30*time.Second) == nil {
		t.Error("expected a patience of 30 s")
	}
	for _, tt := range []struct {
		p        wire.Packet
		of       string
		initial  bool
		restored bool
	}{
		{wire.Packet{Type: wire.Suback, ID: a, Codes: []byte{1, 0x87}}, "a", true, false},
		{wire.Packet{Type: wire.Unsuback, ID: c, Codes: []byte{0x11}}, "c", false, false},
		{wire.Packet{Type: wire.Suback, ID: b, Codes: []byte{0}}, "b", true, true},
	} {
		of, initial, err := r.Answer(&tt.p)
		if of != tt.of || initial != tt.initial || err != nil || r.Restored() != tt.restored {
			t.Errorf("%q, initial %v, %v, restored %v; expected %+v", of, initial, err, r.Restored(), tt)
		}
		if _, _, err := r.Answer(&tt.p); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%q answered twice: %v", tt.of, err)
		}
	}
	if err := r.Check(start.Add(time.Hour), time.Second); err != nil {
		t.Error(err)
	}
	for range 5000 {
		id := r.Add("d", 1, false, start)
		if id <= MaxMessages {
			t.Fatalf("identifier %d is one of messages", id)
		}
		if _, _, err := r.Answer(&wire.Packet{Type: wire.Suback, ID: id, Codes: []byte{1}}); err != nil {
			t.Fatal(err)
		}
	}
}

// A token settles what it stands for once, for its car and its connection alone.
func TestOwed(t *testing.T) {
	var o Owed[string]
	if o.Settle(link.Ack{}, "") {
		t.Error("settled before a connection")
	}
	o.Begin(1)
	old := o.Add(5, "a")
	o.Begin(2)
	if o.Settle(old, "a") || o.Len() != 0 {
		t.Error("settled for the connection before")
	}
	again := o.Add(5, "a")
	if o.Settle(old, "a") || o.Settle(link.Ack{}, "a") || o.Settle(again, "b") {
		t.Error("settled by another token, or for another car")
	}
	if !o.Settle(again, "a") || o.Settle(again, "a") {
		t.Error("expected to be settled once")
	}
	o.Add(1, "a")
	o.Add(2, "b")
	o.Add(3, "a")
	var got []uint16
	o.SettleAll("a", func(packet uint16) { got = append(got, packet) })
	if slices.Sort(got); !slices.Equal(got, []uint16{1, 3}) || o.Len() != 1 {
		t.Errorf("%v settled, %d left", got, o.Len())
	}
	if o.Clear(); o.Len() != 0 {
		t.Errorf("%d left", o.Len())
	}
}
