package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// World plays one scenario.
type World struct {
	agenda
	sc    *Scenario
	net   network
	srv   server
	gw    gateway
	audit auditor

	faults                              map[int32]*moduleFault
	excusedUntil                        time.Duration // until: a fault may still show
	steps                               int
	commands, sent, answered, delivered uint64
	broker                              keeper // nil: the network carries the messages at once
	err                                 error
	log                                 *strings.Builder // nil: no trace
	rogues                              bool             // a stranger has sent messages
}

// keeper carries the gateway's messages in histories in which the broker keeps them
// for the server.
type keeper interface {
	up(m fleet.ClientMessage)
	wasAnswered(session string, counter uint32)
}

// moduleFault is what is wrong with a module, until when.
type moduleFault struct {
	slow, stalled, refuses time.Duration
}

// Result is the outcome of one history.
type Result struct {
	Scenario *Scenario
	Steps    int    // of the core
	Answered uint64 // statuses the gateway got an answer for
	Err      error  // the first broken promise, nil if there was none
	Trace    string // of PlayTraced
}

// recovery is how long after a fault the gateway and the server may need: 30 s
// until an unanswered status is noticed (GW-42), an attempt that fails (5 s), a
// pause (10 s), once more for what was under way, and the polls between.
const recovery = 75 * time.Second

// Play plays a scenario to its end or to the first broken promise.
func Play(sc *Scenario) Result { return play(sc, nil) }

// PlayTraced also records what happened.
func PlayTraced(sc *Scenario) Result { return play(sc, new(strings.Builder)) }

func play(sc *Scenario, log *strings.Builder) (result Result) {
	w := &World{sc: sc, log: log, faults: make(map[int32]*moduleFault)}
	w.net = network{w: w, rnd: rand.New(rand.NewPCG(sc.Seed, 2))}
	w.srv = server{w: w, rnd: rand.New(rand.NewPCG(sc.Seed, 3))}
	w.gw = gateway{w: w, rnd: rand.New(rand.NewPCG(sc.Seed, 4)), present: make([]bool, len(sc.Devices)), outstanding: make(map[uint32]time.Duration)}
	w.audit = auditor{w: w}
	defer func() {
		if p := recover(); p != nil {
			w.fail("panic: %v", p)
		}
		result = Result{Scenario: sc, Steps: w.steps, Answered: w.answered, Err: w.err}
		if log != nil {
			result.Trace = log.String()
		}
	}()
	w.run()
	return
}

func (w *World) run() {
	w.srv.start()
	w.gw.start()
	for _, a := range w.sc.Actions {
		w.after(a.At, func() { w.do(a) })
	}
	w.after(w.sc.Faults, w.heal)
	for w.err == nil {
		do := w.next(w.sc.End)
		if do == nil {
			w.final()
			return
		}
		do()
	}
}

// heal ends what could still be wrong and makes sure that there is a device.
func (w *World) heal() {
	w.trace("--- no faults from here")
	clear(w.faults)
	if !w.gw.anyPresent() {
		w.gw.joins(0)
	}
	w.excuse()
	w.after(recovery+20*time.Second, w.settled)
}

// settled: after the faults the car is served, and stays so.
func (w *World) settled() {
	if !w.srv.alive || w.srv.core.Phase() != session.PhaseRunning || w.gw.state != gwRunning {
		w.fail("the car is not served %v after the last fault: gateway state %d", recovery+20*time.Second, w.gw.state)
	}
	if w.gw.session != w.srv.core.ID() {
		w.fail("the gateway is in session %q, the server in %q", w.gw.session, w.srv.core.ID())
	}
	w.audit.settled = true
}

// final: nothing that was answered is left undone.
func (w *World) final() {
	for _, m := range w.srv.workers {
		if len(m.jobs) > 16 {
			w.fail("module %d has %d calls left", m.number, len(m.jobs))
		}
	}
	for counter, at := range w.gw.outstanding {
		if w.now-at > 10*time.Second {
			w.fail("status %d is not answered %v after it was sent", counter, w.now-at)
		}
	}
}

func (w *World) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: %s", w.now.Round(time.Microsecond), fmt.Sprintf(format, args...))
		w.trace("*** %v", w.err)
	}
}

// excuse says that a fault happened whose consequences may still show.
func (w *World) excuse() {
	if until := w.now + recovery; until > w.excusedUntil && w.now <= w.sc.Faults {
		w.excusedUntil = until
	}
}

func (w *World) excused() bool { return w.now < w.excusedUntil }

func (w *World) trace(format string, args ...any) {
	if w.log == nil {
		return
	}
	fmt.Fprintf(w.log, "%12v "+format+"\n", append([]any{w.now.Round(time.Microsecond)}, args...)...)
}

func (w *World) fault(module int32) *moduleFault {
	f := w.faults[module]
	if f == nil {
		f = &moduleFault{}
		w.faults[module] = f
	}
	return f
}

func (w *World) do(a Action) {
	w.trace("--- %v", a)
	module := moduleNumbers[a.N%len(moduleNumbers)]
	until := w.now + a.For
	switch a.Kind {
	case Join:
		w.gw.joins(a.N)
		return
	case Leave:
		w.gw.leaves(a.N)
		return
	case StallModule: // no excuse, unless its queue gets full
		w.fault(module).stalled = until
		return
	case SlowModule:
		w.fault(module).slow = until
		return
	case RefuseDevices:
		w.fault(module).refuses = until
		return
	case CrashModule:
		f := w.fault(module)
		f.stalled, f.refuses = until, until+time.Second
		return
	}
	w.excuse()
	switch a.Kind {
	case CutGateway:
		w.net.cutGateway(a.For)
	case CutServer:
		w.net.cutServer(a.For)
	case RestartBroker:
		w.net.cutGateway(a.For)
		w.net.cutServer(a.For)
	case Lose:
		w.net.lose = spell{until, a.P}
	case Duplicate:
		w.net.duplicate = spell{until, a.P}
	case Reorder:
		w.net.reorder = spell{until, a.P}
	case Congest:
		w.srv.congest = until
	case RestartGateway:
		w.gw.restart()
	case KillServer:
		w.srv.kill(a.For)
	case StopServer:
		w.srv.stop(a.For)
	case PauseServer:
		w.srv.pause(a.For)
	case StepClock:
		w.srv.stepClock(a.For)
	case Operator:
		w.srv.put(session.Event{Kind: session.EventDisconnect + session.EventKind(a.N%2)})
	case Rogue:
		w.rogues = true
		w.srv.receive(w.rogue(a.N))
	}
	if a.For > 0 { // the excuse counts from the end of the fault
		w.after(a.For, w.excuse)
	}
}

// rogue is a message that no gateway would send now: foreign, replayed, out of
// range, or from a second peer.
func (w *World) rogue(n int) fleet.ClientMessage {
	rnd := rand.New(rand.NewPCG(w.sc.Seed, uint64(n)<<8|5))
	id := "rogue" + string(rune('a'+n%3))
	if rnd.IntN(3) > 0 && w.srv.alive && w.srv.core.ID() != "" {
		id = w.srv.core.ID()
	}
	device := pool[rnd.IntN(len(pool))]
	switch rnd.IntN(8) {
	case 0:
		return fleet.ClientMessage{Kind: fleet.ClientEmpty}
	case 1:
		m := fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: id, Redelivered: rnd.IntN(3) == 0}
		if rnd.IntN(6) == 0 {
			m.SessionID = ""
		}
		for range rnd.IntN(4) {
			m.Devices = append(m.Devices, pool[rnd.IntN(len(pool))])
		}
		return m
	case 2, 3:
		var counter uint32
		if rnd.IntN(3) > 0 {
			counter = w.audit.nextCommand - uint32(rnd.IntN(5))
		}
		return fleet.ClientMessage{Kind: fleet.ClientCommandResponse, SessionID: id, Counter: counter, Response: fleet.ResponseType(rnd.IntN(5))}
	}
	return fleet.ClientMessage{
		Kind:      fleet.ClientStatus,
		SessionID: id,
		Counter:   w.gw.counter + uint32(rnd.IntN(12)) - 4,
		State:     fleet.DeviceState(rnd.IntN(6) - 1),
		Device:    device,
		Data:      []byte("rogue"),
	}
}
