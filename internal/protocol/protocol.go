// Package protocol converts between the bytes on the wire (MSG-1 to MSG-6) and the
// message types of package fleet. It holds the .proto files and the code
// generated from them; no other package of the server sees generated types.
//
// It may import fleet only, does no I/O and keeps no state.
package protocol

//go:generate protoc --go_out=. --go_opt=paths=source_relative -I . internalproto/InternalProtocol.proto externalproto/ExternalProtocol.proto

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"external-server/internal/fleet"
	"external-server/internal/protocol/externalproto"
	"external-server/internal/protocol/internalproto"
)

func deviceFromWire(d *internalproto.Device) fleet.Device {
	return fleet.Device{
		Module:   int32(d.GetModule()),
		Type:     d.GetDeviceType(),
		Role:     d.GetDeviceRole(),
		Name:     d.GetDeviceName(),
		Priority: d.GetPriority(),
	}
}

// EncodeClient is the inverse of DecodeClient; the simulated gateway and tests
// use it. Company and car go into a Connect (MSG-3); other kinds ignore them.
func EncodeClient(m fleet.ClientMessage, car fleet.CarID) ([]byte, error) {
	wire := &externalproto.ExternalClient{}
	switch m.Kind {
	case fleet.ClientConnect:
		connect := &externalproto.Connect{SessionId: m.SessionID, Company: car.Company, VehicleName: car.Car}
		for _, d := range m.Devices {
			connect.Devices = append(connect.Devices, deviceToWire(d))
		}
		wire.MessageType = &externalproto.ExternalClient_Connect{Connect: connect}
	case fleet.ClientStatus:
		status := &externalproto.Status{
			SessionId:      m.SessionID,
			DeviceState:    externalproto.Status_DeviceState(m.State),
			MessageCounter: m.Counter,
			DeviceStatus:   &internalproto.DeviceStatus{Device: deviceToWire(m.Device), StatusData: m.Data},
		}
		if len(m.Error) > 0 {
			status.ErrorMessage = m.Error
		}
		wire.MessageType = &externalproto.ExternalClient_Status{Status: status}
	case fleet.ClientCommandResponse:
		wire.MessageType = &externalproto.ExternalClient_CommandResponse{CommandResponse: &externalproto.CommandResponse{
			SessionId:      m.SessionID,
			Type:           externalproto.CommandResponse_Type(m.Response),
			MessageCounter: m.Counter,
		}}
	}
	b, err := proto.Marshal(wire)
	if err != nil {
		return nil, fmt.Errorf("encode %v message: %w", m.Kind, err)
	}
	return b, nil
}

func deviceToWire(d fleet.Device) *internalproto.Device {
	return &internalproto.Device{
		Module:     internalproto.Device_Module(d.Module),
		DeviceType: d.Type,
		DeviceRole: d.Role,
		DeviceName: d.Name,
		Priority:   d.Priority,
	}
}

// Field numbers of ExternalProtocol.proto, used by AppendServer.
const (
	fieldConnectResponse = 1
	fieldStatusResponse  = 2
	fieldCommand         = 3
)

// EncodeServer returns the bytes of a message to a gateway, made with one
// allocation.
func EncodeServer(m fleet.ServerMessage) []byte {
	const (
		response = 24 // bytes beside the session id, at most
		command  = 96 // bytes beside session id, role, name and data, at most
	)
	size := response + len(m.SessionID)
	if m.Kind == fleet.ServerCommand {
		size = command + len(m.SessionID) + len(m.Device.Role) + len(m.Device.Name) + len(m.Data)
	}
	return AppendServer(make([]byte, 0, size), m)
}

// AppendServer appends the bytes of a message to a gateway to dst and returns
// the extended slice. It writes the wire format directly, because every status
// costs one answer; tests compare it with the generated code.
func AppendServer(dst []byte, m fleet.ServerMessage) []byte {
	switch m.Kind {
	case fleet.ServerConnectResponse:
		typ := uint64(0)
		if m.AlreadyLogged {
			typ = 1
		}
		dst = appendHeader(dst, fieldConnectResponse, sizeString(1, m.SessionID)+sizeVarint(2, typ))
		dst = appendString(dst, 1, m.SessionID)
		return appendVarint(dst, 2, typ)
	case fleet.ServerStatusResponse:
		dst = appendHeader(dst, fieldStatusResponse, sizeString(1, m.SessionID)+sizeVarint(3, uint64(m.Counter)))
		dst = appendString(dst, 1, m.SessionID)
		return appendVarint(dst, 3, uint64(m.Counter))
	case fleet.ServerCommand:
		device := sizeDevice(m.Device)
		inner := protowire.SizeTag(1) + protowire.SizeBytes(device) + sizeString(2, m.Data)
		dst = appendHeader(dst, fieldCommand,
			sizeString(1, m.SessionID)+sizeVarint(2, uint64(m.Counter))+protowire.SizeTag(3)+protowire.SizeBytes(inner))
		dst = appendString(dst, 1, m.SessionID)
		dst = appendVarint(dst, 2, uint64(m.Counter))
		dst = appendHeader(dst, 3, inner)
		dst = appendHeader(dst, 1, device)
		dst = appendVarint(dst, 1, uint64(int64(m.Device.Module)))
		dst = appendVarint(dst, 2, uint64(m.Device.Type))
		dst = appendString(dst, 3, m.Device.Role)
		dst = appendString(dst, 4, m.Device.Name)
		dst = appendVarint(dst, 5, uint64(m.Device.Priority))
		return appendString(dst, 2, m.Data)
	}
	return dst
}

// DecodeServer parses a message of the server; the simulated gateway uses it.
// Kind is 0 when no member is set.
func DecodeServer(payload []byte) (fleet.ServerMessage, error) {
	var wire externalproto.ExternalServer
	if err := proto.Unmarshal(payload, &wire); err != nil {
		return fleet.ServerMessage{}, fmt.Errorf("not an ExternalServer message of %d bytes: %w", len(payload), err)
	}
	switch m := wire.GetMessageType().(type) {
	case *externalproto.ExternalServer_ConnectResponse:
		return fleet.ServerMessage{
			Kind:          fleet.ServerConnectResponse,
			SessionID:     m.ConnectResponse.GetSessionId(),
			AlreadyLogged: m.ConnectResponse.GetType() != externalproto.ConnectResponse_OK,
		}, nil
	case *externalproto.ExternalServer_StatusResponse:
		return fleet.ServerMessage{
			Kind:      fleet.ServerStatusResponse,
			SessionID: m.StatusResponse.GetSessionId(),
			Counter:   m.StatusResponse.GetMessageCounter(),
		}, nil
	case *externalproto.ExternalServer_Command:
		return fleet.ServerMessage{
			Kind:      fleet.ServerCommand,
			SessionID: m.Command.GetSessionId(),
			Counter:   m.Command.GetMessageCounter(),
			Device:    deviceFromWire(m.Command.GetDeviceCommand().GetDevice()),
			Data:      m.Command.GetDeviceCommand().GetCommandData(),
		}, nil
	}
	return fleet.ServerMessage{}, nil
}

func sizeDevice(d fleet.Device) int {
	return sizeVarint(1, uint64(int64(d.Module))) + sizeVarint(2, uint64(d.Type)) +
		sizeString(3, d.Role) + sizeString(4, d.Name) + sizeVarint(5, uint64(d.Priority))
}

func appendHeader(dst []byte, field protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.BytesType), uint64(size))
}

// The helpers below leave default values out, as proto3 demands (MSG-1).

func sizeString[T string | []byte](field protowire.Number, v T) int {
	if len(v) == 0 {
		return 0
	}
	return protowire.SizeTag(field) + protowire.SizeBytes(len(v))
}

func appendString[T string | []byte](dst []byte, field protowire.Number, v T) []byte {
	if len(v) == 0 {
		return dst
	}
	return append(appendHeader(dst, field, len(v)), v...)
}

func sizeVarint(field protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(field) + protowire.SizeVarint(v)
}

func appendVarint(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}
