package record

import (
	"encoding/binary"

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
	entrySession    entryKind = iota + 1 // a whole Session: the session is in normal communication
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
	entryRecovered                       // and was found again
	entryNumbers                         // counter and numbers that are next, in a compacted journal
	entryTried                           // a process has begun with the status that was left (RES-17)
	entryForgotten                       // nothing of the car is known any more
	entryHint                            // the status that is next is not known exactly, see Hint
	entryOwed                            // the answer of a status that was accepted is held
	entryAnswered                        // it has left
	entryBefore                          // where the waiting commands stand, after a recovery
)

// Flags of entryStatus.
const (
	StatusAnswered = 1 << iota
	StatusForwarded
	StatusRunning // of normal communication, so it counts (STAT-1)
)

// Entries are a record that grows: each method appends one entry and returns the longer record, as
// append does.
type Entries []byte

// Begin appends the beginning of a record of the car to b.
func Begin(b []byte, car string) Entries { return appendText(append(b, recordVersion), car) }

// Session appends the whole session.
func (e Entries) Session(s *Session) Entries {
	b := appendText(append(e, byte(entrySession)), s.ID)
	b = appendDevices(b, s.Devices, s.WithModule)
	b = appendBool(b, s.Counting)
	b = binary.AppendUvarint(b, uint64(s.First))
	b = binary.AppendUvarint(b, uint64(s.Expected))
	b = binary.AppendUvarint(b, uint64(len(s.Passed)))
	for _, n := range s.Passed {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = binary.AppendUvarint(b, uint64(len(s.Ahead)))
	for i := range s.Ahead {
		b = appendHeld(b, &s.Ahead[i])
	}
	b = appendBool(b, s.Recovering)
	b = binary.AppendUvarint(b, uint64(s.Next))
	b = binary.AppendUvarint(b, uint64(len(s.Commands)))
	for i := range s.Commands {
		b = appendCommand(b, &s.Commands[i])
	}
	e = b
	for _, o := range s.Owed {
		e = e.Owed(o)
	}
	return e
}

// Ended appends that the session has ended, or that there is none.
func (e Entries) Ended() Entries { return append(e, byte(entryEnded)) }

// Forgotten appends that nothing of the car goes on, and that nothing has to be remembered of it.
func (e Entries) Forgotten() Entries { return append(e, byte(entryForgotten)) }

// Settled appends that everything the car was sent has reached the broker.
func (e Entries) Settled() Entries { return append(e, byte(entrySettled)) }

// Recovering appends that the session is out of reach.
func (e Entries) Recovering() Entries { return append(e, byte(entryRecovering)) }

// Recovered appends that the session was found again.
func (e Entries) Recovered() Entries { return append(e, byte(entryRecovered)) }

// Devices appends all devices of the session.
func (e Entries) Devices(devices []Device, withModule bool) Entries {
	return appendDevices(append(e, byte(entryDevices)), devices, withModule)
}

// Status appends that a status was accepted or passed over; with StatusForwarded, that its module gets it
// under the number.
func (e Entries) Status(m *fleet.ClientMessage, flags byte, number uint64) Entries {
	b := binary.AppendUvarint(append(e, byte(entryStatus), flags), uint64(m.Counter))
	if flags&StatusForwarded != 0 {
		b = appendDevice(b, m.Device)
		b = appendText(appendText(b, m.Data), m.Error)
		b = binary.AppendUvarint(b, number)
	}
	return b
}

// Held appends that a status waits for its turn.
func (e Entries) Held(m *fleet.ClientMessage) Entries {
	return appendHeld(append(e, byte(entryHeld)), m)
}

// Owed appends that the answer of a status is held.
func (e Entries) Owed(o Owed) Entries {
	b := binary.AppendUvarint(append(e, byte(entryOwed)), uint64(o.Counter))
	b = binary.AppendVarint(appendBool(b, o.Awaited), int64(o.Module))
	return binary.AppendUvarint(b, o.Number)
}

// Answered appends that the answer that was held has left.
func (e Entries) Answered(counter uint32) Entries {
	return binary.AppendUvarint(append(e, byte(entryAnswered)), uint64(counter))
}

// Before appends that so many of the waiting commands have arrived, and that the others are sent again now; see Command.Before.
func (e Entries) Before(arrived int, before uint32) Entries {
	b := binary.AppendUvarint(append(e, byte(entryBefore)), uint64(arrived))
	return binary.AppendUvarint(b, uint64(before))
}

// Command appends that a command was sent.
func (e Entries) Command(counter uint32, c *Command) Entries {
	return appendCommand(binary.AppendUvarint(append(e, byte(entryCommand)), uint64(counter)), c)
}

// Response appends the response to a command, recorded out of order or not (CMD-21).
func (e Entries) Response(counter uint32, response fleet.ResponseType) Entries {
	b := binary.AppendUvarint(append(e, byte(entryResponse)), uint64(counter))
	return binary.AppendVarint(b, int64(response))
}

// Delivered appends that the module has confirmed its statuses up to the number.
func (e Entries) Delivered(module int32, number uint64) Entries {
	b := binary.AppendVarint(append(e, byte(entryDelivered)), int64(module))
	return binary.AppendUvarint(b, number)
}

// Left appends a status that its module has not confirmed.
func (e Entries) Left(l *Left) Entries {
	b := appendDevice(append(e, byte(entryLeft)), l.Device)
	b = appendText(appendText(b, l.Data), l.Error)
	return binary.AppendUvarint(b, l.Number)
}

// Tried appends how many more processes have begun with a status that was left (RES-17).
func (e Entries) Tried(module int32, number, times uint64) Entries {
	b := binary.AppendVarint(append(e, byte(entryTried)), int64(module))
	return binary.AppendUvarint(binary.AppendUvarint(b, number), times)
}

// Position appends how far the module has fetched commands.
func (e Entries) Position(module int32, position []byte) Entries {
	return appendText(binary.AppendVarint(append(e, byte(entryPosition)), int64(module)), position)
}

// Numbers appends the counter of the next command and the number of the next status of each module.
func (e Entries) Numbers(next uint32, numbers []Number) Entries {
	b := binary.AppendUvarint(append(e, byte(entryNumbers)), uint64(next))
	b = binary.AppendUvarint(b, uint64(len(numbers)))
	for _, n := range numbers {
		b = binary.AppendUvarint(binary.AppendVarint(b, int64(n.Module)), n.Next)
	}
	return b
}

// Hint appends that the status that is next is not known exactly.
func (e Entries) Hint(h Hint) Entries {
	return binary.AppendUvarint(appendBool(append(e, byte(entryHint)), h.Come), uint64(h.Lowest))
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

func appendDevices(b []byte, devices []Device, withModule bool) []byte {
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

func appendCommand(b []byte, c *Command) []byte {
	b = appendDevice(b, c.Device)
	b = appendText(b, c.Data)
	b = binary.AppendVarint(b, int64(c.Module))
	b = appendBool(appendBool(b, c.Fetched), c.Responded)
	b = binary.AppendVarint(b, int64(c.Response))
	return binary.AppendUvarint(b, uint64(c.Before))
}
