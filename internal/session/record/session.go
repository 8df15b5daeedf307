// Package record is the durable form of a session: what its journal says (Entries), what the records of a
// journal say together (Fold), and with what a session goes on in another process or on another server
// (Resumption). The format is versioned. Package session decides what is recorded and when.
package record

import (
	"fmt"
	"slices"

	"external-server/internal/fleet"
)

// Session is everything that a session in normal communication needs to go on in
// another process: what was decided, not what is under way. It holds no time,
// because times of one process mean nothing in another (RES-20). Statuses that were
// accepted and not delivered are not part of it, see Left.
//
// A Session belongs to its receiver.
type Session struct {
	ID         string
	Devices    []Device // in connection order
	WithModule bool     // a supported device was connected: STAT-34 applies

	// Counting tells whether a status of normal communication has come (STAT-2).
	// First is the counter of the first, Expected the one that is next (STAT-1).
	Counting        bool
	First, Expected uint32
	Passed          []uint32              // counters before Expected whose status was not answered, oldest first
	Ahead           []fleet.ClientMessage // statuses whose turn has not come, in counter order
	Owed            []Owed                // statuses before Expected whose answers are held, in counter order

	Next     uint32    // counter of the next command (CMD-3)
	Commands []Command // whose acknowledgement is awaited; the last has counter Next-1

	// Recovering: the session is out of reach, and it is not certain which of the Commands have left; their
	// Before says nothing then. It is certain if everything had reached the broker before, see Settled.
	Recovering bool
	// Settled: all that was sent has reached the broker, after an orderly stop.
	Settled bool
}

// Device is one device of a Session.
type Device struct {
	fleet.Device
	Supported bool // its module takes it; false: answered only (REC-6)
}

// Command is one command of a Session.
type Command struct {
	fleet.Command
	Module    int32 // whose command_ack it is
	Fetched   bool  // came from a module, not an empty first command
	Responded bool  // recorded out of order (CMD-21)
	Response  fleet.ResponseType
	// Before is the lowest status counter of which the broker was not told when the command left: its bytes
	// are in front of what tells that this status was handled, and behind what tells so of all below.
	Before uint32
}

// BeforeOf returns Before of a command that is sent now. With arrived, the command is known to have reached the
// broker, and stays in front of all statuses that come.
func BeforeOf(arrived bool, before uint32) uint32 {
	if arrived {
		return before - 1<<30
	}
	return before
}

// Left is a status that was accepted, and perhaps answered, and that its module has
// not confirmed. It is delivered first in the next process.
type Left struct {
	Device fleet.Device
	Data   []byte
	Error  []byte
	Number uint64 // in the order of the module's statuses, see EffectForward
	Tried  uint64 // processes that have begun with it and died before it was confirmed
}

// Owed is a status that was accepted and whose answer has not left.
type Owed struct {
	Counter uint32
	Awaited bool   // it leaves when the module has taken the status
	Module  int32  // meaningful if Awaited, and so is
	Number  uint64 // that of the status, see Left
}

// MaxPassed bounds the counters without answer of a Session. They are rare; an older one that
// is forgotten would be answered when it comes again, which it does not as long
// as the broker knows that it was handled.
const MaxPassed = 64

// AppendPassed appends a counter without answer, and forgets the oldest when there are MaxPassed.
func AppendPassed(passed []uint32, counter uint32) []uint32 {
	if len(passed) >= MaxPassed {
		passed = slices.Delete(passed, 0, len(passed)-MaxPassed+1)
	}
	return append(passed, counter)
}

// owe notes that an answer is held, answered that it has left.
func (s *Session) owe(o Owed) {
	at := len(s.Owed)
	for at > 0 && int32(s.Owed[at-1].Counter-o.Counter) > 0 {
		at--
	}
	s.Owed = slices.Insert(s.Owed, at, o)
}

func (s *Session) answered(counter uint32) {
	s.Owed = slices.DeleteFunc(s.Owed, func(o Owed) bool { return o.Counter == counter })
}

// begin notes that the first status has come: commands that were sent before stand in front of it.
func (s *Session) begin(counter uint32) {
	for i := range s.Commands {
		s.Commands[i].Before = counter
	}
}

// check looks for what no server has recorded.
func (s *Session) check() error {
	seen := make(map[fleet.DeviceID]bool, len(s.Devices))
	for i := range s.Devices {
		id := s.Devices[i].ID()
		if seen[id] {
			return fmt.Errorf("the record has the device %.64q twice", id.String())
		}
		seen[id] = true
	}
	counters := make(map[uint32]bool, len(s.Ahead))
	for i := range s.Ahead {
		n := s.Ahead[i].Counter
		if counters[n] || s.Counting && int32(n-s.Expected) < 0 {
			return fmt.Errorf("the record holds status %d twice, or behind the one that is next (%d)", n, s.Expected)
		}
		counters[n] = true
	}
	if len(s.Passed) > MaxPassed {
		return fmt.Errorf("the record has %d statuses without answer, at most %d were expected", len(s.Passed), MaxPassed)
	}
	return nil
}
