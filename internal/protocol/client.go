package protocol

import (
	"google.golang.org/protobuf/encoding/protowire"

	"external-server/internal/fleet"
)

// Field numbers of ExternalClient (ExternalProtocol.proto), used by AppendClient.
const (
	fieldStatus          = 2
	fieldCommandResponse = 3
)

// AppendClient appends the bytes of a status or a command response of a gateway to
// dst and returns the extended slice; other kinds append nothing, EncodeClient does
// them. It writes the wire format directly, because a load generator must cost less
// than the server it loads; tests compare it with the generated code. The caller sees
// to it that session id, role and name are UTF-8.
func AppendClient(dst []byte, m *fleet.ClientMessage) []byte {
	switch m.Kind {
	case fleet.ClientStatus:
		device := sizeDevice(m.Device)
		inner := protowire.SizeTag(1) + protowire.SizeBytes(device) + sizeString(2, m.Data)
		dst = appendHeader(dst, fieldStatus, sizeString(1, m.SessionID)+sizeVarint(2, uint64(int64(m.State)))+
			sizeVarint(3, uint64(m.Counter))+protowire.SizeTag(4)+protowire.SizeBytes(inner)+sizeString(5, m.Error))
		dst = appendString(dst, 1, m.SessionID)
		dst = appendVarint(dst, 2, uint64(int64(m.State)))
		dst = appendVarint(dst, 3, uint64(m.Counter))
		dst = appendHeader(dst, 4, inner)
		dst = appendHeader(dst, 1, device)
		dst = appendVarint(dst, 1, uint64(int64(m.Device.Module)))
		dst = appendVarint(dst, 2, uint64(m.Device.Type))
		dst = appendString(dst, 3, m.Device.Role)
		dst = appendString(dst, 4, m.Device.Name)
		dst = appendVarint(dst, 5, uint64(m.Device.Priority))
		dst = appendString(dst, 2, m.Data)
		return appendString(dst, 5, m.Error)
	case fleet.ClientCommandResponse:
		dst = appendHeader(dst, fieldCommandResponse,
			sizeString(1, m.SessionID)+sizeVarint(2, uint64(int64(m.Response)))+sizeVarint(3, uint64(m.Counter)))
		dst = appendString(dst, 1, m.SessionID)
		dst = appendVarint(dst, 2, uint64(int64(m.Response)))
		return appendVarint(dst, 3, uint64(m.Counter))
	}
	return dst
}
