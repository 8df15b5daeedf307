package fleetapi

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

// entry is one accepted status or error message that waits to be posted.
type entry struct {
	device  fleet.Device
	isError bool      // posted as STATUS_ERROR
	at      time.Time // when it was accepted
	data    []byte    // compact JSON
}

// size is what the entry counts against the bounds in bytes.
func (e *entry) size() int { return len(e.data) + len(e.device.Role) + len(e.device.Name) + 128 }

// message is the form of MM-1. The timestamp is in seconds, as the C++
// libraries send it; the API ignores it.
func (e *entry) message() httpapi.Message {
	m := httpapi.Message{
		DeviceID: httpapi.DeviceID{
			ModuleID: int64(e.device.Module), Type: int64(e.device.Type),
			Role: e.device.Role, Name: e.device.Name,
		},
		Payload:   httpapi.Payload{Data: json.RawMessage(e.data), Encoding: httpapi.EncodingJSON, MessageType: httpapi.TypeStatus},
		Timestamp: e.at.Unix(),
	}
	if e.isError {
		m.Payload.MessageType = httpapi.TypeStatusError
	}
	return m
}

// recordVersion is the first byte of a record in the spool. A record of another
// version is refused, not guessed.
const recordVersion = 1

// appendRecord encodes the entry for the spool: version, flags, time in ms since
// 1970, type, role, name, data. The module number is that of the spool.
func (e *entry) appendRecord(b []byte) []byte {
	flags := byte(0)
	if e.isError {
		flags = 1
	}
	b = append(b, recordVersion, flags)
	b = binary.AppendVarint(b, e.at.UnixMilli())
	b = binary.AppendUvarint(b, uint64(e.device.Type))
	b = appendBytes(b, e.device.Role)
	b = appendBytes(b, e.device.Name)
	return append(b, e.data...)
}

func appendBytes(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errRecord = errors.New("the record is cut off")

// parseRecord is the inverse of appendRecord. The entry shares b.
func parseRecord(b []byte, number int32) (entry, error) {
	if len(b) < 2 {
		return entry{}, errRecord
	}
	if b[0] != recordVersion || b[1] > 1 {
		return entry{}, fmt.Errorf("the record is of version %d, flags %d; expected version %d", b[0], b[1], recordVersion)
	}
	e := entry{isError: b[1] == 1, device: fleet.Device{Module: number}}
	b = b[2:]
	at, n := binary.Varint(b)
	if n <= 0 {
		return entry{}, errRecord
	}
	e.at = time.UnixMilli(at)
	b = b[n:]
	t, n := binary.Uvarint(b)
	if n <= 0 || t > 1<<32-1 {
		return entry{}, errRecord
	}
	e.device.Type = uint32(t)
	b = b[n:]
	for _, field := range []*string{&e.device.Role, &e.device.Name} {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return entry{}, errRecord
		}
		*field = string(b[n : n+int(size)])
		b = b[n+int(size):]
	}
	if !json.Valid(b) {
		return entry{}, errors.New("the data of the record is not JSON")
	}
	e.data = b
	return e, nil
}
