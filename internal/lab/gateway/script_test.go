package gateway

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/support/scripttest"
)

// TestScripts plays every conversation in testdata against a Core (package
// scripttest). Effects of timers carry the time since the start of the script.
//
//	modules 1:1,2 2!                        (module 1 with types 1 and 2; "!" is immediate)
//	option steady | queuepoll=3s            (reactions are immediate unless given)
//	status 1/1/r1/N1:5=data                 (":5" is the priority)
//	alive 1/1/r1/N1, leave 1/1/r1/N1
//	up, link-failed, publish-failed         (EventLinkUp, ...)
//	connectResponse [already] [id=other]    (the id is the current one unless given)
//	answer 3 [id=other]                     (StatusResponse with counter 3)
//	command 7 1/1/r1/N1=data [id=other]
//	empty, garbage, notify, reconnect, restart, stop
//	advance 5s                              (timers on the way are played)
//	sequence 1/1/r1/N1 2/1/r2/N2            (statuses x of these devices and a whole connect
//	                                         sequence without commands; effects are not listed)
func TestScripts(t *testing.T) {
	scripttest.Run(t, func(script *scripttest.Script) func([]string) {
		st := &stage{Script: script, start: time.Unix(1000, 0), now: time.Unix(1000, 0)}
		st.opts.Timing.QueuePoll = -1
		st.opts.Rand = rand.New(rand.NewPCG(1, 2))
		return st.do
	})
}

type stage struct {
	*scripttest.Script
	opts  Options
	c     *Core
	start time.Time
	now   time.Time
	mute  bool
}

func (st *stage) do(words []string) {
	args := words[1:]
	switch words[0] {
	case "modules":
		st.modules(args)
		return
	case "option":
		st.option(args)
		return
	}
	if st.c == nil {
		st.c = New(st.opts)
	}
	id := st.c.Session()
	if n := len(args); n > 0 && strings.HasPrefix(args[n-1], "id=") {
		id = strings.TrimPrefix(args[n-1], "id=")
		args = args[:n-1]
	}
	simple := map[string]EventKind{"up": EventLinkUp, "link-failed": EventLinkFailed, "publish-failed": EventPublishFailed,
		"garbage": EventUnparseable, "notify": EventNotification, "reconnect": EventReconnect, "restart": EventRestart, "stop": EventStop}
	switch verb := words[0]; verb {
	case "status", "alive", "leave":
		dev, data := st.device(args[0])
		kind := map[string]EventKind{"status": EventStatus, "alive": EventAlive, "leave": EventLeave}[verb]
		st.step(Event{Kind: kind, Device: dev, Data: data})
	case "connectResponse":
		already := len(args) > 0 && args[0] == "already"
		st.recv(fleet.ServerMessage{Kind: fleet.ServerConnectResponse, SessionID: id, AlreadyLogged: already})
	case "answer":
		st.recv(fleet.ServerMessage{Kind: fleet.ServerStatusResponse, SessionID: id, Counter: st.Number(args[0])})
	case "command":
		dev, data := st.device(args[1])
		st.recv(fleet.ServerMessage{Kind: fleet.ServerCommand, SessionID: id, Counter: st.Number(args[0]), Device: dev, Data: data})
	case "empty":
		st.recv(fleet.ServerMessage{SessionID: id})
	case "advance":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			st.Fatal("%v", err)
		}
		st.advance(d)
	case "sequence":
		st.sequence(args)
	default:
		kind, ok := simple[verb]
		if !ok {
			st.Fatal("unknown verb %q", verb)
		}
		st.step(Event{Kind: kind})
	}
}

func (st *stage) modules(args []string) {
	for _, a := range args {
		a, immediate := strings.CutSuffix(a, "!")
		number, types, _ := strings.Cut(a, ":")
		m := Module{Number: int32(st.Number(number)), Immediate: immediate}
		for _, typ := range strings.FieldsFunc(types, func(r rune) bool { return r == ',' }) {
			m.Types = append(m.Types, st.Number(typ))
		}
		st.opts.Modules = append(st.opts.Modules, m)
	}
}

func (st *stage) option(args []string) {
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		d, err := time.ParseDuration(value)
		switch {
		case name == "steady":
			st.opts.Steady = true
		case name == "queuepoll" && err == nil:
			st.opts.Timing.QueuePoll = d
		default:
			st.Fatal("unknown option %q", a)
		}
	}
}

func (st *stage) sequence(args []string) {
	st.mute = true
	defer func() { st.mute = false }()
	for _, a := range args {
		dev, _ := st.device(a)
		st.step(Event{Kind: EventStatus, Device: dev, Data: []byte("x")})
	}
	st.step(Event{Kind: EventLinkUp})
	id := st.c.Session()
	st.recv(fleet.ServerMessage{Kind: fleet.ServerConnectResponse, SessionID: id})
	for n := range args {
		st.recv(fleet.ServerMessage{Kind: fleet.ServerStatusResponse, SessionID: id, Counter: uint32(n + 1)})
	}
	for n, a := range args {
		dev, _ := st.device(a)
		st.recv(fleet.ServerMessage{Kind: fleet.ServerCommand, SessionID: id, Counter: uint32(n + 1), Device: dev})
	}
	if st.c.Phase() != PhaseRunning {
		st.Fatal("sequence ended in phase %v", st.c.Phase())
	}
}

// device reads a device and, behind "=", what belongs to it.
func (st *stage) device(text string) (fleet.Device, []byte) {
	text, data, _ := strings.Cut(text, "=")
	return st.Device(text), []byte(data)
}

func (st *stage) recv(m fleet.ServerMessage) { st.step(Event{Kind: EventMessage, Message: m}) }

func (st *stage) step(ev Event) {
	for _, e := range st.c.Step(st.now, ev) {
		if st.mute {
			continue
		}
		text := describe(e)
		if ev.Kind == EventDeadline {
			text = fmt.Sprintf("[%v] %s", st.now.Sub(st.start).Round(time.Millisecond), text)
		}
		st.Effect(text)
	}
}

// advance lets time pass and plays every deadline on the way.
func (st *stage) advance(d time.Duration) {
	end := st.now.Add(d)
	for range 1000 {
		at := st.c.Deadline()
		if at.IsZero() || at.After(end) {
			st.now = end
			return
		}
		if at.Before(st.now) {
			st.Fatal("deadline %v lies before now", at.Sub(st.start))
		}
		st.now = at
		st.step(Event{Kind: EventDeadline})
	}
	st.Fatal("deadlines do not end")
}

func describe(e Effect) string {
	switch e.Kind {
	case EffectOpen:
		return "open"
	case EffectClose:
		return "close"
	case EffectSend:
		return "send " + describeMessage(e.Message)
	case EffectConnected:
		return "connected " + e.Session
	case EffectSequenceFailed:
		return fmt.Sprintf("sequence failed %s: %v (%s)", e.Session, e.Reason, e.Reason.Rule())
	case EffectDisconnected:
		return fmt.Sprintf("disconnected %s: %v (%s)", e.Session, e.Reason, e.Reason.Rule())
	case EffectAnswered:
		return fmt.Sprintf("answered n=%d dev=%v", e.Counter, e.Device)
	case EffectCommand:
		return fmt.Sprintf("command n=%d dev=%v data=%s %v", e.Counter, e.Device, e.Data, e.Response)
	case EffectDeliver:
		return fmt.Sprintf("deliver n=%d dev=%v data=%s", e.Counter, e.Device, e.Data)
	case EffectCommandDropped:
		return fmt.Sprintf("command dropped n=%d dev=%v data=%s", e.Counter, e.Device, e.Data)
	case EffectViolation:
		return fmt.Sprintf("violation n=%d: %v (%s)", e.Counter, e.Reason, e.Reason.Rule())
	}
	return fmt.Sprintf("effect %d", e.Kind)
}

func describeMessage(m fleet.ClientMessage) string {
	s := fmt.Sprintf("%v id=%s", m.Kind, m.SessionID)
	switch m.Kind {
	case fleet.ClientConnect:
		for _, d := range m.Devices {
			s += " " + d.String()
		}
	case fleet.ClientStatus:
		s += fmt.Sprintf(" n=%d state=%v dev=%v data=%s", m.Counter, m.State, m.Device, m.Data)
		if m.Error != nil {
			s += " error=" + strings.ReplaceAll(string(m.Error), "\x00", `\x00`)
		}
	case fleet.ClientCommandResponse:
		s += fmt.Sprintf(" n=%d %v", m.Counter, m.Response)
	}
	return s
}
