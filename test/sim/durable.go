package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// durableWorld is one car whose server keeps a journal and whose broker keeps what
// comes while the server is away. The gateway is the one of the other histories and
// judges as strictly: what it does not forgive is a failure, unless something happened
// that no server could mend.
type durableWorld struct {
	*World
	srv    *durableServer // in a cluster: the one that the broker has last accepted
	lives  int            // of all servers
	broker broker

	window, limit   int // of the broker
	lastID          int
	brokerDownUntil time.Duration
	stalled         map[int32]time.Duration
	uncertain       int
	healthy         int // seconds for which gateway and server have agreed

	atBroker func(answer fleet.ServerMessage) // is told of each; nil: not

	sentBy   map[string]bool        // statuses of served devices, by payload: answered?
	handedIn map[string]int         // the life in which a module got it last
	last     map[lastKey]lastStatus // per life and module

	awaited map[int32]bool  // modules whose statuses are answered when they have taken them
	atRisk  map[string]bool // statuses that the server says were answered without that, by riskKey
}

type lastKey struct {
	life   int
	module int32
}

type lastStatus struct {
	session string
	counter uint32
	number  uint64
}

// PlayDurable plays the history of a seed in which the server is killed, stopped and
// cut off, and goes on from its journal.
func PlayDurable(seed uint64, traced bool) (result Result) {
	w := newDurable(seed, traced)
	w.srv = &durableServer{w: w, rnd: rand.New(rand.NewPCG(seed, 14))}
	return w.result(w.play)
}

func newDurable(seed uint64, traced bool) *durableWorld {
	sc := New(seed)
	rnd := rand.New(rand.NewPCG(seed, 11))
	if sc.Delay > 20*time.Millisecond {
		sc.Delay = 20 * time.Millisecond
	}
	sc.Queue, sc.MaxAhead = max(sc.Queue, 8), 1000
	sc.drawDurable(rnd)
	w := &durableWorld{
		World:   &World{sc: sc, faults: map[int32]*moduleFault{}},
		window:  []int{20, 4096}[rnd.IntN(2)],
		limit:   []int{30, 1000}[rnd.IntN(2)],
		stalled: map[int32]time.Duration{}, sentBy: map[string]bool{}, handedIn: map[string]int{}, last: map[lastKey]lastStatus{},
	}
	w.awaited, w.atRisk = map[int32]bool{}, map[string]bool{}
	for i, which := 0, rnd.IntN(2<<len(moduleNumbers)); i < len(moduleNumbers); i++ { // none in half of the histories
		w.awaited[moduleNumbers[i]] = which>>len(moduleNumbers) == 1 && which>>i&1 == 1
	}
	if traced {
		w.log = new(strings.Builder)
	}
	w.net = network{w: w.World, rnd: rand.New(rand.NewPCG(seed, 12))}
	w.World.broker = w
	w.broker = broker{w: w, rnd: rand.New(rand.NewPCG(seed, 13)), session: true}
	w.gw = gateway{w: w.World, rnd: rand.New(rand.NewPCG(seed, 15)), present: make([]bool, len(sc.Devices)), outstanding: make(map[uint32]time.Duration)}
	return w
}

// result plays and tells what came of it.
func (w *durableWorld) result(play func()) (result Result) {
	defer func() {
		if p := recover(); p != nil {
			w.fail("panic: %v", p)
		}
		result = Result{Scenario: w.sc, Steps: w.steps, Answered: w.answered, Err: w.err}
		if w.log != nil {
			result.Trace = w.log.String()
		}
	}()
	play()
	return
}

func (w *durableWorld) play() {
	w.srv.start()
	w.gw.start()
	w.watch()
	for _, a := range w.sc.Actions {
		w.after(a.At, func() { w.act(a) })
	}
	w.after(w.sc.Faults, func() {
		w.trace("--- no faults from here")
		w.healthy = 0
		clear(w.stalled)
		if !w.srv.alive {
			w.srv.start()
		}
		if !w.gw.anyPresent() {
			w.gw.joins(0)
		}
		w.excuseFor(recovery)
	})
	w.after(w.sc.Faults+recovery+20*time.Second, func() {
		if w.srv.core.Phase() != session.PhaseRunning || w.gw.state != gwRunning || w.gw.session != w.srv.core.ID() {
			w.fail("the car is not served after the last fault: gateway state %d session %q, server %v %q", w.gw.state, w.gw.session, w.srv.core.Phase(), w.srv.core.ID())
		}
	})
	for w.err == nil {
		do := w.next(w.sc.End)
		if do == nil {
			w.account()
			return
		}
		do()
	}
}

// watch ends an excuse early: a gateway and a server that have agreed for 6 s have no
// excuse any more.
func (w *durableWorld) watch() {
	w.after(time.Second, func() {
		w.watch()
		well := w.srv.alive && w.srv.link && w.gw.state == gwRunning && w.srv.core.Phase() == session.PhaseRunning &&
			w.gw.session == w.srv.core.ID() && !w.gw.dropping
		for _, at := range w.gw.outstanding {
			well = well && w.now-at < time.Second
		}
		if !well {
			w.healthy = 0
			return
		}
		if w.healthy++; w.healthy >= 6 {
			w.excusedUntil = min(w.excusedUntil, w.now)
		}
	})
}

func (w *durableWorld) excuseFor(d time.Duration) { w.excusedUntil = max(w.excusedUntil, w.now+d) }

// up is a message of the gateway.
func (w *durableWorld) up(m fleet.ClientMessage) {
	if m.Kind == fleet.ClientStatus && served(m.Device) {
		w.sentBy[string(m.Data)] = false
	}
	w.broker.up(m)
}

// wasAnswered is told which answers the gateway got.
func (w *durableWorld) wasAnswered(sessionID string, counter uint32) {
	for _, d := range w.sc.Devices {
		key := string(payload(sessionID, counter, d))
		if _, ok := w.sentBy[key]; ok {
			w.sentBy[key] = true
			if w.awaited[d.Module] && w.handedIn[key] == 0 && !w.atRisk[riskKey(sessionID, counter)] {
				w.fail("RES-26: status %q of an awaited module was answered before the module had it", key)
			}
		}
	}
}

// leisurely tells whether devices report so rarely that a slow module keeps up.
func (w *durableWorld) leisurely() bool { return slices.Min(w.sc.Every[:]) >= 300*time.Millisecond }

func riskKey(sessionID string, counter uint32) string { return fmt.Sprint(sessionID, " ", counter) }

// handed is told what a module got.
func (w *durableWorld) handed(life int, module int32, j durableJob) {
	w.delivered++
	if w.handedIn[j.data] == life {
		w.fail("status %q was handed to module %d twice by one process", j.data, module)
	}
	w.handedIn[j.data] = life
	id, counter := statusKey(j.data)
	last := w.last[lastKey{life, module}]
	if last.session == id && int32(counter-last.counter) <= 0 {
		w.fail("STAT-6: module %d gets status %d after %d of session %q", module, counter, last.counter, id)
	}
	if last.session != "" && j.number <= last.number {
		w.fail("module %d gets its status number %d after %d", module, j.number, last.number)
	}
	w.last[lastKey{life, module}] = lastStatus{id, counter, j.number}
}

// account: what was answered was delivered, or still waits for its module.
func (w *durableWorld) account() {
	waits := make(map[string]bool)
	if w.srv.alive {
		for _, worker := range w.srv.workers {
			for _, j := range worker.jobs {
				waits[j.data] = true
			}
		}
	}
	for key, answered := range w.sentBy {
		if answered && w.handedIn[key] == 0 && !waits[key] {
			w.fail("status %q was answered and never handed to its module", key)
		}
	}
}

func (w *durableWorld) act(a Action) {
	w.trace("--- %v", a)
	w.healthy = 0 // what it excuses shows later
	switch a.Kind {
	case Join:
		w.gw.joins(a.N)
	case Leave:
		w.gw.leaves(a.N)
	case StallModule:
		w.stalled[moduleNumbers[a.N%len(moduleNumbers)]] = w.now + a.For
	case KillServer, StopServer:
		if a.Kind == KillServer && a.N%2 == 0 {
			w.srv.killIn = 1 + a.N/2%6 // in the middle of one of the next writes
			w.srv.killFor = a.For
			return
		}
		w.srv.kill(a.Kind == StopServer)
		w.restart(a.For)
	case CutServer:
		w.brokerDownUntil = max(w.brokerDownUntil, w.now+a.For)
		if a.For > 23*time.Second {
			w.excuse()
			w.after(a.For, w.excuse)
		}
		w.srv.cutLink()
	case RestartBroker: // one that stores nothing
		w.excuse()
		w.broker.forget()
		w.srv.cutLink()
	case RestartGateway:
		w.excuse()
		w.gw.restart()
	}
}

// restart starts the server again.
func (w *durableWorld) restart(in time.Duration) {
	if in > 23*time.Second {
		w.excuse()
		w.after(in, w.excuse)
	}
	life := w.srv.life
	w.after(in, func() {
		if w.srv.life == life && !w.srv.alive {
			w.srv.start()
		}
	})
}

// drawDurable replaces the actions of a scenario.
func (s *Scenario) drawDurable(rnd *rand.Rand) {
	s.Actions = nil
	s.End = s.Faults + 160*time.Second
	for i := range s.Every {
		s.Every[i] = []time.Duration{20 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second}[rnd.IntN(3)]
	}
	at := 5 * time.Second
	only := []Kind{KillServer, StopServer, CutServer}[rnd.IntN(3)]
	mixed := rnd.IntN(2) == 0
	for {
		at += 500*time.Millisecond + time.Duration(rnd.Int64N(int64(20*time.Second)))
		if at > s.Faults {
			return
		}
		a := Action{At: at, Kind: only, N: rnd.IntN(1000)}
		if mixed {
			a.Kind = []Kind{KillServer, KillServer, KillServer, StopServer, CutServer, StallModule, Leave, Join, RestartGateway, RestartBroker}[rnd.IntN(10)]
		}
		switch rnd.IntN(4) {
		case 0:
			a.For = time.Duration(rnd.Int64N(int64(50 * time.Millisecond)))
		case 1, 2:
			a.For = time.Duration(rnd.Int64N(int64(5 * time.Second)))
		case 3:
			a.For = time.Duration(rnd.Int64N(int64(30 * time.Second)))
		}
		if a.Kind == Leave || a.Kind == Join {
			a.N %= len(s.Devices)
		}
		s.Actions = append(s.Actions, a)
		if a.Kind != StallModule && a.Kind != Leave && a.Kind != Join {
			at += a.For
			if a.For > 5*time.Second && at+time.Second < s.Faults && rnd.IntN(2) == 0 { // while it reads what the broker held, or has just answered it
				at += time.Duration(rnd.Int64N(int64(100 * time.Millisecond)))
				s.Actions = append(s.Actions, Action{At: at, Kind: []Kind{KillServer, CutServer}[rnd.IntN(2)], N: rnd.IntN(1000), For: time.Duration(rnd.Int64N(int64(8 * time.Second)))})
				at += s.Actions[len(s.Actions)-1].For
			}
		}
	}
}
