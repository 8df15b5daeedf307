package protocol

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"external-server/internal/fleet"
	"external-server/internal/protocol/externalproto"
)

// reference decodes with the generated code.
func reference(payload []byte) (fleet.ClientMessage, error) {
	var wire externalproto.ExternalClient
	if err := proto.Unmarshal(payload, &wire); err != nil {
		return fleet.ClientMessage{}, fmt.Errorf("not an ExternalClient message of %d bytes: %w", len(payload), err)
	}
	switch m := wire.GetMessageType().(type) {
	case *externalproto.ExternalClient_Connect:
		devices := make([]fleet.Device, len(m.Connect.GetDevices()))
		for i, d := range m.Connect.GetDevices() {
			devices[i] = deviceFromWire(d)
		}
		return fleet.ClientMessage{
			Kind:      fleet.ClientConnect,
			SessionID: m.Connect.GetSessionId(),
			Devices:   devices,
		}, nil
	case *externalproto.ExternalClient_Status:
		return fleet.ClientMessage{
			Kind:      fleet.ClientStatus,
			SessionID: m.Status.GetSessionId(),
			State:     fleet.DeviceState(m.Status.GetDeviceState()),
			Counter:   m.Status.GetMessageCounter(),
			Device:    deviceFromWire(m.Status.GetDeviceStatus().GetDevice()),
			Data:      m.Status.GetDeviceStatus().GetStatusData(),
			Error:     m.Status.GetErrorMessage(),
		}, nil
	case *externalproto.ExternalClient_CommandResponse:
		return fleet.ClientMessage{
			Kind:      fleet.ClientCommandResponse,
			SessionID: m.CommandResponse.GetSessionId(),
			Counter:   m.CommandResponse.GetMessageCounter(),
			Response:  fleet.ResponseType(m.CommandResponse.GetType()),
		}, nil
	}
	return fleet.ClientMessage{Kind: fleet.ClientEmpty}, nil
}

// same compares what Decoder and the generated code say about the same bytes.
func same(t *testing.T, d *Decoder, raw []byte) {
	t.Helper()
	want, wantErr := reference(raw)
	if wantErr == nil && excessive(&want) {
		wantErr = errLength
	}
	for name, decode := range map[string]func([]byte) (fleet.ClientMessage, error){
		"Decoder": d.Client, "DecodeClient": DecodeClient,
	} {
		got, err := decode(bytes.Clone(raw))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%s of %x: error %v, want %v", name, raw, err, wantErr)
		}
		if err != nil {
			continue
		}
		equal := got.Kind == want.Kind && got.SessionID == want.SessionID && got.State == want.State &&
			got.Counter == want.Counter && got.Device == want.Device && got.Response == want.Response &&
			bytes.Equal(got.Data, want.Data) && bytes.Equal(got.Error, want.Error) && slices.Equal(got.Devices, want.Devices)
		if !equal {
			t.Fatalf("%s of %x:\n got %+v\nwant %+v", name, raw, got, want)
		}
	}
}

// excessive tells whether a message is refused although the generated code reads it.
func excessive(m *fleet.ClientMessage) bool {
	long := func(d fleet.Device) bool { return len(d.Role) > maxTextLength || len(d.Name) > maxTextLength }
	return len(m.SessionID) > maxTextLength || long(m.Device) || slices.ContainsFunc(m.Devices, long) || len(m.Devices) > maxDevices
}

// nested builds a length-delimited field.
func nested(num protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), slices.Concat(parts...))
}

func number(num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
}

func group(num protowire.Number, parts ...[]byte) []byte {
	b := protowire.AppendTag(nil, num, protowire.StartGroupType)
	return protowire.AppendTag(append(b, slices.Concat(parts...)...), num, protowire.EndGroupType)
}

// oddMessages are the corners of the wire format.
func oddMessages() map[string][]byte {
	device := nested(1, number(1, 3), number(2, 1), nested(3, []byte("role")), nested(4, []byte("name")), number(5, 2))
	deep := []byte{}
	for range 50 {
		deep = group(7, deep)
	}
	return map[string][]byte{
		"empty":                     {},
		"empty status":              nested(2),
		"two members, last counts":  slices.Concat(nested(1, nested(1, []byte("a"))), nested(2, number(3, 1))),
		"member comes back anew":    slices.Concat(nested(2, number(3, 9)), nested(1), nested(2, number(2, 1))),
		"equal members are merged":  slices.Concat(nested(2, nested(1, []byte("a")), nested(4, device)), nested(2, number(3, 1), nested(4, nested(2, []byte("data"))))),
		"device merged":             nested(2, nested(4, nested(1, nested(3, []byte("r")))), nested(4, nested(1, nested(4, []byte("n"))))),
		"connects add devices":      slices.Concat(nested(1, nested(4, number(1, 1))), nested(1, nested(4, number(1, 2)))),
		"last of a field counts":    nested(3, number(3, 1), number(3, 2), nested(1, []byte("a")), nested(1, nil)),
		"unexpected wire types":     nested(2, nested(3, []byte("x")), number(1, 5), number(4, 1), number(5, 1)),
		"member as number":          number(2, 7),
		"unknown fields":            slices.Concat(number(99, 1), nested(2, nested(77, []byte{0xff}), number(3, 4))),
		"unknown group":             slices.Concat(group(9, number(1, 1), group(2)), nested(3)),
		"deep groups":               nested(2, deep),
		"group end without start":   protowire.AppendTag(nil, 2, protowire.EndGroupType),
		"group not ended":           protowire.AppendTag(nil, 9, protowire.StartGroupType),
		"group ended by other":      append(protowire.AppendTag(nil, 9, protowire.StartGroupType), protowire.AppendTag(nil, 8, protowire.EndGroupType)...),
		"field number 0":            {0x00, 0x01},
		"largest field number":      number(protowire.MaxValidNumber, 1),
		"field number too large":    protowire.AppendVarint(protowire.AppendVarint(nil, (uint64(protowire.MaxValidNumber)+1)<<3), 1),
		"wire type 6":               {0x16, 0x01},
		"wire type 7":               {0x17},
		"negative enum":             nested(2, number(2, ^uint64(0))),
		"number of 33 bits":         nested(2, number(3, 1<<32+5), number(2, 1<<32+1)),
		"padded varint":             nested(2, []byte{0x18, 0x85, 0x80, 0x80, 0x00}),
		"varint of 11 bytes":        nested(2, append([]byte{0x18}, append(bytes.Repeat([]byte{0x80}, 10), 1)...)),
		"varint of 65 bits":         nested(2, append([]byte{0x18}, append(bytes.Repeat([]byte{0xff}, 9), 2)...)),
		"padded tag":                {0x92, 0x00, 0x00},
		"session id not UTF-8":      nested(2, nested(1, []byte{0xff})),
		"company not UTF-8":         nested(1, nested(2, []byte{0xc0, 0x80})),
		"vehicle not UTF-8":         nested(1, nested(3, []byte{0xed, 0xa0, 0x80})),
		"role not UTF-8":            nested(1, nested(4, nested(3, []byte{0xff}))),
		"overwritten not UTF-8":     nested(2, nested(1, []byte{0xff}), nested(1, []byte("a"))),
		"replaced member not UTF-8": slices.Concat(nested(1, nested(1, []byte{0xff})), nested(2)),
		"data may be anything":      nested(2, nested(4, nested(2, []byte{0xff, 0})), nested(5, []byte{0xfe})),
		"empty error message":       nested(2, nested(5)),
		"cut":                       nested(2, nested(1, []byte("abcdefgh")))[:5],
		"length beyond the end":     {0x12, 0x7f},
		"fixed fields":              {0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8},
		"fixed field cut":           {0x0d, 1, 2, 3},
	}
}

func TestDecoderAgreesWithGeneratedCode(t *testing.T) {
	for name, raw := range oddMessages() {
		t.Run(name, func(t *testing.T) { same(t, new(Decoder), raw) })
	}
}

func FuzzDecoderAgreesWithGeneratedCode(f *testing.F) {
	for _, raw := range oddMessages() {
		f.Add(raw)
	}
	for _, s := range []string{
		"0a260a0269641209636f6d70616e795f781a056361725f61220e080310011a02723122024e312802",
		"121f0a0269641001180222120a0c080310011a02723122024e3112027b7d2a0145",
		"1a090a026964100118ac02",
	} {
		raw, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	var d Decoder // remembers across messages, as that of a car does
	f.Fuzz(func(t *testing.T, raw []byte) { same(t, &d, raw) })
}

// What a gateway makes up cannot fill the memory.
func TestDecoderIsBounded(t *testing.T) {
	var d Decoder
	for i := range 1000 {
		id := fmt.Sprintf("session%d", i)
		m, err := d.Client(nested(2, nested(1, []byte(id)), nested(4, nested(1, nested(3, []byte(strings.Repeat("x", i)))))))
		if err != nil || m.SessionID != id || len(m.Device.Role) != i {
			t.Fatalf("message %d: %+v, %v", i, m, err)
		}
	}
	if len(d.known) > maxKnown {
		t.Errorf("%d strings are remembered", len(d.known))
	}
}

// REC-22: a text that no gateway has, or a list of devices, is refused, not kept.
func TestDecoderRefusesWhatNoGatewayHas(t *testing.T) {
	text := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	device := func(n protowire.Number, length int) []byte { return nested(4, nested(n, text(length))) }
	for name, member := range map[string]func(excess int) []byte{
		"session id": func(n int) []byte { return nested(1, text(maxTextLength+n)) },
		"role":       func(n int) []byte { return device(3, maxTextLength+n) },
		"name":       func(n int) []byte { return device(4, maxTextLength+n) },
		"devices":    func(n int) []byte { return bytes.Repeat(nested(4), maxDevices+n) },
	} {
		if _, err := DecodeClient(nested(1, member(0))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if m, err := DecodeClient(nested(1, member(1))); err == nil || !strings.Contains(err.Error(), "has more than 4096") {
			t.Errorf("%s: error %v, message %+.100v", name, err, m)
		}
	}
}

// What is kept of a message is what it says, not what somebody has put around it.
func TestDecoderKeepsNoLongPayload(t *testing.T) {
	raw := nested(2, nested(4, nested(2, []byte("data"))), nested(99, make([]byte, 1<<20)), nested(5, []byte("error")))
	m, err := new(Decoder).Client(raw)
	if err != nil || string(m.Data) != "data" || string(m.Error) != "error" {
		t.Fatalf("%+.100v, %v", m, err)
	}
	clear(raw)
	if string(m.Data) != "data" || string(m.Error) != "error" {
		t.Error("the message keeps its whole payload")
	}
}

// Appending to one part must not change another.
func TestDecoderPartsAreApart(t *testing.T) {
	raw := nested(2, nested(4, nested(2, []byte("data"))), nested(5, []byte("error")))
	m, err := new(Decoder).Client(raw)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(m.Data, "XXXXXX"...)
	if string(m.Error) != "error" {
		t.Errorf("error message became %q", m.Error)
	}
}

func statusPayload(tb testing.TB) []byte {
	raw, err := EncodeClient(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "abcdefgh", State: fleet.StateRunning,
		Counter: 12345, Device: vectorDevice, Data: make([]byte, 100)}, fleet.CarID{})
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func TestDecoderDoesNotAllocate(t *testing.T) {
	raw := statusPayload(t)
	var d Decoder
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := d.Client(raw); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per status, want 0", n)
	}
}

func BenchmarkDecodeStatus(b *testing.B) {
	raw := statusPayload(b)
	var d Decoder
	for name, decode := range map[string]func([]byte) (fleet.ClientMessage, error){"Decoder": d.Client, "generated": reference} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
