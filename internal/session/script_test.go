package session

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
	"external-server/internal/support/scripttest"
)

// TestScripts plays every conversation in testdata (package scripttest).
//
//	recv connect id=a devices=1/1/r1/N1,2/4/r2/N2:5   (":5" is the priority)
//	recv status id=a n=1 state=CONNECTING dev=1/1/r1/N1 data=x error=y
//	recv response id=a n=0 type=OK
//	recv empty
//	commands 1 1/1/r1/N1=start 1/1/r1/N1=stop        (module, then device=data)
//	advance 2s                                        (deadlines on the way are played)
//	refuse 1/1/r1      modules refuse this device from now on
//	manual             device_connected is not answered by itself any more
//	admit 1 ok|refused|unsupported
//	strange 1/4        module 1 was not asked yet about type 4; the admission asks
//	room 1 no|yes      whether the queue of module 1 takes a status
//	option NAME=VALUE  (before the first event)
//	link up|down, stop, reload, publish-failed
//	link up kept 3s    the broker kept what came in the 3 s without link
//	link down kept|settled
//	backlog read       all that the broker kept has come
//	delivered 1 0      module 1 has confirmed its statuses up to number 0
//	confirmed 1 0      the same, and nothing more happens before the process dies
//	awaited 1          statuses of module 1 are answered when the module has confirmed them
//	crash 3s           a new Session goes on, 3 s later, where the journal ends
//	takeover 3s        another server goes on, 3 s later, where the carried record ends
//	takeover 3s 1      of which the newest has not reached the broker
//	suspend            and before that everything sent has reached the broker
//	new-owner          the Session goes on with the modules of another owner
func TestScripts(t *testing.T) {
	scripttest.Run(t, func(script *scripttest.Script) func([]string) {
		st := &stage{Script: script, now: time.Unix(1000, 0), refused: map[string]bool{}, modules: scriptModules{full: map[int32]bool{}, awaited: map[int32]bool{}, strange: map[[2]uint32]bool{}}}
		return st.do
	})
}

type stage struct {
	*scripttest.Script
	opts    Options
	s       *Session
	now     time.Time
	modules scriptModules
	refused map[string]bool
	manual  bool
	fold    *record.Fold // of the journal
	steps   int
	carried [][]byte // records for another server
	version uint64
}

// scriptModules: modules 1 (type 1), 2 (types 1-4), 3 (every type), 1000 (type 0).
type scriptModules struct {
	full    map[int32]bool
	awaited map[int32]bool
	strange map[[2]uint32]bool // types a module was never asked about
}

func (m scriptModules) Configured(n int32) bool { return n == 1 || n == 2 || n == 3 || n == 1000 }
func (m scriptModules) Awaited(n int32) bool    { return m.awaited[n] }
func (m scriptModules) Position(n int32) int    { return int(n) }
func (m scriptModules) Recall(n int32, typ uint32) (supported, known bool) {
	if m.strange[[2]uint32{uint32(n), typ}] {
		return false, false
	}
	return m.supports(n, typ), true
}
func (m scriptModules) supports(n int32, typ uint32) bool {
	switch n {
	case 1:
		return typ == 1
	case 2:
		return typ >= 1 && typ <= 4
	case 1000:
		return typ == 0
	}
	return n == 3
}
func (m scriptModules) Room(n int32) int {
	if m.full[n] {
		return 0
	}
	return 1000
}

func (st *stage) do(w []string) {
	if w[0] == "option" {
		st.option(w[1])
		return
	}
	if st.s == nil {
		st.s = st.durable()
	}
	switch w[0] {
	case "recv":
		st.step(Event{Kind: EventMessage, Message: st.parseMessage(w[1:])})
	case "commands":
		ev := Event{Kind: EventCommands, Module: int32(st.Number(w[1]))}
		for _, c := range w[2:] {
			dev, data, _ := strings.Cut(c, "=")
			ev.Commands = append(ev.Commands, fleet.Command{Device: st.Device(dev), Data: []byte(data)})
		}
		st.step(ev)
	case "advance":
		st.advance(st.now.Add(st.duration(w[1])))
	case "refuse":
		st.refused[w[1]] = true
	case "manual":
		st.manual = true
	case "admit":
		st.step(Event{Kind: EventAdmission, Ticket: uint64(st.Number(w[1])), Admitted: w[2] == "ok", Unsupported: w[2] == "unsupported"})
	case "strange":
		n, typ, _ := strings.Cut(w[1], "/")
		st.modules.strange[[2]uint32{st.Number(n), st.Number(typ)}] = true
	case "room":
		st.modules.full[int32(st.Number(w[1]))] = w[2] == "no"
	case "link":
		ev := Event{Kind: map[string]EventKind{"up": EventLinkUp, "down": EventLinkDown}[w[1]]}
		if len(w) > 2 {
			ev.Kept, ev.Settled = true, w[2] == "settled"
		}
		if len(w) > 3 {
			ev.Down = st.duration(w[3])
		}
		st.step(ev)
	case "backlog":
		st.step(Event{Kind: EventBacklogRead})
	case "delivered":
		st.apply(record.Begin(nil, "car").Delivered(int32(st.Number(w[1])), uint64(st.Number(w[2]))))
		st.step(Event{Kind: EventDelivered, Module: int32(st.Number(w[1])), Number: uint64(st.Number(w[2]))})
	case "confirmed":
		st.apply(record.Begin(nil, "car").Delivered(int32(st.Number(w[1])), uint64(st.Number(w[2]))))
	case "awaited":
		st.modules.awaited[int32(st.Number(w[1]))] = true
	case "suspend":
		st.apply(st.s.AppendSettled(nil))
	case "crash":
		known, err := st.fold.Car("car")
		if err != nil {
			st.Fatal("%v", err)
		}
		if known == nil {
			known = new(record.Resumption)
		}
		st.now = st.now.Add(st.duration(w[1]))
		st.s = st.durable()
		st.step(Event{Kind: EventResume, Resume: known, Down: st.duration(w[1])})
	case "takeover":
		back := 1
		if len(w) > 2 {
			back += int(st.Number(w[2]))
		}
		known := new(record.Resumption)
		if data := st.carried[len(st.carried)-back]; len(data) > 0 {
			var err error
			if known, err = record.Carried("car", data); err != nil {
				st.Fatal("the carried record: %v", err)
			}
		}
		st.now = st.now.Add(st.duration(w[1]))
		st.fold, st.version, st.carried = nil, 0, nil // this server has a journal of its own
		st.s = st.durable()
		st.step(Event{Kind: EventResume, Resume: known, Down: st.duration(w[1])})
	case "disconnect":
		st.step(Event{Kind: EventDisconnect})
	case "gateway-gone":
		st.step(Event{Kind: EventGatewayGone})
	case "reannounce":
		st.step(Event{Kind: EventReannounce})
	case "stop":
		st.step(Event{Kind: EventStop})
	case "reload":
		st.step(Event{Kind: EventReload})
	case "new-owner":
		st.modules.full = map[int32]bool{}
		st.s.UseModules(st.modules)
	case "publish-failed":
		st.step(Event{Kind: EventPublishFailed})
	default:
		st.Fatal("unknown input %q", w[0])
	}
}

func (st *stage) duration(word string) time.Duration {
	d, err := time.ParseDuration(word)
	if err != nil {
		st.Fatal("%v", err)
	}
	return d
}

// durable returns a new Session whose journal is folded into st.fold.
func (st *stage) durable() *Session {
	if st.fold == nil {
		st.fold = record.NewFold()
	}
	s := New(st.opts, st.modules)
	s.Durable("car")
	return s
}

// apply adds a record to what the journal says, and compacts it now and then.
func (st *stage) apply(data []byte) {
	if err := st.fold.Apply(data); err != nil {
		st.Fatal("the journal: %v", err)
	}
	if st.steps++; st.steps%3 == 0 {
		compact := record.NewFold()
		st.fold.Snapshot(func(r []byte) {
			if err := compact.Apply(r); err != nil {
				st.Fatal("the compacted journal: %v", err)
			}
		})
		st.fold = compact
	}
}

// checkJournal compares what the journal says with the session.
func (st *stage) checkJournal() {
	if r := st.s.Journal(); r != nil {
		st.apply(r)
	}
	known, err := st.fold.Car("car")
	if err != nil {
		st.Fatal("the journal: %v", err)
	}
	if known == nil {
		known = new(record.Resumption)
	}
	if want, got := plain(st.s.Record()), plain(known.Record); want != got {
		st.Fatal("the journal says\n%s\nthe session\n%s", got, want)
	}
}

// checkCarried compares what is carried with the session: it may be behind by the counter of
// statuses, and by nothing else.
func (st *stage) checkCarried() {
	if v := st.s.Version(); v != st.version {
		st.version = v
		st.carried = append(st.carried, st.s.AppendCarried(nil))
	}
	now := st.s.Record()
	if len(st.carried) == 0 || len(st.carried[len(st.carried)-1]) == 0 {
		if now != nil {
			st.Fatal("nothing is carried of session %s", now.ID)
		}
		return
	}
	known, err := record.Carried("car", st.carried[len(st.carried)-1])
	if err != nil || now == nil {
		st.Fatal("carried: %v; the session: %+v", err, now)
	}
	if behind := now.Expected - known.Record.Expected; behind >= hintEvery {
		st.Fatal("what is carried is %d statuses behind", behind)
	}
	known.Record.Expected, known.Record.Passed, now.Passed = now.Expected, nil, nil
	// What the broker was not told of comes again.
	now.Owed = slices.DeleteFunc(now.Owed, func(o record.Owed) bool { return !slices.Contains(known.Record.Owed, o) })
	if want, got := plain(now), plain(known.Record); want != got {
		st.Fatal("carried is\n%s\nthe session is\n%s", got, want)
	}
}

// plain returns a record as text. The order of what waits ahead and whether the broker
// has all do not count.
func plain(r *record.Session) string {
	if r == nil {
		return "no session"
	}
	c := *r
	c.Settled = false
	c.Ahead = slices.Clone(r.Ahead)
	for i := range c.Ahead {
		c.Ahead[i].Received, c.Ahead[i].Redelivered = time.Time{}, false
	}
	slices.SortFunc(c.Ahead, func(a, b fleet.ClientMessage) int { return cmp.Compare(a.Counter, b.Counter) })
	if len(c.Ahead) > 0 && !c.Counting {
		c.Counting, c.First, c.Expected = true, c.Ahead[0].Counter, c.Ahead[0].Counter
	}
	c.Commands = slices.Clone(r.Commands)
	for i := range c.Commands {
		c.Commands[i].Command.Fetched = time.Time{}
	}
	return fmt.Sprintf("%+v", c)
}

func (st *stage) option(kv string) {
	k, v, _ := strings.Cut(kv, "=")
	switch k {
	case "ahead":
		st.opts.MaxAhead = int(st.Number(v))
	case "pending":
		st.opts.MaxPending = int(st.Number(v))
	case "devices":
		st.opts.MaxDevices = int(st.Number(v))
	case "send_invalid_command":
		st.opts.SendInvalidCommand = v == "true"
	default:
		st.Fatal("unknown option %q", k)
	}
}

func (st *stage) advance(to time.Time) {
	for {
		at := st.s.Deadline()
		if at.IsZero() || at.After(to) {
			break
		}
		if at.After(st.now) {
			st.now = at
		}
		st.step(Event{Kind: EventDeadline})
		if next := st.s.Deadline(); next.Equal(at) {
			st.Fatal("deadline %v was played and is still due", at)
		}
	}
	st.now = to
}

func (st *stage) step(ev Event) {
	var answers []Event
	effects := st.s.Step(st.now, ev)
	st.checkJournal()
	st.checkCarried()
	for _, e := range effects {
		st.Effect(describe(e))
		supported := st.modules.supports(e.Device.Module, e.Device.Type)
		switch e.Kind {
		case EffectDeviceConnected:
			admitted := supported && !st.refused[e.Device.ID().String()]
			answers = append(answers, Event{Kind: EventAdmission, Ticket: e.Ticket, Admitted: admitted, Unsupported: !supported})
		case EffectAskType:
			answers = append(answers, Event{Kind: EventAdmission, Ticket: e.Ticket, Admitted: supported, Unsupported: !supported})
		}
	}
	if st.manual {
		return
	}
	for _, answer := range answers {
		st.step(answer)
	}
}

func describe(e Effect) string {
	switch e.Kind {
	case EffectPublish:
		m := e.Message
		switch m.Kind {
		case fleet.ServerConnectResponse:
			if m.AlreadyLogged {
				return "send connectResponse " + m.SessionID + " ALREADY_LOGGED"
			}
			return "send connectResponse " + m.SessionID + " OK"
		case fleet.ServerStatusResponse:
			return fmt.Sprintf("send statusResponse %s %d", m.SessionID, m.Counter)
		}
		return fmt.Sprintf("send command %s %d %v:%d %q", m.SessionID, m.Counter, m.Device, m.Device.Priority, m.Data)
	case EffectNotifyDisconnect:
		return "send disconnect notification"
	case EffectDiscardOutgoing:
		return "discard outgoing"
	case EffectDeviceConnected:
		first := ""
		if e.First {
			first = " first"
		}
		return fmt.Sprintf("device_connected %v ticket=%d%s", e.Device, e.Ticket, first)
	case EffectAskType:
		return fmt.Sprintf("ask type of %v ticket=%d", e.Device, e.Ticket)
	case EffectForward:
		if e.Again {
			return fmt.Sprintf("forward again %v %q", e.Device, e.Data)
		}
		if len(e.Error) > 0 {
			return fmt.Sprintf("forward %v %q error %q", e.Device, e.Data, e.Error)
		}
		return fmt.Sprintf("forward %v %q", e.Device, e.Data)
	case EffectAnswerLater:
		return fmt.Sprintf("answer %d later", e.Counter)
	case EffectHandled:
		return fmt.Sprintf("broker: %d is handled", e.Counter)
	case EffectDeviceDisconnected:
		return fmt.Sprintf("device_disconnected %v %v", e.Device, e.Disconnect)
	case EffectAck:
		return fmt.Sprintf("command_ack module=%d %v %q", e.Module, e.Command.Device, e.Command.Data)
	case EffectSessionStarted:
		return "session started " + strconv.Quote(e.SessionID)
	case EffectSessionResumed:
		return fmt.Sprintf("session resumed %s after %v", e.SessionID, e.Down)
	case EffectSessionRunning:
		return "session running " + e.SessionID
	case EffectSessionEnded:
		return fmt.Sprintf("session ended %q: %s (unacknowledged commands %d)", e.SessionID, e.Reason, e.Count)
	case EffectNote:
		level := [...]string{"debug", "info", "warning", "error"}[e.Level]
		s := level + ": " + string(e.Note)
		if e.Device != (fleet.Device{}) {
			s += " " + e.Device.String()
		}
		if e.Counter != 0 {
			s += fmt.Sprintf(" #%d", e.Counter)
		}
		if e.Count != 0 {
			s += fmt.Sprintf(" module %d, %d commands", e.Module, e.Count)
		}
		return s
	}
	return fmt.Sprintf("unknown effect %d", e.Kind)
}

func (st *stage) parseMessage(w []string) fleet.ClientMessage {
	kinds := map[string]fleet.ClientKind{"connect": fleet.ClientConnect, "status": fleet.ClientStatus,
		"response": fleet.ClientCommandResponse, "empty": fleet.ClientEmpty}
	kind, ok := kinds[w[0]]
	if !ok {
		st.Fatal("unknown message %q", w[0])
	}
	m := fleet.ClientMessage{Kind: kind}
	for _, kv := range w[1:] {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "id":
			m.SessionID = v
		case "devices":
			for _, d := range strings.Split(v, ",") {
				if d != "" {
					m.Devices = append(m.Devices, st.Device(d))
				}
			}
		case "n":
			m.Counter = st.Number(v)
		case "state":
			states := map[string]fleet.DeviceState{"CONNECTING": 0, "RUNNING": 1, "ERROR": 2, "DISCONNECT": 3, "9": 9}
			s, ok := states[v]
			if !ok {
				st.Fatal("unknown state %q", v)
			}
			m.State = s
		case "dev":
			m.Device = st.Device(v)
		case "data":
			m.Data = []byte(v)
		case "error":
			m.Error = []byte(v)
		case "type":
			types := map[string]fleet.ResponseType{"OK": 0, "DEVICE_NOT_CONNECTED": 1, "DEVICE_NOT_SUPPORTED": 2, "INVALID_COMMAND": 3}
			r, ok := types[v]
			if !ok {
				st.Fatal("unknown response type %q", v)
			}
			m.Response = r
		case "dup":
			m.Redelivered = true
		default:
			st.Fatal("unknown field %q", k)
		}
	}
	return m
}
