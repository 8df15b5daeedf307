package observe

import (
	"time"

	"external-server/internal/fleet"
)

// tailLength is how many messages of a watched car are kept for its watchers.
const tailLength = 512

// Message is one message of or to a gateway, as the live tail shows it.
type Message struct {
	At        time.Time
	Out       bool   // to the gateway
	Kind      string // connect, status, commandResponse; connectResponse, statusResponse, command
	Session   string
	Counter   uint32
	Device    fleet.Device   // status, command
	Devices   []fleet.Device // connect
	State     fleet.DeviceState
	Response  fleet.ResponseType
	Duplicate bool
	// Refused: the link did not take the message, or a connect was answered with
	// ALREADY_LOGGED.
	Refused bool
	Payload Payload
	Error   Payload
}

func kept(data []byte) (p Payload) {
	p.keep(data, keptPayload)
	return p
}

// received describes a message of the gateway.
func received(m *fleet.ClientMessage, at time.Time) Message {
	out := Message{At: at, Kind: m.Kind.String(), Session: m.SessionID, Duplicate: m.Redelivered, Counter: m.Counter}
	switch m.Kind {
	case fleet.ClientConnect:
		out.Devices = append([]fleet.Device(nil), m.Devices[:min(len(m.Devices), keptDevices)]...)
	case fleet.ClientStatus:
		out.Device, out.State, out.Payload, out.Error = m.Device, m.State, kept(m.Data), kept(m.Error)
	case fleet.ClientCommandResponse:
		out.Response = m.Response
	}
	return out
}

// sent describes a message to the gateway.
func sent(m *fleet.ServerMessage, at time.Time, ok bool) Message {
	out := Message{At: at, Out: true, Session: m.SessionID, Counter: m.Counter, Refused: !ok}
	switch m.Kind {
	case fleet.ServerConnectResponse:
		out.Kind, out.Refused = "connectResponse", !ok || m.AlreadyLogged
	case fleet.ServerStatusResponse:
		out.Kind = "statusResponse"
	case fleet.ServerCommand:
		out.Kind, out.Device, out.Payload = "command", m.Device, kept(m.Data)
	}
	return out
}
