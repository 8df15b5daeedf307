package gateway

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
)

var update = flag.Bool("update", false, "rewrite the expectations of the conversation scripts")

// TestScripts plays every conversation in testdata against a Core. A line is one
// input; the "->" lines below it are the effects it must have, all of them, in
// order. Effects of timers carry the time since the start of the script.
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
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d scripts: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, file, string(raw))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(raw); got != want {
				t.Errorf("%s: the conversation differs; got\n%s", file, got)
			}
		})
	}
}

type stage struct {
	t     *testing.T
	where string
	opts  Options
	c     *Core
	start time.Time
	now   time.Time
	mute  bool
	out   strings.Builder
}

func play(t *testing.T, file, script string) string {
	st := &stage{t: t, start: time.Unix(1000, 0), now: time.Unix(1000, 0)}
	st.opts.Timing.QueuePoll = -1
	st.opts.Rand = rand.New(rand.NewPCG(1, 2))
	scan := bufio.NewScanner(strings.NewReader(script))
	for n := 1; scan.Scan(); n++ {
		line := scan.Text()
		if strings.HasPrefix(line, "->") {
			continue
		}
		st.out.WriteString(line + "\n")
		st.where = fmt.Sprintf("%s:%d", file, n)
		if trimmed := strings.TrimSpace(line); trimmed != "" && !strings.HasPrefix(trimmed, "#") {
			st.do(strings.Fields(trimmed))
		}
	}
	return st.out.String()
}

func (st *stage) fatal(format string, args ...any) {
	st.t.Helper()
	st.t.Fatalf("%s: %s", st.where, fmt.Sprintf(format, args...))
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
		st.recv(fleet.ServerMessage{Kind: fleet.ServerStatusResponse, SessionID: id, Counter: st.number(args[0])})
	case "command":
		dev, data := st.device(args[1])
		st.recv(fleet.ServerMessage{Kind: fleet.ServerCommand, SessionID: id, Counter: st.number(args[0]), Device: dev, Data: data})
	case "empty":
		st.recv(fleet.ServerMessage{SessionID: id})
	case "advance":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			st.fatal("%v", err)
		}
		st.advance(d)
	case "sequence":
		st.sequence(args)
	default:
		kind, ok := simple[verb]
		if !ok {
			st.fatal("unknown verb %q", verb)
		}
		st.step(Event{Kind: kind})
	}
}

func (st *stage) modules(args []string) {
	for _, a := range args {
		a, immediate := strings.CutSuffix(a, "!")
		number, types, _ := strings.Cut(a, ":")
		m := Module{Number: int32(st.number(number)), Immediate: immediate}
		for _, typ := range strings.FieldsFunc(types, func(r rune) bool { return r == ',' }) {
			m.Types = append(m.Types, st.number(typ))
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
			st.fatal("unknown option %q", a)
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
		st.fatal("sequence ended in phase %v", st.c.Phase())
	}
}

func (st *stage) number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		st.fatal("%v", err)
	}
	return uint32(n)
}

func (st *stage) device(s string) (fleet.Device, []byte) {
	s, data, _ := strings.Cut(s, "=")
	s, priority, found := strings.Cut(s, ":")
	parts := strings.Split(s, "/")
	if len(parts) != 4 {
		st.fatal("device %q: expected module/type/role/name", s)
	}
	d := fleet.Device{Module: int32(st.number(parts[0])), Type: st.number(parts[1]), Role: parts[2], Name: parts[3]}
	if found {
		d.Priority = st.number(priority)
	}
	return d, []byte(data)
}

func (st *stage) recv(m fleet.ServerMessage) { st.step(Event{Kind: EventMessage, Message: m}) }

func (st *stage) step(ev Event) {
	for _, e := range st.c.Step(st.now, ev) {
		if st.mute {
			continue
		}
		st.out.WriteString("->")
		if ev.Kind == EventDeadline {
			fmt.Fprintf(&st.out, " [%v]", st.now.Sub(st.start).Round(time.Millisecond))
		}
		st.out.WriteString(" " + describe(e) + "\n")
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
			st.fatal("deadline %v lies before now", at.Sub(st.start))
		}
		st.now = at
		st.step(Event{Kind: EventDeadline})
	}
	st.fatal("deadlines do not end")
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
