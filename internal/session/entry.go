package session

import (
	"encoding/binary"
	"errors"
	"fmt"

	"external-server/internal/fleet"
)

// A journal holds records. Each belongs to one car and one Step and consists of
//
//	version, name of the car, entries
//
// Integers are varints, texts have their length before them. An entry begins with
// its kind. What an entry says is in the order of the kinds below; who reads one of
// another version, or a kind that does not exist, stops: it was written by a newer
// program.
const recordVersion = 1

// entryKind tells what an entry says.
type entryKind byte

const (
	entrySession    entryKind = iota + 1 // a whole Record: the session is in normal communication
	entryDevices                         // the devices of the session
	entryStatus                          // a status was accepted or passed over
	entryHeld                            // a status waits for its turn
	entryCommand                         // a command was sent
	entryResponse                        // the response to a command was recorded (CMD-21)
	entryDelivered                       // a module confirmed its statuses up to a number
	entryPosition                        // how far a module has fetched commands
	entryEnded                           // the session ended
	entryLeft                            // a status that was not delivered, in a compacted journal
	entrySettled                         // all that was sent has reached the broker
	entryRecovering                      // the session is out of reach from here on
	entryRecovered                       // and was found again: the waiting commands have left
	entryNumbers                         // counter and numbers that are next, in a compacted journal
	entryTried                           // a process has begun with the status that was left (RES-17)
	entryForgotten                       // nothing of the car is known any more
	entryHint                            // the status that is next is not known exactly, see Resumption.Hint
	entryOwed                            // the answer of a status that was accepted is held
	entryAnswered                        // it has left
)

// Flags of entryStatus.
const (
	statusAnswered = 1 << iota
	statusForwarded
	statusRunning // of normal communication, so it counts (STAT-1)
)

var errShort = errors.New("the entry ends too early")

// appendHeader begins the record of a car.
func appendHeader(b []byte, car string) []byte {
	return appendText(append(b, recordVersion), car)
}

// AppendDelivered appends a record that says that the module has confirmed the
// statuses of the car up to the number.
func AppendDelivered(b []byte, car string, module int32, number uint64) []byte {
	b = append(appendHeader(b, car), byte(entryDelivered))
	b = binary.AppendVarint(b, int64(module))
	return binary.AppendUvarint(b, number)
}

// AppendPosition appends a record that says how far the module has fetched commands for
// the car.
func AppendPosition(b []byte, car string, module int32, position []byte) []byte {
	b = binary.AppendVarint(append(appendHeader(b, car), byte(entryPosition)), int64(module))
	return appendText(b, position)
}

// AppendTried appends a record that says that a process begins with a status that was
// left.
func AppendTried(b []byte, car string, module int32, number uint64) []byte {
	return appendTried(appendHeader(b, car), module, number, 1)
}

func appendTried(b []byte, module int32, number, times uint64) []byte {
	b = binary.AppendVarint(append(b, byte(entryTried)), int64(module))
	return binary.AppendUvarint(binary.AppendUvarint(b, number), times)
}

// AppendLeft appends a record of a status that no module has confirmed, for a journal that
// begins anew.
func AppendLeft(b []byte, car string, l *Left) []byte { return appendLeft(appendHeader(b, car), l) }

// AppendForgotten appends a record that says that nothing of the car goes on, and that
// nothing has to be remembered of it.
func AppendForgotten(b []byte, car string) []byte {
	return append(appendHeader(b, car), byte(entryForgotten))
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendDevice(b []byte, d fleet.Device) []byte {
	b = binary.AppendVarint(b, int64(d.Module))
	b = binary.AppendUvarint(b, uint64(d.Type))
	b = appendText(b, d.Role)
	b = appendText(b, d.Name)
	return binary.AppendUvarint(b, uint64(d.Priority))
}

func appendDevices(b []byte, devices []RecordedDevice, withModule bool) []byte {
	b = appendBool(b, withModule)
	b = binary.AppendUvarint(b, uint64(len(devices)))
	for i := range devices {
		b = appendBool(appendDevice(b, devices[i].Device), devices[i].Supported)
	}
	return b
}

func appendHeld(b []byte, m *fleet.ClientMessage) []byte {
	b = binary.AppendUvarint(b, uint64(m.Counter))
	b = binary.AppendVarint(b, int64(m.State))
	b = appendDevice(b, m.Device)
	return appendText(appendText(b, m.Data), m.Error)
}

func appendCommand(b []byte, c *RecordedCommand) []byte {
	b = appendDevice(b, c.Device)
	b = appendText(b, c.Data)
	b = binary.AppendVarint(b, int64(c.Module))
	b = appendBool(appendBool(b, c.Fetched), c.Responded)
	b = binary.AppendVarint(b, int64(c.Response))
	return binary.AppendUvarint(b, uint64(c.Before))
}

func appendRecord(b []byte, r *Record) []byte {
	b = appendText(append(b, byte(entrySession)), r.ID)
	b = appendDevices(b, r.Devices, r.WithModule)
	b = appendBool(b, r.Counting)
	b = binary.AppendUvarint(b, uint64(r.First))
	b = binary.AppendUvarint(b, uint64(r.Expected))
	b = binary.AppendUvarint(b, uint64(len(r.Passed)))
	for _, n := range r.Passed {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Ahead)))
	for i := range r.Ahead {
		b = appendHeld(b, &r.Ahead[i])
	}
	b = appendBool(b, r.Recovering)
	b = binary.AppendUvarint(b, uint64(r.Next))
	b = binary.AppendUvarint(b, uint64(len(r.Commands)))
	for i := range r.Commands {
		b = appendCommand(b, &r.Commands[i])
	}
	for _, o := range r.Owed {
		b = appendOwed(b, o)
	}
	return b
}

func appendLeft(b []byte, l *Left) []byte {
	b = appendDevice(append(b, byte(entryLeft)), l.Device)
	b = appendText(appendText(b, l.Data), l.Error)
	return binary.AppendUvarint(b, l.Number)
}

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

func (r *reader) devices() (devices []RecordedDevice, withModule bool) {
	withModule = r.bool()
	for range r.count() {
		devices = append(devices, RecordedDevice{Device: r.device(), Supported: r.bool()})
	}
	return devices, withModule
}

func (r *reader) held() fleet.ClientMessage {
	return fleet.ClientMessage{
		Kind: fleet.ClientStatus, Counter: r.uint32(), State: fleet.DeviceState(r.int32()),
		Device: r.device(), Data: r.copied(), Error: r.copied(),
	}
}

func (r *reader) command() RecordedCommand {
	return RecordedCommand{
		Command: fleet.Command{Device: r.device(), Data: r.copied()},
		Module:  r.int32(), Fetched: r.bool(), Responded: r.bool(), Response: fleet.ResponseType(r.int32()), Before: r.uint32(),
	}
}

func (r *reader) record() *Record {
	out := &Record{ID: r.text()}
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
