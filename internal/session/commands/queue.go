// Package commands holds the commands of one car: those that were sent and wait for their response
// (Queue), and those of modules that wait for normal communication (Pending). Package session decides
// when a command is sent and what its response means.
//
//   - Counters of commands are consecutive modulo 2^32, over all sessions of the car (CMD-3, CMD-11).
//   - A Queue is in the order of the counters, and a command leaves it at its front only, with a
//     response (CMD-20, CMD-21).
//   - What a module has in either is counted, in commands and in bytes (REC-22).
//
// Nothing here reads a clock: times come from the caller.
package commands

import (
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// NoModule marks a command that no module gets an acknowledgement for.
const NoModule = int32(-1 << 31)

// Sent is a command whose response is awaited.
type Sent struct {
	Command   fleet.Command
	Module    int32     // whose command_ack it is, or NoModule
	Fetched   bool      // came from module From, not an empty first command
	From      int32     // the module whose load it is
	At        time.Time // when it was sent
	By        time.Time // when the response is overdue
	Before    uint32    // the lowest status without answer when it was sent
	Responded bool      // recorded out of order (CMD-21)
	Response  fleet.ResponseType
}

// Record returns its durable form.
func (c *Sent) Record() record.Command {
	return record.Command{Command: c.Command, Module: c.Module, Fetched: c.Fetched, Responded: c.Responded, Response: c.Response, Before: c.Before}
}

// Queue numbers the commands of a car and remembers what is unacknowledged.
type Queue struct {
	Next    uint32 // counter of the next command, never reset (CMD-3, DEF-50)
	first   uint32 // the session has sent none before
	waiting []Sent // the last has counter Next-1
	loads   []load // of the modules
}

// load counts the unacknowledged commands that one module has handed out.
type load struct {
	module          int32
	commands, bytes int
}

// Begin notes that a session begins: all commands from Next on are its own.
func (q *Queue) Begin() { q.first = q.Next }

// Reset forgets what waits, as the session has ended (SESS-8).
func (q *Queue) Reset() { q.waiting, q.loads = nil, nil }

// Restore takes over the commands of an earlier process, with limits of their own.
func (q *Queue) Restore(next uint32, commands []record.Command, now, by time.Time) {
	q.Next = next
	q.first = next - 1<<31 // that of the session is not known
	for _, c := range commands {
		sent := Sent{
			Command: c.Command, Module: c.Module, Fetched: c.Fetched, Responded: c.Responded, Response: c.Response, Before: c.Before,
			From: c.Module, At: now, By: by,
		}
		q.waiting = append(q.waiting, sent)
		q.count(&sent, 1)
	}
}

// Add appends a command that is being sent and returns its counter.
func (q *Queue) Add(c Sent) (counter uint32) {
	counter = q.Next
	q.Next++
	q.waiting = append(q.waiting, c)
	q.count(&c, 1)
	return counter
}

// Waiting returns the commands that wait, oldest first. Their limits and Before may be changed in place;
// the slice is valid until the Queue changes.
func (q *Queue) Waiting() []Sent { return q.waiting }

// Counter returns the counter of Waiting()[i].
func (q *Queue) Counter(i int) uint32 { return q.Next - uint32(len(q.waiting)) + uint32(i) }

// Find returns the command with the counter, nil if none waits.
func (q *Queue) Find(counter uint32) *Sent {
	if i := counter - q.Counter(0); i < uint32(len(q.waiting)) { // modulo 2^32
		return &q.waiting[i]
	}
	return nil
}

// Ours tells whether a command with the counter may have been sent in this session.
func (q *Queue) Ours(counter uint32) bool { return counter-q.first < q.Next-q.first }

// Pop takes out the oldest command if it was responded to (CMD-20).
func (q *Queue) Pop() (c Sent, counter uint32, ok bool) {
	if len(q.waiting) == 0 || !q.waiting[0].Responded {
		return Sent{}, 0, false
	}
	c, counter = q.waiting[0], q.Counter(0)
	q.count(&c, -1)
	q.waiting[0] = Sent{}
	if q.waiting = q.waiting[1:]; len(q.waiting) == 0 {
		q.waiting = nil
	}
	return c, counter, true
}

// Unacked counts the commands of modules without acknowledgement (DEF-41).
func (q *Queue) Unacked() int {
	n := 0
	for i := range q.waiting {
		if q.waiting[i].Fetched {
			n++
		}
	}
	return n
}

// Deadline is that of the oldest command: all have the same limit, so it is the
// first to come due (CMD-10). Zero: none waits.
func (q *Queue) Deadline() time.Time {
	if len(q.waiting) == 0 {
		return time.Time{}
	}
	return q.waiting[0].By
}

// Restart gives the first commands without a response to their counter a new
// limit when normal communication begins and the old one has passed: responses
// to them were awaited together, each with a limit of its own (SEQ-45), and
// timers of the sequence end with it (SEQ-47, REC-7).
func (q *Queue) Restart(now, by time.Time) {
	for i := range q.waiting {
		if !now.Before(q.waiting[i].By) {
			q.waiting[i].By = by
		}
	}
}

// Load returns how many commands the module has under way, and how many bytes of them.
func (q *Queue) Load(module int32) (commands, bytes int) {
	for _, l := range q.loads {
		if l.module == module {
			return l.commands, l.bytes
		}
	}
	return 0, 0
}

// count adds a command to the load of the module that handed it out, or takes it off
// with -1. Empty first commands are those of devices, which are bounded.
func (q *Queue) count(c *Sent, sign int) {
	if !c.Fetched {
		return
	}
	i := slices.IndexFunc(q.loads, func(l load) bool { return l.module == c.From })
	if i < 0 {
		i, q.loads = len(q.loads), append(q.loads, load{module: c.From})
	}
	q.loads[i].commands += sign
	q.loads[i].bytes += sign * size(&c.Command)
}

// size is what counts of a command when memory is bounded (REC-22).
func size(c *fleet.Command) int {
	return len(c.Data) + len(c.Device.Role) + len(c.Device.Name)
}
