package sim

import (
	"bytes"
	"math/rand/v2"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
	"external-server/internal/session/record"
)

// durableServer is the process around a core that keeps a journal. It dies and goes
// on where its journal ends.
type durableServer struct {
	w   *durableWorld
	rnd *rand.Rand

	alive    bool
	life     int
	conn     int      // number of its connection
	replica  *replica // nil: it is the only server
	core     *session.Session
	workers  [len(moduleNumbers)]*durableWorker
	lostAt   time.Duration // the link
	link     bool
	linkLife int
	served   bool // it was connected in this life
	stamped  bool // and has noted so
	version  uint64
	hinted   bool           // it goes on from a record of another server
	reading  bool           // what the broker held is read and acknowledged, and answered afterwards
	withheld map[uint32]int // statuses of this time that are acknowledged with their answers
	barrier  int

	file    [][]byte                 // the journal: records that survive
	batch   [][]byte                 // records of the next append
	last    answerOf                 // see inOrder
	owedAt  map[uint32]time.Duration // since when answers are held, by counter; of this connection
	held    map[uint32]int           // PUBACKs that wait for their answers, by counter
	out     []wireItem
	flushAt time.Duration
	armed   time.Time
	timer   int
	killIn  int           // die in that write; 0: no plan
	killFor time.Duration // and be back after that time

	silent bool // a session goes on and its gateway was not heard yet
	late   bool // it was out of reach for long and what the broker held was not read
}

const durableCar = "company/car"

func (s *durableServer) clock() time.Time { return epoch.Add(s.w.now) }

func (s *durableServer) soon(d time.Duration, do func()) {
	life := s.life
	var run func()
	run = func() {
		switch {
		case s.life != life:
		case s.replica != nil && s.w.now < s.replica.frozenUntil:
			s.w.after(s.replica.frozenUntil-s.w.now, run)
		default:
			do()
		}
	}
	s.w.after(d, run)
}

// begins makes what an earlier life has planned void.
func (s *durableServer) begins() {
	s.w.lives++
	s.life = s.w.lives
}

func (s *durableServer) start() {
	fold := record.NewFold()
	for _, r := range s.file {
		if err := fold.Apply(r); err != nil {
			s.w.fail("the journal: %v", err)
		}
	}
	s.compact(fold)
	known, err := fold.Car(durableCar)
	if err != nil {
		s.w.fail("the journal: %v", err)
	}
	s.goOn(known)
}

// goOn serves the car with what is known of it; nil: nothing.
func (s *durableServer) goOn(known *record.Resumption) {
	s.alive = true
	s.begins()
	s.version = 0
	s.held, s.owedAt = map[uint32]int{}, map[uint32]time.Duration{}
	s.hinted = known != nil && known.Hint != nil
	for i, n := range moduleNumbers {
		s.workers[i] = &durableWorker{s: s, number: n, known: map[fleet.DeviceID]bool{}}
	}
	var soon time.Duration // as package car says it
	if s.replica == nil {
		soon = 20 * time.Millisecond
	}
	s.core = session.New(session.Options{
		TellWithin: soon,
		MaxAhead:   s.w.sc.MaxAhead, MaxPending: s.w.sc.MaxPending, MaxDevices: 32, FirstCommand: s.w.sc.FirstCommand,
	}, durableView{s})
	s.core.Durable(durableCar)
	if known != nil {
		s.w.trace("--- resume %+v", known.Record)
		if s.replica != nil && known.Record != nil {
			s.replica.w.owes(known.Record)
		}
		s.step(session.Event{Kind: session.EventResume, Resume: known}, 0)
	}
	for _, w := range s.workers {
		w.planCommand()
	}
	s.tick()
	s.connect()
}

// compact writes the journal anew now and then, as the server does in the background.
func (s *durableServer) compact(fold *record.Fold) {
	if s.rnd.IntN(2) == 0 {
		return
	}
	s.file = nil
	fold.Snapshot(func(r []byte) { s.file = append(s.file, bytes.Clone(r)) })
}

// tick writes what was confirmed by modules meanwhile.
func (s *durableServer) tick() {
	s.soon(time.Second, func() {
		s.append()
		s.tick()
	})
}

// connect reaches the broker after a moment.
func (s *durableServer) connect() {
	s.linkLife++
	life := s.linkLife
	s.soon(time.Duration(s.rnd.Int64N(int64(20*time.Millisecond))), func() {
		if s.linkLife != life {
			return
		}
		if s.w.now < s.w.brokerDownUntil {
			s.soon(s.w.brokerDownUntil-s.w.now, s.connect)
			return
		}
		if s.replica == nil {
			s.reach()
		} else if s.replica.mayConnect(s.served) { // another server may be faster meanwhile
			wait := 5 * time.Millisecond
			if s.rnd.IntN(4) == 0 {
				wait = 3 * time.Second // halted, or the network
			}
			s.soon(time.Duration(s.rnd.Int64N(int64(wait))), func() {
				if s.linkLife == life {
					s.reach()
				}
			})
		}
	})
}

// reach sends CONNECT.
func (s *durableServer) reach() {
	down := s.w.now - s.lostAt
	if stamp := time.Duration(s.rnd.Int64N(int64(time.Second))); s.lostAt > 0 { // its age
		down += stamp
	}
	kept := s.w.broker.connect(s, down > 25*time.Second)
	if s.replica != nil && !s.replica.announces() {
		return
	}
	s.served, s.stamped = true, false
	if !kept {
		s.w.excuse()
	}
	s.link = true
	s.barrier++
	s.silent, s.late = kept && s.core.Phase() == session.PhaseRunning, kept && down >= 5*time.Second
	withhold := s.replica == nil && s.rnd.IntN(4) > 0
	s.reading = s.late && !withhold || kept && s.hinted
	s.withheld = make(map[uint32]int)
	s.step(session.Event{Kind: session.EventLinkUp, Kept: kept, Withhold: withhold, Down: down}, 0)
	if kept {
		s.out = append(s.out, wireItem{barrier: true})
		s.plan()
		s.slow(s.barrier)
	}
}

// slow lets the core go on when what the broker held is not read after a while: its window
// may be full.
func (s *durableServer) slow(barrier int) {
	s.soon(time.Second, func() {
		if s.link && s.barrier == barrier && s.core.Withholds() {
			s.reading = true
			s.step(session.Event{Kind: session.EventBacklogSlow}, 0)
		}
	})
}

// kill ends the process at once. The last append may have been made or not.
func (s *durableServer) kill(orderly bool) {
	if !s.alive {
		return
	}
	if orderly {
		s.killIn = 0
		s.flush()
		s.file = append(s.file, s.core.AppendSettled(nil))
	} else if s.rnd.IntN(2) == 0 {
		s.append()
	}
	if s.core.Phase() != session.PhaseRunning || s.w.gw.state != gwRunning {
		s.w.excuse()
	}
	s.drop()
	if s.link {
		if s.stamped || orderly {
			s.lostAt = s.w.now
		}
		s.link = false
		if s.conn == s.w.broker.conn {
			s.w.broker.cut(orderly)
		}
	}
}

// drop forgets what the process has in memory.
func (s *durableServer) drop() {
	s.lostWhileReading()
	for i, it := range s.out { // it may be in the journal that it has left, and its PUBACK has left long ago
		if it.message != nil && it.message.message.Kind == fleet.ServerStatusResponse && (i == 0 || !s.out[i-1].paired) {
			s.w.uncertain++
			s.w.excuse()
		}
	}
	s.begins()
	s.alive, s.core, s.served, s.withheld = false, nil, false, nil
	s.batch, s.out, s.armed, s.flushAt, s.timer = nil, nil, time.Time{}, 0, s.timer+1
}

// cutLink breaks the connection to the broker; the process lives.
func (s *durableServer) cutLink() {
	if !s.alive || !s.link {
		return
	}
	if s.core.Phase() != session.PhaseRunning || s.w.gw.state != gwRunning {
		s.w.excuse()
	}
	if s.conn == s.w.broker.conn {
		s.w.broker.cut(false)
	}
	s.linkLost()
}

// disconnected says that the broker has ended a connection, because another server has the
// client identifier now.
func (s *durableServer) disconnected(conn int) {
	if s.frozen() {
		s.soon(s.replica.frozenUntil-s.w.now, func() { s.disconnected(conn) })
		return
	}
	if s.alive && s.link && s.conn == conn {
		if s.core.Phase() != session.PhaseRunning || s.w.gw.state != gwRunning {
			s.w.excuse()
		}
		s.linkLost()
	}
}

func (s *durableServer) frozen() bool { return s.replica != nil && s.w.now < s.replica.frozenUntil }

// lostWhileReading: what had come again, and was to be answered when all was read, was acknowledged
// already and does not come a third time.
func (s *durableServer) lostWhileReading() {
	if s.reading {
		s.w.uncertain++
		s.w.excuse()
	}
	s.reading = false
}

func (s *durableServer) linkLost() {
	s.lostWhileReading()
	s.link, s.lostAt = false, s.w.now
	s.out, s.withheld = nil, nil
	clear(s.held)
	clear(s.owedAt)
	s.step(session.Event{Kind: session.EventLinkDown, Kept: true}, 0)
	s.connect()
}

func (s *durableServer) receive(m fleet.ClientMessage, id int, barrier bool) {
	if s.frozen() { // it is in the socket
		s.soon(s.replica.frozenUntil-s.w.now, func() { s.receive(m, id, barrier) })
		return
	}
	if !s.alive || !s.link {
		return
	}
	if barrier {
		s.out = append(s.out, wireItem{ack: id})
		s.plan()
		s.late, s.reading = false, false
		s.step(session.Event{Kind: session.EventBacklogRead}, 0)
		return
	}
	s.silent = false
	s.step(session.Event{Kind: session.EventMessage, Message: m}, id)
}

func (s *durableServer) arm() {
	at := s.core.Deadline()
	if at.IsZero() || (!s.armed.IsZero() && !s.armed.After(at)) {
		return
	}
	s.armed = at
	s.timer++
	timer := s.timer
	s.soon(at.Sub(s.clock()), func() {
		if s.timer != timer {
			return
		}
		s.armed = time.Time{}
		if due := s.core.Deadline(); due.IsZero() || due.After(s.clock()) {
			s.arm()
			return
		}
		s.step(session.Event{Kind: session.EventDeadline}, 0)
	})
}

func (s *durableServer) worker(module int32) *durableWorker {
	for i, n := range moduleNumbers {
		if n == module {
			return s.workers[i]
		}
	}
	s.w.fail("an effect names module %d, which is not configured", module)
	return s.workers[0]
}
