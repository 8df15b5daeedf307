package fleet

import (
	"strconv"
	"time"
)

// DeviceState is the state a gateway reports with a status (MSG-1). The
// enum is open: other numbers travel unchanged.
type DeviceState int32

// States of the wire protocol.
const (
	StateConnecting DeviceState = 0
	StateRunning    DeviceState = 1
	StateError      DeviceState = 2
	StateDisconnect DeviceState = 3
)

// String returns the wire name of the state, or its number.
func (s DeviceState) String() string {
	switch s {
	case StateConnecting:
		return "CONNECTING"
	case StateRunning:
		return "RUNNING"
	case StateError:
		return "ERROR"
	case StateDisconnect:
		return "DISCONNECT"
	}
	return strconv.Itoa(int(s))
}

// ResponseType is the gateway's verdict on a command (MSG-1).
type ResponseType int32

// Types of the wire protocol.
const (
	ResponseOK                 ResponseType = 0
	ResponseDeviceNotConnected ResponseType = 1
	ResponseDeviceNotSupported ResponseType = 2
	ResponseInvalidCommand     ResponseType = 3
)

// String returns the wire name of the response type, or its number.
func (t ResponseType) String() string {
	switch t {
	case ResponseOK:
		return "OK"
	case ResponseDeviceNotConnected:
		return "DEVICE_NOT_CONNECTED"
	case ResponseDeviceNotSupported:
		return "DEVICE_NOT_SUPPORTED"
	case ResponseInvalidCommand:
		return "INVALID_COMMAND"
	}
	return strconv.Itoa(int(t))
}

// ClientKind tells which member of ExternalClient a message carries.
type ClientKind uint8

// Kinds of messages from a gateway.
const (
	ClientEmpty ClientKind = iota // no member set (CONN-33)
	ClientConnect
	ClientStatus
	ClientCommandResponse
)

// String returns the name used in logs and scripts.
func (k ClientKind) String() string {
	switch k {
	case ClientConnect:
		return "connect"
	case ClientStatus:
		return "status"
	case ClientCommandResponse:
		return "commandResponse"
	}
	return "empty"
}

// ClientMessage is one message from a gateway (ExternalClient). Which fields
// are meaningful depends on Kind. The receiver of the value owns its slices.
type ClientMessage struct {
	Kind      ClientKind
	SessionID string
	// Redelivered is the transport's mark that the message may be a repetition
	// (the DUP flag of MQTT, REC-4).
	Redelivered bool
	Devices     []Device     // connect
	State       DeviceState  // status
	Counter     uint32       // status, commandResponse
	Device      Device       // status
	Data        []byte       // status
	Error       []byte       // status; empty means absent (STAT-32)
	Response    ResponseType // commandResponse
	// Received is when the transport delivered the message; zero: unknown. It
	// measures, the protocol does not depend on it.
	Received time.Time
}

// deviceSize is that of a device in a list, without its texts.
const deviceSize = 48

// Size is what counts of a message when memory is bounded (REC-22), in bytes.
func (m *ClientMessage) Size() int {
	n := len(m.Data) + len(m.Error) + len(m.SessionID) + len(m.Device.Role) + len(m.Device.Name)
	for i := range m.Devices {
		n += deviceSize + len(m.Devices[i].Role) + len(m.Devices[i].Name)
	}
	return n
}

// ServerKind tells which member of ExternalServer a message carries.
type ServerKind uint8

// Kinds of messages to a gateway.
const (
	ServerConnectResponse ServerKind = iota + 1
	ServerStatusResponse
	ServerCommand
)

// ServerMessage is one message to a gateway (ExternalServer).
type ServerMessage struct {
	Kind          ServerKind
	SessionID     string
	AlreadyLogged bool   // connectResponse: ALREADY_LOGGED instead of OK
	Counter       uint32 // statusResponse, command
	Device        Device // command
	Data          []byte // command
}
