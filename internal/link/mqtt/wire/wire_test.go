package wire_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"external-server/internal/link/mqtt/wire"
)

func read(b []byte, maxPayload int) ([]wire.Packet, error) {
	r := wire.NewReader(iotest.HalfReader(bytes.NewReader(b)), maxPayload)
	var out []wire.Packet
	for {
		var p wire.Packet
		if err := r.Next(&p); err != nil {
			return out, err
		}
		p.Topic, p.Codes = bytes.Clone(p.Topic), bytes.Clone(p.Codes)
		out = append(out, p)
	}
}

func TestReader(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789"), 20_000)
	var b []byte
	b = append(b, 0x20, 2, 1, 5)
	b = wire.AppendPublish(b, "t", []byte("small"), 1, 3, false, true)
	b = wire.AppendPublish(b, strings.Repeat("t", 300), big, 1, 4, true, false)
	b = wire.AppendPublish(b, "t", append(big, 'x'), 1, 5, false, false)
	b = wire.AppendPublish(b, "t", nil, 0, 0, false, false)
	b = wire.AppendPuback(b, 258)
	b = append(b, 0x90, 5, 0, 9, 0, 1, 0x80)
	b = append(b, 0xb0, 2, 0, 10)
	b = append(b, 0xd0, 0)
	got, err := read(b, len(big))
	if err != io.EOF || len(got) != 9 {
		t.Fatalf("%d packets, error %v", len(got), err)
	}
	if p := got[0]; p.Type != wire.Connack || p.Code != 5 {
		t.Errorf("CONNACK: %+v", p)
	}
	if p := got[1]; p.Type != wire.Publish || string(p.Topic) != "t" || string(p.Payload) != "small" || p.ID != 3 || p.QoS != 1 || !p.Duplicate || p.Retain {
		t.Errorf("PUBLISH: %+v", p)
	}
	if p := got[2]; len(p.Topic) != 300 || !bytes.Equal(p.Payload, big) || p.ID != 4 || !p.Retain || p.Duplicate || p.Oversized {
		t.Errorf("large PUBLISH: topic %d, payload %d, id %d", len(p.Topic), len(p.Payload), p.ID)
	}
	if p := got[3]; !p.Oversized || p.Payload != nil || p.ID != 5 || string(p.Topic) != "t" {
		t.Errorf("oversized PUBLISH: %+v", p)
	}
	if p := got[4]; p.QoS != 0 || p.ID != 0 || p.Payload == nil || len(p.Payload) != 0 {
		t.Errorf("empty PUBLISH: %+v", p)
	}
	if p := got[5]; p.Type != wire.Puback || p.ID != 258 {
		t.Errorf("PUBACK: %+v", p)
	}
	if p := got[6]; p.Type != wire.Suback || p.ID != 9 || !bytes.Equal(p.Codes, []byte{0, 1, wire.SubackRefused}) {
		t.Errorf("SUBACK: %+v", p)
	}
	if p := got[7]; p.Type != wire.Unsuback || p.ID != 10 {
		t.Errorf("UNSUBACK: %+v", p)
	}
	if p := got[8]; p.Type != wire.Pingresp {
		t.Errorf("PINGRESP: %+v", p)
	}
}

func TestMalformedPackets(t *testing.T) {
	for name, b := range map[string][]byte{
		"reserved type":             {0x00, 0},
		"packet of a client":        {0x80, 2, 0, 1},
		"PUBREC":                    {0x50, 2, 0, 1},
		"PUBACK with flags":         {0x42, 2, 0, 1},
		"PUBACK without identifier": {0x40, 2, 0, 0},
		"PUBACK too long":           {0x40, 3, 0, 1, 0},
		"PINGRESP with body":        {0xd0, 1, 0},
		"CONNACK with flags":        {0x20, 2, 2, 0},
		"SUBACK without result":     {0x90, 2, 0, 1},
		"SUBACK without end":        {0x90, 0xff, 0xff, 0xff, 0x7f},
		"five bytes of length":      {0x30, 0x80, 0x80, 0x80, 0x80, 1},
		"length not shortest":       {0x40, 0x82, 0x00, 0, 1},
		"QoS 2":                     {0x34, 5, 0, 1, 't', 0, 1},
		"QoS 3":                     {0x36, 5, 0, 1, 't', 0, 1},
		"PUBLISH without topic":     {0x30, 2, 0, 0},
		"PUBLISH of one byte":       {0x30, 1, 0},
		"topic longer than packet":  {0x30, 3, 0, 9, 't'},
		"no room for identifier":    {0x32, 4, 0, 1, 't', 0},
		"PUBLISH identifier zero":   {0x32, 5, 0, 1, 't', 0, 0},
	} {
		got, err := read(append(b, make([]byte, 10)...), 100)
		if len(got) != 0 || !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %d packets, error %v", name, len(got), err)
		}
	}
	for _, b := range [][]byte{{0x30}, {0x30, 0x80}, {0x30, 9, 0, 1}, {0x40, 2, 0}, {0x90, 3, 0, 1}} {
		if _, err := read(b, 100); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%x: error %v instead of an unexpected end", b, err)
		}
	}
}

// Ready tells a complete packet from the beginning of one.
func TestReady(t *testing.T) {
	b := wire.AppendPuback(wire.AppendPublish(nil, "topic", make([]byte, 200), 1, 1, false, false), 1)
	for cut := 1; cut < 4; cut++ {
		r := wire.NewReader(bytes.NewReader(b[:len(b)-cut]), 1000)
		if r.Ready() {
			t.Error("ready before anything was read")
		}
		var p wire.Packet
		if err := r.Next(&p); err != nil {
			t.Fatal(err)
		}
		if r.Ready() {
			t.Errorf("ready although %d bytes are missing", cut)
		}
	}
	r := wire.NewReader(bytes.NewReader(b), 1000)
	var p wire.Packet
	if err := r.Next(&p); err != nil || !r.Ready() {
		t.Errorf("not ready although a packet is there, error %v", err)
	}
}

func TestAcknowledgementsDoNotAllocate(t *testing.T) {
	b := wire.AppendPuback(nil, 7)
	src := bytes.NewReader(b)
	r := wire.NewReader(src, 100)
	var p wire.Packet
	out := make([]byte, 0, 8)
	if n := testing.AllocsPerRun(100, func() {
		src.Reset(b)
		if err := r.Next(&p); err != nil {
			t.Fatal(err)
		}
		out = wire.AppendPuback(out[:0], p.ID)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzReader: whatever a broker sends, the reader does not panic and what it
// accepts has the form it promises.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 0})
	f.Add(wire.AppendPublish(nil, "a/b", []byte("payload"), 1, 1, false, false))
	f.Add(wire.AppendPublish(nil, "a/b", make([]byte, 600), 1, 1, false, true))
	f.Add([]byte{0x90, 3, 0, 1, 0x80, 0xb0, 2, 0, 1, 0xd0, 0, 0x40, 2, 0, 1})
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 500
		r := wire.NewReader(bytes.NewReader(b), limit)
		size := 0
		for {
			var p wire.Packet
			ready := r.Ready()
			if err := r.Next(&p); err != nil {
				if ready && !errors.Is(err, wire.ErrMalformed) {
					t.Fatalf("ready, then %v", err)
				}
				return
			}
			size += p.Size
			if size > len(b) {
				t.Fatalf("%d bytes read of %d", size, len(b))
			}
			switch p.Type {
			case wire.Publish:
				if len(p.Topic) == 0 || p.QoS > 1 || (p.QoS == 1) != (p.ID != 0) || len(p.Payload) > limit || p.Oversized != (p.Payload == nil) {
					t.Fatalf("%+v", p)
				}
				if p.Oversized {
					continue
				}
				if again := wire.AppendPublish(nil, string(p.Topic), p.Payload, p.QoS, p.ID, p.Retain, p.Duplicate); len(again) > p.Size {
					t.Fatalf("%d bytes became %d", p.Size, len(again))
				}
			case wire.Puback, wire.Unsuback, wire.Suback:
				if p.ID == 0 || (p.Type == wire.Suback) != (len(p.Codes) > 0) {
					t.Fatalf("%+v", p)
				}
			case wire.Connack, wire.Pingresp:
			default:
				t.Fatalf("accepted %v", p.Type)
			}
		}
	})
}
