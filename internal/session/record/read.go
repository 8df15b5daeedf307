package record

import (
	"encoding/binary"
	"errors"
	"fmt"

	"external-server/internal/fleet"
)

var errShort = errors.New("the entry ends too early")

// reader takes values out of a record. After an error it returns zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err, r.b = err, nil
	}
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bool() bool {
	v := r.byte()
	if v > 1 {
		r.fail(fmt.Errorf("%d is neither yes nor no", v))
	}
	return v == 1
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uint32() uint32 {
	v := r.uvarint()
	if v > 1<<32-1 {
		r.fail(fmt.Errorf("%d is no 32-bit number", v))
	}
	return uint32(v)
}

func (r *reader) int32() int32 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	if v != int64(int32(v)) {
		r.fail(fmt.Errorf("%d is no 32-bit number", v))
		return 0
	}
	r.b = r.b[n:]
	return int32(v)
}

// bytes returns a part of the record, not a copy.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string { return string(r.bytes()) }

// copied returns a copy of a part of the record, nil when it is empty.
func (r *reader) copied() []byte { return append([]byte(nil), r.bytes()...) }

// count returns the length of a list whose elements have at least one byte each, so
// that a false one cannot ask for memory that the record does not justify.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return 0
	}
	return int(n)
}

func (r *reader) device() fleet.Device {
	return fleet.Device{Module: r.int32(), Type: r.uint32(), Role: r.text(), Name: r.text(), Priority: r.uint32()}
}

func (r *reader) devices() (devices []Device, withModule bool) {
	withModule = r.bool()
	for range r.count() {
		devices = append(devices, Device{Device: r.device(), Supported: r.bool()})
	}
	return devices, withModule
}

func (r *reader) held() fleet.ClientMessage {
	return fleet.ClientMessage{
		Kind: fleet.ClientStatus, Counter: r.uint32(), State: fleet.DeviceState(r.int32()),
		Device: r.device(), Data: r.copied(), Error: r.copied(),
	}
}

func (r *reader) command() Command {
	return Command{
		Command: fleet.Command{Device: r.device(), Data: r.copied()},
		Module:  r.int32(), Fetched: r.bool(), Responded: r.bool(), Response: fleet.ResponseType(r.int32()), Before: r.uint32(),
	}
}

func (r *reader) record() *Session {
	out := &Session{ID: r.text()}
	out.Devices, out.WithModule = r.devices()
	out.Counting = r.bool()
	out.First, out.Expected = r.uint32(), r.uint32()
	for range r.count() {
		out.Passed = append(out.Passed, r.uint32())
	}
	for range r.count() {
		m := r.held()
		m.SessionID = out.ID
		out.Ahead = append(out.Ahead, m)
	}
	out.Recovering = r.bool()
	out.Next = r.uint32()
	for range r.count() {
		out.Commands = append(out.Commands, r.command())
	}
	return out
}

func (r *reader) left() Left {
	return Left{Device: r.device(), Data: r.copied(), Error: r.copied(), Number: r.uvarint()}
}

func (r *reader) owed() Owed {
	return Owed{Counter: r.uint32(), Awaited: r.bool(), Module: r.int32(), Number: r.uvarint()}
}

func (r *reader) hint() Hint { return Hint{Come: r.bool(), Lowest: r.uint32()} }
