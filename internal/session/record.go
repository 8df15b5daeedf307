package session

import (
	"cmp"
	"slices"

	"external-server/internal/fleet"
)

// Record is everything that a session in normal communication needs to go on in
// another process: what was decided, not what is under way. It holds no time,
// because times of one process mean nothing in another (RES-20). Statuses that were
// accepted and not delivered are not part of it, see Left.
//
// A Record belongs to its receiver.
type Record struct {
	ID         string
	Devices    []RecordedDevice // in connection order
	WithModule bool             // a supported device was connected: STAT-34 applies

	// Counting tells whether a status of normal communication has come (STAT-2).
	// First is the counter of the first, Expected the one that is next (STAT-1).
	Counting        bool
	First, Expected uint32
	Passed          []uint32              // counters before Expected whose status was not answered, oldest first
	Ahead           []fleet.ClientMessage // statuses whose turn has not come, in counter order
	Owed            []Owed                // statuses before Expected whose answers are held, in counter order

	Next     uint32            // counter of the next command (CMD-3)
	Commands []RecordedCommand // whose acknowledgement is awaited; the last has counter Next-1

	// Recovering: the session was out of reach, and it is not certain yet which of the
	// Commands have left. Their Before says nothing then.
	Recovering bool
	// Settled: all that was sent has reached the broker, after an orderly stop.
	Settled bool
}

// RecordedDevice is one device of a Record.
type RecordedDevice struct {
	fleet.Device
	Supported bool // its module takes it; false: answered only (REC-6)
}

// RecordedCommand is one command of a Record.
type RecordedCommand struct {
	fleet.Command
	Module    int32 // whose command_ack it is
	Fetched   bool  // came from a module, not an empty first command
	Responded bool  // recorded out of order (CMD-21)
	Response  fleet.ResponseType
	// Before is the counter of the status that was expected when the command left:
	// its bytes are behind the answers of all statuses below.
	Before uint32
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

// Resumption is what a journal knows of one car.
type Resumption struct {
	Record    *Record  // nil: the car had no session in normal communication
	Left      []Left   // per module in order
	Numbers   []Number // of the next status per module
	Positions []Position
	Next      uint32 // counter of the next command of the car (CMD-3)
	// Hint: it was left by a server that failed, see ResumeCarried. The status that is next is
	// Record.Expected or a later one, see adopt; of Left there is only what Record.Owed names. Come: a status has come since, the
	// lowest of them is Lowest.
	Hint, Come bool
	Lowest     uint32
	// Local: the process goes on, only what served the car has failed. All commands have
	// left, and a status that comes again was not answered.
	Local bool

	dropped []int32 // the module of each status that Drop took out
}

// Number is the number that the next status of a module gets.
type Number struct {
	Module int32
	Next   uint64
}

// Position is how far a module has fetched commands; its meaning is the module's.
type Position struct {
	Module int32
	Bytes  []byte
}

// Position returns that of the module, nil if there is none or the session of the car does
// not go on: what was fetched for it is stale then (DEF-38). r may be nil.
func (r *Resumption) Position(module int32) []byte {
	if r == nil || r.Record == nil {
		return nil
	}
	for _, p := range r.Positions {
		if p.Module == module {
			return p.Bytes
		}
	}
	return nil
}

// Heads returns the statuses with which the modules begin: the oldest of each that is
// left. One of them ended the process before if a status did.
func (r *Resumption) Heads() (heads []Left) {
	for _, l := range r.Left {
		if !slices.ContainsFunc(heads, func(h Left) bool { return h.Device.Module == l.Device.Module }) {
			heads = append(heads, l)
		}
	}
	return heads
}

// Drop takes the oldest status of a module that is left out and counts it, see GivenUp.
func (r *Resumption) Drop(module int32) {
	if i := slices.IndexFunc(r.Left, func(l Left) bool { return l.Device.Module == module }); i >= 0 {
		r.Left = slices.Delete(r.Left, i, i+1)
		r.dropped = append(r.dropped, module)
	}
}

// GivenUp is how many statuses of the module were dropped. r may be nil.
func (r *Resumption) GivenUp(module int32) (statuses int) {
	if r == nil {
		return 0
	}
	for _, m := range r.dropped {
		if m == module {
			statuses++
		}
	}
	return statuses
}

// Bounds of what a Record remembers of the past.
const (
	// maxPassed bounds the counters without answer. They are rare; an older one that
	// is forgotten would be answered when it comes again, which it does not as long
	// as the broker knows that it was handled.
	maxPassed = 64
	// maxRedelivered is how far back a status may be redelivered: a broker has no more
	// unacknowledged messages of a connection under way (Receive Maximum).
	maxRedelivered = 4096
)

// Record returns a copy of the session in normal communication, nil in every other
// phase: a connect sequence is not resumed (RES-4). A device whose admission is undecided
// is left out; its status waits in Ahead and makes it join again.
func (s *Session) Record() *Record {
	if s.phase != PhaseRunning {
		return nil
	}
	o := &s.order
	r := &Record{
		ID: s.id, Devices: s.recordDevices(), WithModule: s.withModule,
		Counting: o.started, First: o.first, Expected: o.expected, Passed: slices.Clone(o.passed),
		Next: s.sender.next, Recovering: s.recovery != nil,
		Owed: s.recordOwed(),
	}
	for _, m := range o.ahead {
		if !m.unrecorded {
			r.Ahead = append(r.Ahead, m.ClientMessage)
		}
	}
	slices.SortFunc(r.Ahead, func(a, b fleet.ClientMessage) int {
		return cmp.Compare(int32(a.Counter-o.expected), int32(b.Counter-o.expected))
	})
	for i := range s.sender.waiting {
		r.Commands = append(r.Commands, s.sender.waiting[i].record())
	}
	return r
}

func (c *sent) record() RecordedCommand {
	return RecordedCommand{Command: c.command, Module: c.module, Fetched: c.fetched, Responded: c.responded, Response: c.response, Before: c.before}
}

func (s *Session) recordDevices() []RecordedDevice {
	var out []RecordedDevice
	for _, d := range s.devices {
		if !d.asked {
			out = append(out, RecordedDevice{Device: d.Device, Supported: d.supported})
		}
	}
	return out
}
