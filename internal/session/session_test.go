package session

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
)

type allModules struct{}

func (allModules) Configured(int32) bool                        { return true }
func (allModules) Recall(int32, uint32) (supported, known bool) { return true, true }
func (allModules) Room(int32) int                               { return 1 << 20 }
func (allModules) Awaited(int32) bool                           { return false }
func (allModules) Position(n int32) int                         { return int(n) }

var (
	start  = time.Unix(1_700_000_000, 0)
	button = fleet.Device{Module: 1, Type: 1, Role: "r", Name: "n"}
)

// running returns a session in normal communication with one device.
func running(tb testing.TB) *Session {
	tb.Helper()
	s := New(Options{}, allModules{})
	var ticket uint64
	for _, e := range s.Step(start, Event{Kind: EventMessage, Message: fleet.ClientMessage{
		Kind: fleet.ClientConnect, SessionID: "abcdefgh", Devices: []fleet.Device{button}}}) {
		if e.Kind == EffectDeviceConnected {
			ticket = e.Ticket
		}
	}
	s.Step(start, Event{Kind: EventAdmission, Ticket: ticket, Admitted: true})
	s.Step(start, Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "abcdefgh", Counter: 1, Device: button}})
	s.Step(start, Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientCommandResponse, SessionID: "abcdefgh"}})
	if s.Phase() != PhaseRunning {
		tb.Fatalf("phase %v, want running", s.Phase())
	}
	return s
}

// BenchmarkRunningStatus is one status of normal communication.
func BenchmarkRunningStatus(b *testing.B) {
	s := running(b)
	m := fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "abcdefgh", State: fleet.StateRunning, Counter: 1, Device: button, Data: make([]byte, 100)}
	b.ReportAllocs()
	for b.Loop() {
		m.Counter++
		if len(s.Step(start, Event{Kind: EventMessage, Message: m})) != 3 {
			b.Fatal("a status must be noted, forwarded and answered")
		}
	}
}

// The RUNNING path of a status allocates nothing.
func TestRunningStatusDoesNotAllocate(t *testing.T) {
	s := running(t)
	m := fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "abcdefgh", State: fleet.StateRunning, Counter: 1, Device: button}
	if n := testing.AllocsPerRun(1000, func() {
		m.Counter++
		s.Step(start, Event{Kind: EventMessage, Message: m})
	}); n != 0 {
		t.Errorf("%v allocations per status, want 0", n)
	}
}

// REC-22: what waits is bounded in bytes too, in normal communication and in the
// connect sequence; what has found its turn no longer counts.
func TestWaitingIsBoundedInBytes(t *testing.T) {
	const most = 1200
	status := func(counter uint32, n int) Event {
		return Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "abcdefgh",
			State: fleet.StateRunning, Counter: counter, Device: button, Data: make([]byte, n), Error: make([]byte, n)}}
	}
	ended := func(effects []Effect) (reason Reason) {
		for _, e := range effects {
			if e.Kind == EffectSessionEnded {
				reason = e.Reason
			}
		}
		return reason
	}
	s := running(t)
	s.Configure(Options{MaxAheadBytes: most})
	s.Step(start, status(1, 1)) // sets the base
	counter := uint32(2)
	for range 10 { // two wait for one, again and again
		for _, c := range []uint32{counter + 1, counter + 2, counter} {
			if r := ended(s.Step(start, status(c, 250))); r != ReasonNone {
				t.Fatalf("status %d: session ended: %s", c, r)
			}
		}
		counter += 3
	}
	s.Step(start, status(counter+1, most/2-50))
	if r := ended(s.Step(start, status(counter+2, 50))); r != ReasonTooManyAhead {
		t.Errorf("session ended: %q", r)
	}

	s = New(Options{MaxAheadBytes: most}, allModules{})
	s.Step(start, Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "abcdefgh", Devices: []fleet.Device{button}}})
	if r := ended(s.Step(start, status(1, most/2-50))); r != ReasonNone {
		t.Errorf("sequence ended: %q", r)
	}
	if r := ended(s.Step(start, status(2, 50))); r != ReasonSequenceTooManyHeld {
		t.Errorf("sequence ended: %q", r)
	}

	// The texts count, and the devices of a Connect.
	s = running(t)
	s.Configure(Options{MaxAheadBytes: most})
	s.Step(start, status(1, 1))
	named := status(3, 1)
	named.Message.Device.Name = strings.Repeat("n", most)
	if r := ended(s.Step(start, named)); r != ReasonTooManyAhead {
		t.Errorf("long name: session ended: %q", r)
	}
	s = New(Options{MaxAheadBytes: most}, allModules{})
	connect := Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "abcdefgh", Devices: []fleet.Device{button}}}
	s.Step(start, connect)
	connect.Message.Devices = make([]fleet.Device, most/(&fleet.ClientMessage{Devices: make([]fleet.Device, 1)}).Size()+1)
	if r := ended(s.Step(start, connect)); r != ReasonSequenceTooManyHeld {
		t.Errorf("many devices: sequence ended: %q", r)
	}
}

// Random events in random order never break the promises of the protocol, for
// any seed: the sequence order of REC-2, one answer per counter (STAT-8, GW-32),
// consecutive command counters (CMD-11), balanced device life, nothing forwarded
// for a device that is not connected, bounded memory (REC-22).
func TestRandomEventsKeepInvariants(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for i := range uint64(300) {
		if err := wander(seed + i); err != nil {
			t.Fatalf("seed %d: %v", seed+i, err)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add(uint64(1))
	f.Add(uint64(42))
	f.Fuzz(func(t *testing.T, seed uint64) {
		if err := wander(seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	})
}

// watcher checks the effects of one session against the invariants.
type watcher struct {
	answered  map[uint32]bool
	forwarded map[uint32]bool
	connected map[fleet.DeviceID]bool
	next      uint32
	hasNext   bool
	running   bool
	inSession bool
	responses int
	commands  int
	greeted   bool
}

// awaitedOne has one module whose statuses are answered when it has taken them.
type awaitedOne struct{ allModules }

func (awaitedOne) Awaited(n int32) bool { return n == 1 }

func wander(seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 7))
	s := New(Options{MaxAhead: 8, MaxPending: 4, MaxDevices: 6}, allModules{})
	if rnd.IntN(2) == 0 {
		s.UseModules(awaitedOne{})
	}
	w := watcher{connected: map[fleet.DeviceID]bool{}}
	now := start
	devices := make([]fleet.Device, 4)
	for i := range devices {
		devices[i] = fleet.Device{Module: int32(1 + i%2), Type: 1, Role: fmt.Sprint("r", i), Name: "n"}
	}
	ids := []string{"one", "two", "three"}
	var tickets []uint64
	counter := uint32(rnd.IntN(3)) - 1 // near the wrap-around
	step := func(ev Event) error {
		for _, e := range s.Step(now, ev) {
			if e.Kind == EffectDeviceConnected {
				tickets = append(tickets, e.Ticket)
			}
			if err := w.check(e); err != nil {
				return err
			}
		}
		if s.owed.Len() > 8 {
			return fmt.Errorf("unbounded: %d answers are held", s.owed.Len())
		}
		if s.order.Len() > 9 || len(s.held) > 8 || len(s.devices) > 6 {
			return fmt.Errorf("unbounded: %d ahead, %d held, %d devices", s.order.Len(), len(s.held), len(s.devices))
		}
		return nil
	}
	for range 200 {
		var err error
		switch id := ids[rnd.IntN(len(ids))]; rnd.IntN(15) {
		case 0:
			n := rnd.IntN(len(devices) + 1)
			err = step(Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: id, Devices: devices[:n], Redelivered: rnd.IntN(4) == 0}})
		case 1, 2, 3, 4, 5:
			if s.id != "" && rnd.IntN(4) > 0 {
				id = s.id
			}
			state := fleet.DeviceState(rnd.IntN(5))
			if s.phase == PhaseStatuses {
				state = fleet.StateConnecting
			}
			counter += uint32(rnd.IntN(4)) - 1
			err = step(Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: id, Counter: counter, State: state, Device: devices[rnd.IntN(len(devices))]}})
		case 6, 7, 8:
			if s.id != "" {
				id = s.id
			}
			err = step(Event{Kind: EventMessage, Message: fleet.ClientMessage{Kind: fleet.ClientCommandResponse, SessionID: id,
				Counter: s.sent.Next - uint32(rnd.IntN(4)), Response: fleet.ResponseType(rnd.IntN(4))}})
		case 9:
			err = step(Event{Kind: EventCommands, Module: 1, Commands: []fleet.Command{{Device: devices[rnd.IntN(4)], Data: []byte{1}}}})
		case 10, 11:
			if len(tickets) > 0 {
				ticket := tickets[0]
				tickets = tickets[1:]
				err = step(Event{Kind: EventAdmission, Ticket: ticket, Admitted: rnd.IntN(5) > 0})
			}
		case 12:
			now = now.Add(time.Duration(rnd.IntN(3000)) * time.Millisecond)
			if at := s.Deadline(); !at.IsZero() && !at.After(now) {
				err = step(Event{Kind: EventDeadline})
			}
		case 14:
			err = step(Event{Kind: EventDelivered, Module: 1, Number: uint64(rnd.IntN(int(1 + *s.number(1))))})
		case 13:
			err = step(Event{Kind: []EventKind{EventLinkDown, EventPublishFailed, EventMessage, EventDeadline}[rnd.IntN(4)]})
		}
		if err != nil {
			return err
		}
	}
	if err := step(Event{Kind: EventStop}); err != nil {
		return err
	}
	for id := range w.connected {
		return fmt.Errorf("device %v was never disconnected", id)
	}
	return nil
}

func (w *watcher) check(e Effect) error {
	switch e.Kind {
	case EffectSessionStarted:
		w.answered, w.forwarded = map[uint32]bool{}, map[uint32]bool{}
		w.running, w.inSession, w.greeted, w.responses, w.commands = false, true, false, 0, 0
	case EffectSessionRunning:
		w.running = true
	case EffectSessionEnded:
		w.inSession = false
		if len(w.connected) > 0 {
			return fmt.Errorf("session ended with devices %v", w.connected)
		}
	case EffectDeviceConnected:
		if w.connected[e.Device.ID()] {
			return fmt.Errorf("device %v connected twice", e.Device)
		}
		w.connected[e.Device.ID()] = true
	case EffectDeviceDisconnected:
		if !w.connected[e.Device.ID()] {
			return fmt.Errorf("device %v disconnected without being connected", e.Device)
		}
		delete(w.connected, e.Device.ID())
	case EffectNote:
		if e.Note == NoteRefused {
			delete(w.connected, e.Device.ID())
		}
	case EffectForward:
		if !w.connected[e.Device.ID()] {
			return fmt.Errorf("status of %v forwarded, not connected", e.Device)
		}
		if w.running && w.forwarded[e.Counter] {
			return fmt.Errorf("status %d forwarded twice", e.Counter)
		}
		if w.running {
			w.forwarded[e.Counter] = true
		}
	case EffectPublish:
		return w.message(e.Message)
	}
	return nil
}

func (w *watcher) message(m fleet.ServerMessage) error {
	if m.Kind == fleet.ServerConnectResponse && m.AlreadyLogged && !w.inSession {
		return nil // calls the gateway to connect anew (GW-34)
	}
	if !w.inSession {
		return fmt.Errorf("message %+v outside of a session", m)
	}
	switch m.Kind {
	case fleet.ServerConnectResponse:
		if w.greeted && !m.AlreadyLogged {
			return fmt.Errorf("second ConnectResponse") // SEQ-8
		}
		w.greeted = true
	case fleet.ServerStatusResponse:
		if !w.greeted || (!w.running && w.commands > 0) {
			return fmt.Errorf("StatusResponse out of place") // SEQ-35
		}
		if w.running && w.answered[m.Counter] {
			return fmt.Errorf("status %d answered twice", m.Counter)
		}
		if w.running {
			w.answered[m.Counter] = true
		}
	case fleet.ServerCommand:
		if w.hasNext && m.Counter != w.next {
			return fmt.Errorf("command %d, want %d", m.Counter, w.next)
		}
		w.next, w.hasNext = m.Counter+1, true
		w.commands++
	}
	return nil
}
