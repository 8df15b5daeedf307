package protocol

import (
	"bytes"
	"testing"

	"external-server/internal/fleet"
)

// FuzzAppendClient: AppendClient and the generated code produce the same bytes for any
// values.
func FuzzAppendClient(f *testing.F) {
	f.Add(true, "id", uint32(2), int32(1), int32(3), uint32(1), "r1", "N1", uint32(2), []byte("{}"), []byte("E"))
	f.Add(true, "", uint32(1<<31), int32(-1), int32(-5), uint32(0), "", "", uint32(0), []byte(nil), []byte(nil))
	f.Add(false, "id", uint32(300), int32(1), int32(0), uint32(0), "", "", uint32(0), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, status bool, id string, counter uint32, state, mod int32, typ uint32, role, name string, prio uint32, data, errorMessage []byte) {
		m := fleet.ClientMessage{Kind: fleet.ClientCommandResponse, SessionID: id, Counter: counter, Response: fleet.ResponseType(state)}
		if status {
			m = fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: id, Counter: counter, State: fleet.DeviceState(state),
				Device: fleet.Device{Module: mod, Type: typ, Role: role, Name: name, Priority: prio}, Data: data, Error: errorMessage}
		}
		want, err := EncodeClient(m, fleet.CarID{})
		if err != nil {
			return // not UTF-8, which the caller of AppendClient has excluded
		}
		if got := AppendClient([]byte("x"), &m); !bytes.Equal(got[1:], want) || got[0] != 'x' {
			t.Errorf("AppendClient of %+v:\n got %x\nwant x%x", m, got, want)
		}
	})
}

func TestAppendClientLeavesConnectAlone(t *testing.T) {
	for _, kind := range []fleet.ClientKind{fleet.ClientEmpty, fleet.ClientConnect} {
		if got := AppendClient(nil, &fleet.ClientMessage{Kind: kind, SessionID: "id"}); len(got) != 0 {
			t.Errorf("%v: appended %x", kind, got)
		}
	}
}
