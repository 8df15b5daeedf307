package session

// A session that was out of reach for long answers nothing before it has read what the
// broker held (RES-6). An owner that can do so leaves the statuses of this time without
// acknowledgement until then: each acknowledgement then leaves with its answer, as always
// (RES-3), and a process that ends in between, or whose last bytes the broker does not
// read, owes nothing. The broker sends those statuses again. So they are not part of the
// journal either, until the owner has to acknowledge them before they are answered.

// Withheld tells whether the last Step has kept a status, or its answer, until everything
// is read. Its owner, which has said so with Event.Withhold, acknowledges it with the
// EffectPublish that answers this counter, or as soon as Withholds returns false.
func (s *Session) Withheld() (counter uint32, yes bool) {
	return s.withheld, s.withholds && s.withheldNow
}

// Withholds tells whether statuses wait without acknowledgement.
func (s *Session) Withholds() bool { return s.withholds }

// withhold notes that the acknowledgement of a status waits for its answer.
func (s *Session) withhold(counter uint32) { s.withheld, s.withheldNow = counter, true }

// stopWithholding says that what is still held will be acknowledged: from now on the journal
// has to know it.
func (s *Session) stopWithholding() {
	if !s.withholds {
		return
	}
	s.withholds = false
	acknowledged := s.order.Acknowledge()
	s.early, s.unsaid = append(s.early, acknowledged...), append(s.unsaid, acknowledged...)
}

// dropWithheld forgets what comes again over the next connection.
func (s *Session) dropWithheld() {
	if !s.withholds {
		return
	}
	s.withholds = false
	s.order.DropAgain()
}
