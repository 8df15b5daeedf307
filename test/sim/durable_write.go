package sim

import (
	"time"
)

func (s *durableServer) publish(m outgoing) {
	if !s.link {
		s.w.fail("the core publishes %+v although the link is down", m)
		return
	}
	if s.silent && !m.notification {
		s.w.fail("the core publishes %+v in a resumed session before its first message", m)
	}
	if s.late && !m.notification {
		s.w.fail("the core publishes %+v before all was read that the broker held for long", m)
	}
	s.inOrder(m.message)
	s.out = append(s.out, wireItem{message: &m})
}

// discard forgets messages, not acknowledgements.
func (s *durableServer) discard() {
	kept := s.out[:0]
	for _, it := range s.out {
		if it.message == nil || it.message.notification {
			it.paired = false
			kept = append(kept, it)
		}
	}
	s.out = kept
}

func (s *durableServer) plan() {
	if len(s.out) == 0 || s.flushAt > s.w.now {
		return
	}
	s.flushAt = s.w.now + 1 + time.Duration(s.rnd.Int64N(int64(300*time.Microsecond)))
	s.soon(s.flushAt-s.w.now, s.flush)
}

// append writes the journal's batch.
func (s *durableServer) append() {
	s.file = append(s.file, s.batch...)
	s.batch = nil
	s.stamped = s.link // what the connection has ended is on record
}

// flush writes the journal and then the socket.
func (s *durableServer) flush() {
	s.flushAt = 0
	if s.killIn > 0 {
		if s.killIn--; s.killIn == 0 {
			if s.rnd.IntN(3) > 0 { // before the append or after it, before the write or in its middle
				s.append()
				if s.link && s.rnd.IntN(4) > 0 {
					s.write()
				}
			}
			if s.replica != nil {
				s.replica.die(s.killFor)
				return
			}
			s.kill(false)
			s.w.restart(s.killFor)
			return
		}
	}
	s.append()
	if s.link {
		s.write()
	}
	s.out = nil
}

func (s *durableServer) write() {
	if s.replica != nil {
		for i := range s.out {
			s.out[i].from = s.replica.epoch
		}
	}
	s.w.broker.write(s.conn, s.out)
}
