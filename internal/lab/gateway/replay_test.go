package gateway

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/capture"
	"external-server/internal/protocol"
)

// TestReplayOfRealGateway plays the recording of a real gateway: the core gets the
// device statuses when the recorded gateway reported them and the server's messages
// when they came. It must send what the real one sent: the same connect sequence, the
// same counters, devices, states, errors and command responses. Only the session id is
// its own. While the recorded gateway stalls after a DISCONNECT (GW-7), statuses are
// given evenly: the core must hold them back just as long.
func TestReplayOfRealGateway(t *testing.T) {
	all, err := capture.ReadFile("../capture/testdata/gateway-session.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	p := &replay{t: t, start: time.Unix(5000, 0)}
	p.c = New(Options{Modules: []Module{{Number: 1}, {Number: 2}, {Number: 1000}}, Steady: true, Timing: Timing{ForcedStatus: -1}})

	var want []fleet.ClientMessage
	first := map[fleet.DeviceID][]byte{}
	for _, m := range capture.Client(all) {
		msg := decodeClient(t, m.Payload)
		want = append(want, msg)
		if _, seen := first[msg.Device.ID()]; !seen && msg.Kind == fleet.ClientStatus {
			first[msg.Device.ID()] = msg.Data
		}
	}
	// The statuses of the listed devices started the attempt; the later module first,
	// since the order of the list comes from the configuration (GW-12).
	for _, d := range []int{1, 0} {
		dev := want[0].Devices[d]
		p.step(Event{Kind: EventStatus, Device: dev, Data: first[dev.ID()]})
	}
	p.step(Event{Kind: EventLinkUp})

	var stallFrom time.Duration
	for i, m := range all {
		at := m.At
		switch m.Direction {
		case capture.FromServer:
			server, err := protocol.DecodeServer(m.Payload)
			if err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
			server.SessionID = p.c.Session()
			p.advance(at)
			p.step(Event{Kind: EventMessage, Message: server})
		case capture.FromGateway:
			msg := decodeClient(t, m.Payload)
			if msg.Kind != fleet.ClientStatus || msg.Counter <= 2 {
				continue // the core says these by itself
			}
			if stallFrom > 0 && at > stallFrom+10*time.Second {
				// The burst: its first part was waiting, so it came during the stall.
				at = stallFrom + time.Duration(msg.Counter-166)*100*time.Millisecond
			}
			p.advance(max(at, p.now))
			kind := EventStatus
			if msg.State == fleet.StateDisconnect {
				kind, stallFrom = EventLeave, m.At
			}
			p.step(Event{Kind: kind, Device: msg.Device, Data: msg.Data})
		}
	}
	compare(t, want, p.sent)
	for i, m := range p.sent {
		if end := stallFrom + 10*time.Second; m.Kind == fleet.ClientStatus && p.at[i] > stallFrom && p.at[i] < end {
			t.Errorf("status %d was sent at %v, within the stall that lasts until %v", m.Counter, p.at[i], end)
		}
	}
	if p.dropped != nil {
		t.Errorf("the core dropped the connection of the recording: %v", p.dropped)
	}
	if n := p.c.Outstanding(); n != 0 {
		t.Errorf("%d statuses are unanswered at the end, want none", n)
	}
}

func compare(t *testing.T, want, got []fleet.ClientMessage) {
	t.Helper()
	// Command responses and statuses have no fixed order between each other: the real
	// gateway answers a command up to 150 ms later.
	for _, kind := range []fleet.ClientKind{fleet.ClientConnect, fleet.ClientStatus, fleet.ClientCommandResponse} {
		w, g := ofKind(want, kind), ofKind(got, kind)
		if len(w) != len(g) {
			t.Errorf("core sent %d messages of kind %v, the real gateway %d", len(g), kind, len(w))
		}
		for i := range min(len(w), len(g)) {
			if !reflect.DeepEqual(w[i], g[i]) {
				t.Fatalf("%v %d differs\nreal: %+v\ncore: %+v", kind, i, w[i], g[i])
			}
		}
	}
}

func ofKind(all []fleet.ClientMessage, kind fleet.ClientKind) []fleet.ClientMessage {
	var out []fleet.ClientMessage
	for _, m := range all {
		if m.Kind == kind {
			m.SessionID = ""
			if len(m.Error) == 0 {
				m.Error = nil
			}
			m.Data = bytes.Clone(m.Data)
			out = append(out, m)
		}
	}
	return out
}

type replay struct {
	t       *testing.T
	c       *Core
	start   time.Time
	now     time.Duration
	sent    []fleet.ClientMessage
	at      []time.Duration // of sent
	dropped []Reason
}

func (p *replay) step(ev Event) {
	for _, e := range p.c.Step(p.start.Add(p.now), ev) {
		switch e.Kind {
		case EffectSend:
			p.sent = append(p.sent, e.Message)
			p.at = append(p.at, p.now)
		case EffectDisconnected, EffectSequenceFailed, EffectViolation:
			p.dropped = append(p.dropped, e.Reason)
		}
	}
}

func (p *replay) advance(to time.Duration) {
	for {
		at := p.c.Deadline()
		if at.IsZero() || at.After(p.start.Add(to)) {
			p.now = to
			return
		}
		p.now = at.Sub(p.start)
		p.step(Event{Kind: EventDeadline})
	}
}

func decodeClient(t *testing.T, payload []byte) fleet.ClientMessage {
	t.Helper()
	m, err := protocol.DecodeClient(payload)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
