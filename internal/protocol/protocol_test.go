package protocol

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"external-server/internal/fleet"
	"external-server/internal/protocol/externalproto"
	"external-server/internal/protocol/internalproto"
)

var vectorDevice = fleet.Device{Module: 3, Type: 1, Role: "r1", Name: "N1"}

// MSG-6: the published test vectors, gateway to server.
func TestClientVectors(t *testing.T) {
	withPriority := vectorDevice
	withPriority.Priority = 2
	for hexBytes, want := range map[string]fleet.ClientMessage{
		"0a260a0269641209636f6d70616e795f781a056361725f61220e080310011a02723122024e312802": {
			Kind: fleet.ClientConnect, SessionID: "id", Devices: []fleet.Device{withPriority}},
		"121f0a0269641001180222120a0c080310011a02723122024e3112027b7d2a0145": {
			Kind: fleet.ClientStatus, SessionID: "id", State: fleet.StateRunning, Counter: 2,
			Device: vectorDevice, Data: []byte("{}"), Error: []byte("E")},
		"1a090a026964100118ac02": {
			Kind: fleet.ClientCommandResponse, SessionID: "id", Counter: 300, Response: fleet.ResponseDeviceNotConnected},
	} {
		raw, err := hex.DecodeString(hexBytes)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeClient(raw)
		if err != nil {
			t.Fatalf("%s: %v", hexBytes, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("decode %s:\n got %+v\nwant %+v", hexBytes, got, want)
		}
		back, err := EncodeClient(want, fleet.CarID{Company: "company_x", Car: "car_a"})
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(back) != hexBytes {
			t.Errorf("encode %+v:\n got %x\nwant %s", want, back, hexBytes)
		}
	}
}

// MSG-6: the published test vectors, server to gateway.
func TestServerVectors(t *testing.T) {
	for hexBytes, msg := range map[string]fleet.ServerMessage{
		"0a040a026964":     {Kind: fleet.ServerConnectResponse, SessionID: "id"},
		"0a060a0269641001": {Kind: fleet.ServerConnectResponse, SessionID: "id", AlreadyLogged: true},
		"12060a0269641801": {Kind: fleet.ServerStatusResponse, SessionID: "id", Counter: 1},
		"1a140a0269641a0e0a0c080310011a02723122024e31": {
			Kind: fleet.ServerCommand, SessionID: "id", Device: vectorDevice},
		"1a1a0a02696410071a120a0c080310011a02723122024e3112027b7d": {
			Kind: fleet.ServerCommand, SessionID: "id", Counter: 7, Device: vectorDevice, Data: []byte("{}")},
	} {
		if got := hex.EncodeToString(AppendServer(nil, msg)); got != hexBytes {
			t.Errorf("%+v:\n got %s\nwant %s", msg, got, hexBytes)
		}
		raw, _ := hex.DecodeString(hexBytes)
		back, err := DecodeServer(raw)
		if err != nil || !reflect.DeepEqual(back, msg) {
			t.Errorf("decode %s: %+v, %v", hexBytes, back, err)
		}
	}
}

// CONN-32, CONN-33, SESS-6: garbage is an error, emptiness is a message without member.
func TestDecodeClientBadInput(t *testing.T) {
	if m, err := DecodeClient(nil); err != nil || m.Kind != fleet.ClientEmpty {
		t.Errorf("empty payload: %+v, %v", m, err)
	}
	for name, raw := range map[string][]byte{
		"text":          []byte("hello"),
		"truncated":     {0x0a, 0x26, 0x0a},
		"invalid UTF-8": {0x12, 0x04, 0x0a, 0x02, 0xff, 0xfe},
	} {
		if m, err := DecodeClient(raw); err == nil {
			t.Errorf("%s: decoded to %+v", name, m)
		}
	}
}

// AppendServer and the generated code produce the same bytes for any values,
// and no input makes the decoder panic.
func FuzzAppendServer(f *testing.F) {
	f.Add(uint8(3), "id", uint32(7), int32(-5), uint32(1), "role", "name", uint32(2), []byte("{}"))
	f.Add(uint8(2), "", uint32(1<<31), int32(0), uint32(0), "", "", uint32(0), []byte(nil))
	f.Fuzz(func(t *testing.T, kind uint8, id string, counter uint32, mod int32, typ uint32, role, name string, prio uint32, data []byte) {
		m := fleet.ServerMessage{
			Kind: fleet.ServerKind(kind%3 + 1), SessionID: id, Counter: counter, AlreadyLogged: counter%2 == 1,
			Device: fleet.Device{Module: mod, Type: typ, Role: role, Name: name, Priority: prio}, Data: data,
		}
		wire := &externalproto.ExternalServer{}
		switch m.Kind {
		case fleet.ServerConnectResponse:
			wire.MessageType = &externalproto.ExternalServer_ConnectResponse{ConnectResponse: &externalproto.ConnectResponse{
				SessionId: id, Type: externalproto.ConnectResponse_Type(counter % 2)}}
		case fleet.ServerStatusResponse:
			wire.MessageType = &externalproto.ExternalServer_StatusResponse{StatusResponse: &externalproto.StatusResponse{
				SessionId: id, MessageCounter: counter}}
		case fleet.ServerCommand:
			wire.MessageType = &externalproto.ExternalServer_Command{Command: &externalproto.Command{
				SessionId: id, MessageCounter: counter, DeviceCommand: &internalproto.DeviceCommand{
					Device: deviceToWire(m.Device), CommandData: data}}}
		}
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(wire)
		if err != nil {
			return // the generated code refuses text that is not UTF-8; modules are checked before
		}
		for name, got := range map[string][]byte{"AppendServer": AppendServer(nil, m), "EncodeServer": EncodeServer(m)} {
			if string(got) != string(want) {
				t.Errorf("%s of %+v:\n got %x\nwant %x", name, m, got, want)
			}
		}
	})
}

func FuzzDecodeClient(f *testing.F) {
	f.Add([]byte{0x0a, 0x04, 0x0a, 0x02, 0x69, 0x64})
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := DecodeClient(raw)
		if err != nil {
			return
		}
		again, err := EncodeClient(m, fleet.CarID{})
		if err != nil {
			t.Fatalf("decoded message does not encode: %v", err)
		}
		back, err := DecodeClient(again)
		if err != nil || back.Kind != m.Kind || back.SessionID != m.SessionID || back.Counter != m.Counter {
			t.Fatalf("round trip changed %+v into %+v, %v", m, back, err)
		}
	})
}

// The largest messages fit into what EncodeServer reserves.
func TestEncodeServerAllocatesOnce(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, m := range []fleet.ServerMessage{
		{Kind: fleet.ServerConnectResponse, SessionID: long, AlreadyLogged: true},
		{Kind: fleet.ServerStatusResponse, SessionID: long, Counter: 1<<32 - 1},
		{Kind: fleet.ServerCommand, SessionID: long, Counter: 1<<32 - 1, Data: []byte(long),
			Device: fleet.Device{Module: -1, Type: 1<<32 - 1, Role: long, Name: long, Priority: 1<<32 - 1}},
	} {
		if n := testing.AllocsPerRun(100, func() { EncodeServer(m) }); n > 1 {
			t.Errorf("kind %d: %v allocations", m.Kind, n)
		}
	}
}

func BenchmarkEncodeStatusResponse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		EncodeServer(fleet.ServerMessage{Kind: fleet.ServerStatusResponse, SessionID: "abcdefgh", Counter: 12345})
	}
}
