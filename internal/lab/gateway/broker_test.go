package gateway

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"external-server/internal/fleet"
	"external-server/internal/protocol"
	"external-server/internal/support/testleak"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testleak.Settled(m)) }

// server is a minimal External Server for any number of cars: it answers every
// Connect and every status of it, sends the first commands, and the commands it is
// told to. Its devices are not judged.
type server struct {
	conn *stream

	mu   sync.Mutex
	cars map[fleet.CarID]*serverCar

	forgetful bool // does not keep what it received
}

type serverCar struct {
	session   string
	devices   []fleet.Device
	awaited   int // first statuses
	commands  uint32
	statuses  []fleet.ClientMessage // of normal communication
	answers   []fleet.ClientMessage // command responses
	connected int                   // Connect messages
}

func newServer(t testing.TB, broker Broker, company string) *server {
	t.Helper()
	s := &server{cars: map[fleet.CarID]*serverCar{}}
	conn, err := dialStream(broker, "scripted-server-"+rand.Text(), sharedLimits(), func(topic, payload []byte) {
		s.message(string(topic), bytes.Clone(payload))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	t.Cleanup(conn.close)
	if err := <-conn.subscribe(company + "/+/module_gateway"); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) message(topic string, payload []byte) {
	m, err := protocol.DecodeClient(payload)
	if err != nil {
		return
	}
	company, name := filepath.Split(filepath.Dir(topic))
	car := fleet.CarID{Company: filepath.Clean(company), Car: name}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cars[car]
	if c == nil {
		c = &serverCar{}
		s.cars[car] = c
	}
	switch m.Kind {
	case fleet.ClientConnect:
		c.session, c.devices, c.awaited = m.SessionID, m.Devices, len(m.Devices)
		c.connected++
		s.send(car, fleet.ServerMessage{Kind: fleet.ServerConnectResponse, SessionID: c.session})
	case fleet.ClientStatus:
		if m.SessionID != c.session {
			return
		}
		s.send(car, fleet.ServerMessage{Kind: fleet.ServerStatusResponse, SessionID: c.session, Counter: m.Counter})
		if c.awaited == 0 {
			if !s.forgetful {
				c.statuses = append(c.statuses, m)
			}
			return
		}
		if c.awaited--; c.awaited == 0 {
			for _, d := range c.devices {
				s.command(car, c, d, nil)
			}
		}
	case fleet.ClientCommandResponse:
		c.answers = append(c.answers, m)
	}
}

func (s *server) command(car fleet.CarID, c *serverCar, d fleet.Device, data []byte) {
	s.send(car, fleet.ServerMessage{Kind: fleet.ServerCommand, SessionID: c.session, Counter: c.commands, Device: d, Data: data})
	c.commands++
}

// Command sends a command to a device of a connected car.
func (s *server) Command(car fleet.CarID, d fleet.Device, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.command(car, s.cars[car], d, []byte(data))
}

func (s *server) send(car fleet.CarID, m fleet.ServerMessage) {
	s.publish(topicsOf(car).down, protocol.AppendServer(nil, m))
}

func (s *server) publish(topic string, payload []byte) {
	s.conn.publish(topic, payload) // refused only when the broker is away
}

// Statuses returns what came from a car in normal communication.
func (s *server) Statuses(car fleet.CarID) []fleet.ClientMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.cars[car]; c != nil {
		return append([]fleet.ClientMessage(nil), c.statuses...)
	}
	return nil
}

func (s *server) connects(car fleet.CarID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.cars[car]; c != nil {
		return c.connected
	}
	return 0
}

// effectLog collects the effects of gateways and lets a test wait for one.
type effectLog struct {
	mu      sync.Mutex
	changed chan struct{}
	all     []Effect
}

func newEffectLog() *effectLog { return &effectLog{changed: make(chan struct{})} }

func (l *effectLog) observe(e Effect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
	close(l.changed)
	l.changed = make(chan struct{})
}

// wait waits until n effects fulfil the condition and returns the last of them.
func (l *effectLog) wait(t *testing.T, n int, what string, is func(Effect) bool) Effect {
	t.Helper()
	limit := time.After(testwait.Patience)
	for {
		l.mu.Lock()
		found := 0
		for _, e := range l.all {
			if is(e) {
				if found++; found == n {
					l.mu.Unlock()
					return e
				}
			}
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-limit:
			l.mu.Lock()
			defer l.mu.Unlock()
			text := ""
			for _, e := range l.all[max(0, len(l.all)-30):] {
				text += describe(e) + "\n"
			}
			t.Fatalf("waited for %d times %s, found %d; the last effects:\n%s", n, what, found, text)
		}
	}
}

func (l *effectLog) waitKind(t *testing.T, n int, kind EffectKind) Effect {
	t.Helper()
	return l.wait(t, n, fmt.Sprintf("effect %d", kind), func(e Effect) bool { return e.Kind == kind })
}

func (l *effectLog) count(is func(Effect) bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.all {
		if is(e) {
			n++
		}
	}
	return n
}

func isViolation(e Effect) bool { return e.Kind == EffectViolation }
