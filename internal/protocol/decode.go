package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"external-server/internal/fleet"
)

// Bounds of what a gateway may send (REC-22). Real ones stay far below.
const (
	maxTextLength = 4096 // bytes of a session id, role or name
	maxDevices    = 4096 // of a Connect
)

// What a Decoder remembers: names of this length at most, so many of them.
const (
	maxKnownLength = 64 // bytes
	maxKnown       = 64
)

// Decoder reads the messages of one gateway. It reads the wire format directly
// and remembers the session id, roles and names it has seen, so that a status
// of normal communication costs no allocation; tests compare it with the
// generated code. The zero value is ready. It is not safe for concurrent use.
type Decoder struct {
	known map[string]string
}

// DecodeClient parses a message of a gateway. Bytes that are not an
// ExternalClient message by proto3 rules, invalid UTF-8 included, give an error
// (CONN-32), and so does a message with a longer text or more devices than any
// gateway has (REC-22); one without a member gives Kind ClientEmpty (CONN-33).
// The result does not alias payload.
func DecodeClient(payload []byte) (fleet.ClientMessage, error) {
	var d Decoder
	return d.Client(bytes.Clone(payload))
}

// Client is like DecodeClient, but Data and Error of the result may be parts of
// payload, which must not change any more. They keep no payload alive that is much
// longer than they are: who keeps them has what their length says.
func (d *Decoder) Client(payload []byte) (fleet.ClientMessage, error) {
	var m fleet.ClientMessage
	r := reader{rest: payload}
	for r.more() {
		num, typ := r.tag()
		kind := fleet.ClientEmpty
		switch num {
		case 1:
			kind = fleet.ClientConnect
		case 2:
			kind = fleet.ClientStatus
		case 3:
			kind = fleet.ClientCommandResponse
		}
		if kind == fleet.ClientEmpty || typ != protowire.BytesType {
			r.skip(num, typ)
			continue
		}
		member := reader{rest: r.bytes()}
		if kind != m.Kind { // the last member of a oneof counts, equal ones are merged
			m = fleet.ClientMessage{Kind: kind}
		}
		switch kind {
		case fleet.ClientConnect:
			d.connect(&member, &m)
		case fleet.ClientStatus:
			d.status(&member, &m)
		case fleet.ClientCommandResponse:
			d.commandResponse(&member, &m)
		}
		r.include(&member)
	}
	if r.err != nil {
		return fleet.ClientMessage{}, fmt.Errorf("not an ExternalClient message of %d bytes: %w", len(payload), r.err)
	}
	if len(payload) > 2*(len(m.Data)+len(m.Error))+maxTextLength {
		m.Data, m.Error = bytes.Clone(m.Data), bytes.Clone(m.Error)
	}
	return m, nil
}

func (d *Decoder) connect(r *reader, m *fleet.ClientMessage) {
	for r.more() {
		switch num, typ := r.tag(); {
		case num == 1 && typ == protowire.BytesType:
			m.SessionID = d.text(r)
		case (num == 2 || num == 3) && typ == protowire.BytesType:
			if !utf8.Valid(r.bytes()) { // company and vehicleName are not used (MSG-3)
				r.fail(errUTF8)
			}
		case num == 4 && typ == protowire.BytesType:
			device := reader{rest: r.bytes()}
			if len(m.Devices) == maxDevices {
				r.fail(errDevices)
				return
			}
			m.Devices = append(m.Devices, fleet.Device{})
			d.device(&device, &m.Devices[len(m.Devices)-1])
			r.include(&device)
		default:
			r.skip(num, typ)
		}
	}
}

func (d *Decoder) status(r *reader, m *fleet.ClientMessage) {
	for r.more() {
		switch num, typ := r.tag(); {
		case num == 1 && typ == protowire.BytesType:
			m.SessionID = d.text(r)
		case num == 2 && typ == protowire.VarintType:
			m.State = fleet.DeviceState(r.varint())
		case num == 3 && typ == protowire.VarintType:
			m.Counter = uint32(r.varint())
		case num == 4 && typ == protowire.BytesType:
			inner := reader{rest: r.bytes()}
			d.deviceStatus(&inner, m)
			r.include(&inner)
		case num == 5 && typ == protowire.BytesType:
			m.Error = r.bytes()
		default:
			r.skip(num, typ)
		}
	}
}

func (d *Decoder) deviceStatus(r *reader, m *fleet.ClientMessage) {
	for r.more() {
		switch num, typ := r.tag(); {
		case num == 1 && typ == protowire.BytesType:
			device := reader{rest: r.bytes()}
			d.device(&device, &m.Device)
			r.include(&device)
		case num == 2 && typ == protowire.BytesType:
			m.Data = r.bytes()
		default:
			r.skip(num, typ)
		}
	}
}

func (d *Decoder) commandResponse(r *reader, m *fleet.ClientMessage) {
	for r.more() {
		switch num, typ := r.tag(); {
		case num == 1 && typ == protowire.BytesType:
			m.SessionID = d.text(r)
		case num == 2 && typ == protowire.VarintType:
			m.Response = fleet.ResponseType(r.varint())
		case num == 3 && typ == protowire.VarintType:
			m.Counter = uint32(r.varint())
		default:
			r.skip(num, typ)
		}
	}
}

func (d *Decoder) device(r *reader, out *fleet.Device) {
	for r.more() {
		switch num, typ := r.tag(); {
		case num == 1 && typ == protowire.VarintType:
			out.Module = int32(r.varint())
		case num == 2 && typ == protowire.VarintType:
			out.Type = uint32(r.varint())
		case num == 3 && typ == protowire.BytesType:
			out.Role = d.text(r)
		case num == 4 && typ == protowire.BytesType:
			out.Name = d.text(r)
		case num == 5 && typ == protowire.VarintType:
			out.Priority = uint32(r.varint())
		default:
			r.skip(num, typ)
		}
	}
}

// text reads a string, which must be UTF-8.
func (d *Decoder) text(r *reader) string {
	b := r.bytes()
	if len(b) == 0 {
		return ""
	}
	if s, ok := d.known[string(b)]; ok {
		return s
	}
	if len(b) > maxTextLength {
		r.fail(errLength)
		return ""
	}
	if !utf8.Valid(b) {
		r.fail(errUTF8)
		return ""
	}
	s := string(b)
	if len(s) <= maxKnownLength {
		if d.known == nil {
			d.known = make(map[string]string)
		}
		if len(d.known) >= maxKnown { // sessions come and go
			clear(d.known)
		}
		d.known[s] = s
	}
	return s
}

var (
	errUTF8    = errors.New("a string is not valid UTF-8")
	errLength  = fmt.Errorf("a session id, role or name has more than %d bytes", maxTextLength)
	errDevices = fmt.Errorf("a Connect has more than %d devices", maxDevices)
	errField   = errors.New("field number out of range")
)

// reader takes fields from the front of a message. After the first error it is
// empty.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) more() bool { return len(r.rest) > 0 }

func (r *reader) fail(err error) {
	r.rest = nil
	if r.err == nil {
		r.err = err
	}
}

// include passes the error of a nested message on.
func (r *reader) include(nested *reader) {
	if nested.err != nil {
		r.fail(nested.err)
	}
}

// took advances by n bytes, a negative n is an error of protowire.
func (r *reader) took(n int) {
	if n < 0 {
		r.fail(protowire.ParseError(n))
		return
	}
	r.rest = r.rest[n:]
}

func (r *reader) tag() (protowire.Number, protowire.Type) {
	v := r.varint()
	if n := v >> 3; r.err == nil && (n < uint64(protowire.MinValidNumber) || n > uint64(protowire.MaxValidNumber)) {
		r.fail(errField)
	}
	return protowire.Number(v >> 3), protowire.Type(v & 7)
}

func (r *reader) varint() uint64 {
	if len(r.rest) > 0 && r.rest[0] < 0x80 {
		v := uint64(r.rest[0])
		r.rest = r.rest[1:]
		return v
	}
	v, n := protowire.ConsumeVarint(r.rest)
	r.took(n)
	return v
}

// bytes returns a part of the message, with no room behind it that append could
// overwrite.
func (r *reader) bytes() []byte {
	b, n := protowire.ConsumeBytes(r.rest)
	r.took(n)
	return b[:len(b):len(b)]
}

// skip passes over a field that is not known; a known number with an unexpected
// type counts as such.
func (r *reader) skip(num protowire.Number, typ protowire.Type) {
	if r.err != nil {
		return
	}
	r.took(protowire.ConsumeFieldValue(num, typ, r.rest))
}
