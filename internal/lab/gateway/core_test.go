package gateway

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/protocol"
)

var sessionID = regexp.MustCompile(`^[0-9A-Za-z]{8}$`)

// checker plays events on a Core and holds every effect against what a gateway never
// does.
type checker struct {
	t        *testing.T
	c        *Core
	now      time.Time
	open     bool
	running  bool
	session  string
	counter  uint32
	waiting  map[uint32]bool
	sessions map[string]bool
	each     func(Effect) // may be nil
}

func newChecker(t *testing.T, opts Options) *checker {
	return &checker{t: t, c: New(opts), now: time.Unix(1000, 0), waiting: map[uint32]bool{}, sessions: map[string]bool{}}
}

func (k *checker) step(ev Event) {
	t := k.t
	for _, e := range k.c.Step(k.now, ev) {
		if k.each != nil {
			k.each(e)
		}
		switch e.Kind {
		case EffectOpen:
			if k.open {
				t.Fatal("opened twice")
			}
			k.open, k.counter, k.session = true, 0, ""
			clear(k.waiting)
		case EffectClose:
			if !k.open {
				t.Fatal("closed twice")
			}
			k.open, k.running = false, false
		case EffectSend:
			k.sent(e.Message)
		case EffectAnswered:
			if !k.waiting[e.Counter] {
				t.Fatalf("status %d answered, which is not waiting", e.Counter)
			}
			delete(k.waiting, e.Counter)
		case EffectConnected:
			if k.running || e.Session != k.session {
				t.Fatalf("connected %s in session %s, running %v", e.Session, k.session, k.running)
			}
			k.running = true
		case EffectDisconnected, EffectSequenceFailed:
			if k.running != (e.Kind == EffectDisconnected) {
				t.Fatalf("%s while running is %v", describe(e), k.running)
			}
		}
	}
	if at := k.c.Deadline(); !at.IsZero() && !at.After(k.now) && ev.Kind == EventDeadline {
		t.Fatalf("deadline %v is not after %v in phase %v", at, k.now, k.c.Phase())
	}
	if n := k.c.Outstanding(); k.open && n != len(k.waiting) {
		t.Fatalf("%d statuses outstanding, counted %d", n, len(k.waiting))
	}
}

func (k *checker) sent(m fleet.ClientMessage) {
	t := k.t
	if !k.open {
		t.Fatalf("sent without a connection: %s", describeMessage(m))
	}
	switch m.Kind {
	case fleet.ClientConnect:
		if !sessionID.MatchString(m.SessionID) || k.sessions[m.SessionID] || len(m.Devices) == 0 || k.session != "" {
			t.Fatalf("bad connect %s", describeMessage(m))
		}
		k.session = m.SessionID
		k.sessions[m.SessionID] = true
	case fleet.ClientStatus:
		k.counter++
		if m.Counter != k.counter {
			t.Fatalf("status %d, want %d (GW-51)", m.Counter, k.counter)
		}
		k.waiting[m.Counter] = true
	}
	if m.SessionID != k.session {
		t.Fatalf("message of session %s in session %s", m.SessionID, k.session)
	}
	if _, err := protocol.EncodeClient(m, car1); err != nil {
		t.Fatal(err)
	}
}

// FuzzCore plays any sequence of events, two bytes each: no panic, no message without
// a connection, counters without gaps, deadlines in the future, sessions never used
// twice.
func FuzzCore(f *testing.F) {
	f.Add(uint64(1), []byte{0, 0, 1, 0, 2, 0, 3, 1, 4, 0, 4, 0})
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		script := make([]byte, 400)
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		f.Add(seed, script)
	}
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		k := newChecker(t, fuzzOptions(seed))
		for i := 0; i+1 < len(script) && i < 4000; i += 2 {
			k.random(script[i], script[i+1])
		}
	})
}

func fuzzOptions(seed uint64) Options {
	return Options{Rand: rand.New(rand.NewPCG(seed, 1)), Steady: seed%2 == 0,
		Modules: []Module{{Number: 1, Types: []uint32{1}}, {Number: 2, Immediate: true}}}
}

func (k *checker) random(op, arg byte) {
	device := fleet.Device{Module: int32(arg%2 + 1), Type: uint32(arg / 2 % 3), Role: "r", Name: "n", Priority: uint32(arg / 128)}
	if arg == 249 {
		device.Module = 3 // not configured
	}
	session := k.c.Session()
	if arg >= 250 {
		session = "foreign0"
	}
	server := func(m fleet.ServerMessage) {
		m.SessionID = session
		k.step(Event{Kind: EventMessage, Message: m})
	}
	switch op % 16 {
	case 0, 1:
		k.step(Event{Kind: EventStatus, Device: device, Data: []byte{arg}})
	case 2:
		k.step(Event{Kind: EventLinkUp})
	case 3:
		server(fleet.ServerMessage{Kind: fleet.ServerConnectResponse, AlreadyLogged: arg == 7})
	case 4, 5: // the oldest unanswered one, or any
		counter := k.c.outstanding.first()
		if arg > 230 {
			counter = uint32(arg)
		}
		server(fleet.ServerMessage{Kind: fleet.ServerStatusResponse, Counter: counter})
	case 6, 7:
		counter := k.c.lastCommand + 1
		if arg > 230 {
			counter = uint32(arg)
		}
		server(fleet.ServerMessage{Kind: fleet.ServerCommand, Counter: counter, Device: device, Data: make([]byte, arg%2)})
	case 8:
		k.step(Event{Kind: EventLeave, Device: device})
	case 9:
		k.step(Event{Kind: EventAlive, Device: device})
	case 10:
		k.now = k.now.Add(time.Duration(arg) * 100 * time.Millisecond)
		k.step(Event{Kind: EventDeadline})
	case 11:
		if at := k.c.Deadline(); !at.IsZero() && at.After(k.now) {
			k.now = at
		}
		k.step(Event{Kind: EventDeadline})
	case 12, 13, 14:
		k.help()
	default:
		rare := []EventKind{EventUnparseable, EventNotification, EventLinkFailed, EventPublishFailed, EventReconnect, EventRestart}
		if n := int(arg); n < len(rare) {
			k.step(Event{Kind: rare[n]})
		} else {
			server(fleet.ServerMessage{})
		}
	}
}

// help does what a good server and a good network do next.
func (k *checker) help() {
	m := fleet.ServerMessage{SessionID: k.c.Session()}
	switch k.c.Phase() {
	case PhaseOpening:
		k.step(Event{Kind: EventLinkUp})
		return
	case PhaseConnecting:
		m.Kind = fleet.ServerConnectResponse
	case PhaseCommands:
		m.Kind = fleet.ServerCommand
		m.Counter = k.c.lastCommand + 1
		m.Device = k.c.devices[k.c.listed[0]].Device
	case PhaseStatuses, PhaseRunning:
		m.Kind = fleet.ServerStatusResponse
		if m.Counter = k.c.outstanding.first(); m.Counter == 0 {
			return
		}
	default:
		return
	}
	k.step(Event{Kind: EventMessage, Message: m})
}

// TestRandomEvents: long random runs reach normal communication and every reason but
// those that need the owner, and hold what FuzzCore checks.
func TestRandomEvents(t *testing.T) {
	reached := map[Reason]int{}
	connected := 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 9))
		k := newChecker(t, fuzzOptions(seed))
		k.each = func(e Effect) {
			reached[e.Reason]++
			if e.Kind == EffectConnected {
				connected++
			}
		}
		for range 2000 {
			op := byte(r.Uint32())
			if r.IntN(2) == 0 {
				op = 12
			}
			k.random(op, byte(r.Uint32()))
		}
	}
	if connected < 200 {
		t.Errorf("connected %d times, want many", connected)
	}
	for r := ReasonNone + 1; r < numReasons; r++ {
		if reached[r] == 0 && r != ReasonStopped {
			t.Errorf("reason %q was never reached", r)
		}
	}
}

// TestLateOwner: deadlines that are played late, several at once, are all handled.
func TestLateOwner(t *testing.T) {
	k := newChecker(t, Options{Rand: rand.New(rand.NewPCG(3, 3))})
	k.step(Event{Kind: EventStatus, Device: button, Data: []byte("x")})
	k.now = k.now.Add(time.Hour)
	k.step(Event{Kind: EventDeadline}) // the link failed; the device was silent for a period
	if got := k.c.Phase(); got != PhasePause {
		t.Errorf("phase %v, want pause", got)
	}
	k.now = k.now.Add(time.Hour)
	k.step(Event{Kind: EventDeadline}) // the pause is over; the device was silent for two: GW-6
	if got := k.c.Devices(); len(got) != 0 {
		t.Errorf("devices %v, want none", got)
	}
	k.step(Event{Kind: EventLinkUp})
	if got := k.c.Phase(); got != PhaseIdle {
		t.Errorf("phase %v, want idle", got)
	}
}

func TestNamesOfPhases(t *testing.T) {
	seen := map[string]bool{}
	for p := PhaseIdle; p <= PhaseStopped; p++ {
		if seen[p.String()] || p.String() == "" {
			t.Errorf("phase %d is named %q", p, p)
		}
		seen[p.String()] = true
	}
}

// running returns a core in normal communication with n devices.
func runningCore(tb testing.TB, n int) (*Core, []fleet.Device) {
	tb.Helper()
	c := New(Options{Rand: rand.New(rand.NewPCG(1, 1)), Steady: true})
	now := time.Unix(1000, 0)
	var devices []fleet.Device
	for i := range n {
		d := fleet.Device{Module: 1, Type: 1, Role: fmt.Sprintf("role%d", i), Name: "N"}
		devices = append(devices, d)
		c.Step(now, Event{Kind: EventStatus, Device: d, Data: []byte("first")})
	}
	c.Step(now, Event{Kind: EventLinkUp})
	id := c.Session()
	c.Step(now, Event{Kind: EventMessage, Message: fleet.ServerMessage{Kind: fleet.ServerConnectResponse, SessionID: id}})
	for i := range n {
		c.Step(now, Event{Kind: EventMessage, Message: fleet.ServerMessage{Kind: fleet.ServerStatusResponse, SessionID: id, Counter: uint32(i + 1)}})
	}
	for i, d := range devices {
		c.Step(now, Event{Kind: EventMessage, Message: fleet.ServerMessage{Kind: fleet.ServerCommand, SessionID: id, Counter: uint32(i + 1), Device: d}})
	}
	if c.Phase() != PhaseRunning {
		tb.Fatalf("phase %v after the connect sequence", c.Phase())
	}
	return c, devices
}

// TestRunningDoesNotAllocate: ten thousand gateways in one process must leave the
// machine to the server.
func TestRunningDoesNotAllocate(t *testing.T) {
	c, devices := runningCore(t, 2)
	now, data, counter := time.Unix(1001, 0), []byte("data"), uint32(2)
	allocs := testing.AllocsPerRun(1000, func() {
		counter++
		roundTrip(c, now, devices[counter%2], data, counter)
	})
	if allocs != 0 {
		t.Errorf("%v allocations per status and answer, want none", allocs)
	}
}

func roundTrip(c *Core, now time.Time, d fleet.Device, data []byte, counter uint32) {
	c.Step(now, Event{Kind: EventStatus, Device: d, Data: data})
	c.Step(now, Event{Kind: EventMessage, Message: fleet.ServerMessage{Kind: fleet.ServerStatusResponse, Counter: counter}})
}

func BenchmarkRunning(b *testing.B) {
	c, devices := runningCore(b, 2)
	now, data, counter := time.Unix(1001, 0), make([]byte, 100), uint32(2)
	b.ReportAllocs()
	for b.Loop() {
		counter++
		roundTrip(c, now, devices[counter%2], data, counter)
		c.Deadline()
	}
	if c.Phase() != PhaseRunning {
		b.Fatalf("phase %v", c.Phase())
	}
}
