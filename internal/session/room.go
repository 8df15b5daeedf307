package session

import "math"

// CommandRoom tells how many more commands of the module the session takes, and how
// many bytes of them: data, role and name; the last one may exceed the bytes. The owner
// leaves the rest where it is, and has the module asked for no more, until there is
// room again (REC-22). If it hands over more, the oldest commands that are held back
// are dropped. Commands that would be dropped as stale anyway are always taken.
func (s *Session) CommandRoom(module int32) (commands, bytes int) {
	if s.Stale(module) {
		return math.MaxInt, math.MaxInt
	}
	if s.sends() {
		n, size := s.sent.Load(module)
		return max(0, s.opts.MaxUnacked-n), max(0, s.opts.MaxCommandBytes-size)
	}
	n, size := s.pending.Load(module)
	return max(0, s.opts.MaxPending-n), max(0, s.opts.MaxCommandBytes-size)
}

// Stale tells whether commands of the module would be dropped, because none of its
// devices is connected (DEF-38).
func (s *Session) Stale(module int32) bool {
	return s.phase == PhaseWaiting || !s.moduleConnected(module, nil)
}
