package session

import "slices"

// What has reached the broker shows by what it was told in the same stream of bytes: of a status that was handled it
// does not send again, and it has read all that stands in front of what told it so (RES-10).

// untold is the lowest counter of which the broker was not told in front of what is sent now. What is sent now has
// arrived if the broker knows that the status with this counter was handled (RES-10). That a status was
// answered says less: of one whose answer is held the broker may have been told before.
func (s *Session) untold() uint32 {
	counter := s.order.Untold()
	if first, ok := s.owed.Untold(); ok && s.phase == PhaseRunning && int32(first-counter) < 0 {
		counter = first
	}
	for _, n := range s.unsaid {
		if int32(n-counter) < 0 {
			counter = n
		}
	}
	return counter
}

// said notes that the broker was told of a status with its answer.
func (s *Session) said(counter uint32) {
	if len(s.unsaid) > 0 { // usually the one in hand
		s.unsaid = slices.DeleteFunc(s.unsaid, func(n uint32) bool { return n == counter })
	}
}

// lookBack notes what had come before the link was lost.
func (s *Session) lookBack() {
	r := s.recovery
	r.base, r.told, r.counted = s.order.Expected, s.untold(), s.order.Started
}

// lostCommands returns the place of the first waiting command that has not reached the
// broker, and whether that is certain (RES-10).
func (s *Session) lostCommands() (first int, certain bool) {
	r, waiting := s.recovery, s.sent.Waiting()
	cut := r.told // of all before the broker knows that they were handled
	if r.came {
		cut = r.lowest
	}
	known := 0 // all before have arrived
	for i := range waiting {
		c := &waiting[i]
		if c.Responded || !r.limbo && (r.settled || r.local || r.counted && int32(c.Before-cut) < 0) {
			known = i + 1
		}
	}
	if known == len(waiting) {
		return known, true
	}
	// What was sent when the broker was already told of a status that comes again has not left for certain.
	return known, !r.limbo && r.came && int32(waiting[known].Before-cut) > 0
}
