package session

import (
	"math"
	"slices"

	"external-server/internal/fleet"
)

// load counts the unacknowledged commands that one module has handed out.
type load struct {
	module          int32
	commands, bytes int
}

// commandSize is what counts of a command when memory is bounded (REC-22).
func commandSize(c *fleet.Command) int {
	return len(c.Data) + len(c.Device.Role) + len(c.Device.Name)
}

// CommandRoom tells how many more commands of the module the session takes, and how
// many bytes of them: data, role and name; the last one may exceed the bytes. The owner
// leaves the rest where it is, and has the module asked for no more, until there is
// room again (REC-22). Of what it hands over all the same, the oldest that are held
// back are dropped. What would be dropped as stale anyway is always taken.
func (s *Session) CommandRoom(module int32) (commands, bytes int) {
	if s.Stale(module) {
		return math.MaxInt, math.MaxInt
	}
	if s.sends() {
		l := s.sender.load(module)
		return max(0, s.opts.MaxUnacked-l.commands), max(0, s.opts.MaxCommandBytes-l.bytes)
	}
	i := slices.IndexFunc(s.pending, func(p pendingCommands) bool { return p.module == module })
	if i < 0 {
		return s.opts.MaxPending, s.opts.MaxCommandBytes
	}
	return max(0, s.opts.MaxPending-len(s.pending[i].commands)), max(0, s.opts.MaxCommandBytes-s.pending[i].bytes)
}

// Stale tells whether commands of the module would be dropped, because none of its
// devices is connected (DEF-38).
func (s *Session) Stale(module int32) bool {
	return s.phase == PhaseWaiting || !s.moduleConnected(module, nil)
}

// load returns what the module has under way.
func (q *sender) load(module int32) load {
	for _, l := range q.loads {
		if l.module == module {
			return l
		}
	}
	return load{module: module}
}

// count adds a command to the load of the module that handed it out, or takes it off
// with -1. Empty first commands are those of devices, which are bounded.
func (q *sender) count(c *sent, sign int) {
	if !c.fetched {
		return
	}
	i := slices.IndexFunc(q.loads, func(l load) bool { return l.module == c.from })
	if i < 0 {
		i, q.loads = len(q.loads), append(q.loads, load{module: c.from})
	}
	q.loads[i].commands += sign
	q.loads[i].bytes += sign * commandSize(&c.command)
}
