package sim

import (
	"math/rand/v2"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// outgoing is a message in the server's queue or under way to the gateway.
type outgoing struct {
	notification bool // the disconnect notification, no message
	message      fleet.ServerMessage
}

// server is the process around the core: what performs the effects, feeds the
// events, keeps the one timer, and dies.
type server struct {
	w   *World
	rnd *rand.Rand

	alive   bool
	life    int // counts the processes; what an earlier one planned does not happen
	core    *session.Session
	workers [len(moduleNumbers)]*worker
	skew    time.Duration // of the clock, by StepClock

	mail    []session.Event // what waits while the process is paused
	paused  time.Duration   // until
	armed   time.Time
	timer   int // generation of the timer
	queue   []outgoing
	flushAt time.Duration // when the queue is handed to the broker
	congest time.Duration // not before
}

var epoch = time.Unix(1_700_000_000, 0)

// clock is what the process takes for the time.
func (s *server) clock() time.Time { return epoch.Add(s.w.now + s.skew) }

func (s *server) start() {
	s.alive = true
	s.life++
	for i, n := range moduleNumbers {
		s.workers[i] = newWorker(s, n)
	}
	s.core = session.New(session.Options{
		SendInvalidCommand: s.w.sc.SendInvalid,
		MaxAhead:           s.w.sc.MaxAhead,
		MaxPending:         s.w.sc.MaxPending,
		MaxUnacked:         s.w.sc.MaxUnacked,
		MaxDevices:         32,
		FirstCommand:       s.w.sc.FirstCommand,
	}, moduleView{s})
	s.w.audit.process()
	for _, w := range s.workers {
		w.planCommand()
	}
}

// kill ends the process at once; restart starts another one later.
func (s *server) kill(restart time.Duration) {
	s.alive = false
	s.life++
	s.core, s.queue, s.mail, s.armed, s.paused = nil, nil, nil, time.Time{}, 0
	life := s.life
	s.w.after(restart, func() {
		if s.life == life {
			s.start()
		}
	})
}

// stop ends the process in order (CLI-24).
func (s *server) stop(restart time.Duration) {
	if !s.alive || s.w.now < s.paused {
		return
	}
	s.step(session.Event{Kind: session.EventStop})
	if s.core.Phase() != session.PhaseWaiting {
		s.w.fail("the session survives the stop of the server")
	}
	s.flush()
	s.kill(restart)
}

// soon plans something of this process.
func (s *server) soon(d time.Duration, do func()) {
	life := s.life
	s.w.after(d, func() {
		if s.life == life {
			do()
		}
	})
}

// put gives the process an event, now or when it goes on.
func (s *server) put(ev session.Event) {
	if !s.alive {
		return
	}
	if s.w.now < s.paused {
		s.mail = append(s.mail, ev)
		return
	}
	s.step(ev)
}

func (s *server) receive(m fleet.ClientMessage) {
	s.put(session.Event{Kind: session.EventMessage, Message: m})
}

func (s *server) linkDown() {
	s.queue = s.queue[:0]
	s.put(session.Event{Kind: session.EventLinkDown})
}

func (s *server) linkUp() { s.put(session.Event{Kind: session.EventLinkUp}) }

// pause stops the process for a while, as a debugger or a busy machine does.
func (s *server) pause(d time.Duration) {
	if !s.alive {
		return
	}
	if until := s.w.now + d; until > s.paused {
		s.paused = until
	}
	s.soon(d, func() {
		if s.w.now < s.paused {
			return
		}
		mail := s.mail
		s.mail = nil
		for _, ev := range mail {
			s.step(ev)
		}
		s.fire()
	})
}

// step lets the core handle one event and performs the effects.
func (s *server) step(ev session.Event) {
	now := s.clock()
	s.w.steps++
	s.w.audit.before(now, ev, s.core)
	effects := s.core.Step(now, ev)
	s.w.audit.after(now, ev, effects, s.core)
	published := true
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case session.EffectPublish:
			published = s.publish(outgoing{message: e.Message}) && published
		case session.EffectNotifyDisconnect:
			s.publish(outgoing{notification: true})
		case session.EffectDiscardOutgoing:
			s.discard()
		case session.EffectDeviceConnected:
			if e.First {
				s.worker(e.Device.Module).inbox = nil // DEV-3
			}
			s.worker(e.Device.Module).put(job{kind: jobConnected, device: e.Device, ticket: e.Ticket})
		case session.EffectAskType:
			s.worker(e.Device.Module).ask(job{kind: jobAsk, device: e.Device, ticket: e.Ticket})
		case session.EffectForward:
			s.worker(e.Device.Module).put(job{kind: jobStatus, device: e.Device, session: s.core.ID(), counter: e.Counter})
		case session.EffectDeviceDisconnected:
			s.worker(e.Device.Module).put(job{kind: jobDisconnected, device: e.Device})
		case session.EffectAck:
			s.worker(e.Module).put(job{kind: jobAck, device: e.Command.Device})
		case session.EffectSessionStarted:
			for _, o := range s.queue {
				if !o.notification {
					s.w.fail("DEF-20: %v of an ended session is still queued when session %q starts", o.message, e.SessionID)
				}
			}
		}
	}
	s.arm()
	if !published && ev.Kind != session.EventPublishFailed {
		s.w.excuse()
		s.step(session.Event{Kind: session.EventPublishFailed})
	}
	for _, w := range s.workers {
		w.fetch()
	}
}

// arm keeps one timer, which is not moved when the deadline moves away.
func (s *server) arm() {
	at := s.core.Deadline()
	if at.IsZero() || (!s.armed.IsZero() && !s.armed.After(at)) {
		return
	}
	s.armed = at
	s.timer++
	timer := s.timer
	s.soon(at.Sub(s.clock()), func() {
		if s.timer == timer {
			s.fire()
		}
	})
}

// stepClock changes what the process takes for the time.
func (s *server) stepClock(d time.Duration) {
	s.skew += d
	s.w.audit.current.statuses.stepped = s.w.audit.current.statuses.stepped || d < 0
	s.armed = time.Time{}
	if s.alive {
		s.arm()
	}
}

func (s *server) fire() {
	if s.w.now < s.paused {
		return // comes when the process goes on
	}
	s.armed = time.Time{}
	if due := s.core.Deadline(); due.IsZero() || due.After(s.clock()) {
		s.arm()
		return
	}
	for range 3 { // handling one limit may uncover another that has passed, a gap behind a full queue
		s.step(session.Event{Kind: session.EventDeadline})
		if at := s.core.Deadline(); at.IsZero() || at.After(s.clock()) {
			return
		}
	}
	s.w.fail("the deadline was handled and is still due")
}

// publish queues a message, as the link does.
func (s *server) publish(m outgoing) bool {
	if !s.w.net.srvUp() || (len(s.queue) >= s.w.sc.Outgoing && !m.notification) {
		return false
	}
	s.queue = append(s.queue, m)
	if s.flushAt <= s.w.now {
		s.flushAt = max(s.w.now+time.Duration(s.rnd.Int64N(int64(300*time.Microsecond))), s.congest) + 1
		s.soon(s.flushAt-s.w.now, s.flush)
	}
	return true
}

// discard forgets what is queued, except notifications.
func (s *server) discard() {
	kept := s.queue[:0]
	for _, m := range s.queue {
		if m.notification {
			kept = append(kept, m)
		}
	}
	s.queue = kept
}

func (s *server) flush() {
	s.flushAt = 0
	if !s.w.net.srvUp() {
		s.queue = s.queue[:0]
		return
	}
	for _, m := range s.queue {
		s.w.net.down(m)
	}
	s.queue = s.queue[:0]
}

func (s *server) worker(module int32) *worker {
	for i, n := range moduleNumbers {
		if n == module {
			return s.workers[i]
		}
	}
	s.w.fail("an effect names module %d, which is not configured", module)
	return s.workers[0]
}

// moduleView answers the core's questions.
type moduleView struct{ s *server }

func (v moduleView) Configured(n int32) bool { return configured(n) }

func (v moduleView) Recall(n int32, deviceType uint32) (supported, known bool) {
	supported, known = v.s.worker(n).types[deviceType]
	return supported, known
}

func (v moduleView) Awaited(int32) bool { return false }

func (v moduleView) Position(n int32) int {
	for i, m := range moduleNumbers {
		if m == n {
			return i
		}
	}
	return -1
}

func (v moduleView) Room(n int32) int {
	room := v.s.worker(n).room()
	if room <= 0 {
		v.s.w.excuse() // answers may be withheld for long
	}
	return room
}
