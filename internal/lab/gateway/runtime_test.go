package gateway

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/protocol"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// fakeConn is a connection without a broker, for tests on virtual time.
type fakeConn struct {
	g  *Gateway
	up bool // whether the broker is reached

	mu     sync.Mutex
	opened int
	closed int
	sent   []fleet.ClientMessage
}

func (w *fakeConn) open(gen uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened++
	if w.up {
		go w.g.linkReport(gen, nil)
	}
}

func (w *fakeConn) publish(_ string, payload []byte) bool {
	m, err := protocol.DecodeClient(payload)
	if err != nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, m)
	return true
}

func (w *fakeConn) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed++
}

func (w *fakeConn) shutdown() { w.close() }

func (w *fakeConn) count() (opened, sent int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened, len(w.sent)
}

func startOnWire(t *testing.T, s Settings, up bool) (*Gateway, *fakeConn) {
	t.Helper()
	s.Car, s.Broker.Address = car1, "127.0.0.1:1"
	g, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	w := &fakeConn{g: g, up: up}
	g.conn = w
	return g, w
}

// TestTimersRun: the runner plays the deadlines of its core with the real limits: the
// broker is given up after 600 ms (GW-8), the next attempt comes 10 s later (GW-3),
// a silent server is given up after 5 s (GW-1).
func TestTimersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, w := startOnWire(t, Settings{Core: Options{Steady: true}}, false)
		defer g.Close()
		g.Status(button, []byte("x"), time.Time{})
		expect := func(at time.Duration, phase Phase, opened, sent int) {
			t.Helper()
			synctest.Wait()
			o, s := w.count()
			if p := g.Phase(); p != phase || o != opened || s != sent {
				t.Errorf("after %v: phase %v, opened %d, sent %d; want %v, %d, %d", at, p, o, s, phase, opened, sent)
			}
		}
		began := time.Now()
		until := func(d time.Duration) time.Duration { time.Sleep(time.Until(began.Add(d))); return d }
		expect(until(599*time.Millisecond), PhaseOpening, 1, 0)
		expect(until(601*time.Millisecond), PhasePause, 1, 0)
		expect(until(10599*time.Millisecond), PhasePause, 1, 0)
		w.mu.Lock()
		w.up = true
		w.mu.Unlock()
		expect(until(10601*time.Millisecond), PhaseConnecting, 2, 1)
		expect(until(15599*time.Millisecond), PhaseConnecting, 2, 1)
		expect(until(15601*time.Millisecond), PhasePause, 2, 1)
	})
}

// TestCallsFromObserver: an observer may call the gateway; what it causes happens after
// what it was told.
func TestCallsFromObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *Gateway
		var seen []EffectKind
		g, w := startOnWire(t, Settings{Observe: func(e Effect) {
			seen = append(seen, e.Kind)
			if e.Kind == EffectSend && e.Message.Kind == fleet.ClientConnect {
				g.Restart()
				g.Leave(button)
			}
		}}, true)
		defer g.Close()
		g.Status(button, []byte("x"), time.Time{})
		synctest.Wait()
		if opened, sent := w.count(); opened != 2 || sent != 1 || g.Phase() != PhaseIdle {
			t.Errorf("opened %d, sent %d, phase %v; want 2, 1 and idle", opened, sent, g.Phase())
		}
		if len(seen) != 3 || seen[0] != EffectSend || seen[1] != EffectSequenceFailed || seen[2] != EffectSequenceFailed {
			t.Errorf("observed %v, want send and two failed sequences", seen)
		}
		g.Close()
		g.Close()
		g.Status(button, []byte("after the end"), time.Time{})
		if opened, _ := w.count(); opened != 2 {
			t.Error("opened after Close")
		}
	})
}

// TestFaults: what leaves the gateway under each fault.
func TestFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		faults Faults
		want   string
	}{
		{"none", Faults{}, "123"},
		{"lose", Faults{Lose: 1}, ""},
		{"duplicate", Faults{Duplicate: 1}, "112233"},
		{"reorder", Faults{Reorder: 1}, "21"},
		{"garbage", Faults{Garbage: 1}, "*1*2*3"},
		{"silent", Faults{Silent: true, Garbage: 1, Duplicate: 1}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := injector{rand: rand.New(rand.NewPCG(1, 1))}
			var got bytes.Buffer
			for _, payload := range []string{"status 1", "status 2", "status 3"} {
				ok := i.publish(test.faults, []byte(payload), func(p []byte) bool {
					if bytes.HasPrefix(p, []byte("status ")) {
						got.WriteByte(p[7])
					} else {
						got.WriteByte('*')
					}
					return true
				})
				if !ok {
					t.Error("publish reports failure")
				}
			}
			if got.String() != test.want {
				t.Errorf("sent %q, want %q", got.String(), test.want)
			}
		})
	}
	i := injector{rand: rand.New(rand.NewPCG(1, 1))}
	if i.publish(Faults{}, nil, func([]byte) bool { return false }) {
		t.Error("a message that the connection refused is reported as sent")
	}
	lost := 0
	for range 1000 {
		i.publish(Faults{Lose: 0.5}, nil, func([]byte) bool { lost--; return true })
		lost++
	}
	if lost < 400 || lost > 600 {
		t.Errorf("%d of 1000 messages lost with probability 0.5", lost)
	}
}

// TestSilentGateway: a gateway that hears and says nothing fails its own connection for
// want of an answer, and is well again when the fault ends.
func TestSilentGateway(t *testing.T) {
	broker := Broker{Address: brokertest.Start(t, brokertest.Options{}).Address()}
	newServer(t, broker, car1.Company)
	timing := quick
	timing.StatusTimeout = 200 * time.Millisecond
	timing.MessageTimeout = 500 * time.Millisecond
	g, log := start(t, Settings{Broker: broker, Core: Options{Timing: timing}})
	g.Status(button, []byte("1"), time.Time{})
	log.waitKind(t, 1, EffectConnected)
	if err := g.SetFaults(Faults{Silent: true}); err != nil {
		t.Fatal(err)
	}
	g.Status(button, []byte("2"), time.Time{})
	log.wait(t, 1, "GW-42", func(e Effect) bool { return e.Kind == EffectDisconnected && e.Reason == ReasonUnanswered })
	log.wait(t, 1, "GW-13", func(e Effect) bool { return e.Kind == EffectSequenceFailed && e.Reason == ReasonNoConnectResponse })
	if err := g.SetFaults(Faults{Lose: -1}); err == nil {
		t.Error("a negative probability was accepted")
	}
	if err := g.SetFaults(Faults{}); err != nil {
		t.Fatal(err)
	}
	log.waitKind(t, 2, EffectConnected)
}

// TestDeafAfterAutomaticReconnect: GW-55. When the client library reconnects by itself it
// does not subscribe again; the gateway goes on sending until a status is overdue
// (GW-42).
func TestDeafAfterAutomaticReconnect(t *testing.T) {
	mosquitto := brokertest.Start(t, brokertest.Options{})
	broker := Broker{Address: mosquitto.Address()}
	srv := newServer(t, broker, car1.Company)
	timing := quick
	timing.StatusTimeout = 300 * time.Millisecond
	g, log := start(t, Settings{Broker: broker, Core: Options{Timing: timing}})
	g.Status(button, []byte("1"), time.Time{})
	log.waitKind(t, 1, EffectConnected)

	client := g.conn.(*own).conn
	mosquitto.Kill()
	waitConnection(t, client, false)
	mosquitto.Restart()
	waitConnection(t, client, true)
	srv.conn.close()
	second := newServer(t, broker, car1.Company)
	g.Status(button, []byte("2"), time.Time{})
	gone := log.waitKind(t, 1, EffectDisconnected)
	if gone.Reason != ReasonUnanswered {
		t.Errorf("disconnected for %v, want the unanswered status", gone.Reason)
	}
	log.waitKind(t, 2, EffectConnected)
	if second.connects(car1) != 1 {
		t.Errorf("%d connects at the second server, want 1", second.connects(car1))
	}
}

func isAlive(s *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive
}

func waitConnection(t *testing.T, client *stream, open bool) {
	t.Helper()
	limit := time.Now().Add(testwait.Patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for isAlive(client) != open {
		<-tick.C
		if time.Now().After(limit) {
			t.Fatalf("connection open is not %v", open)
		}
	}
}

// FuzzReceive: any bytes on any of its topics in any phase leave the gateway alive.
func FuzzReceive(f *testing.F) {
	f.Add(uint8(0), []byte{0x0a, 0x04, 0x0a, 0x02, 0x69, 0x64})
	f.Add(uint8(1), []byte{0x12, 0x06, 0x0a, 0x02, 0x69, 0x64, 0x18, 0x01})
	f.Add(uint8(2), []byte{0xff})
	f.Add(uint8(3), []byte{})
	f.Fuzz(func(t *testing.T, phase uint8, payload []byte) {
		g, w := startOnWire(t, Settings{Core: Options{Timing: Timing{QueuePoll: -1}}}, false)
		defer g.Close()
		g.Status(button, []byte("x"), time.Time{})
		g.linkReport(g.gen, nil)
		reply := func(m fleet.ServerMessage) {
			m.SessionID = g.core.Session()
			g.receive(g.gen, g.topics.down, protocol.AppendServer(nil, m))
		}
		messages := []fleet.ServerMessage{{Kind: fleet.ServerConnectResponse}, {Kind: fleet.ServerStatusResponse, Counter: 1}, {Kind: fleet.ServerCommand, Device: button}}
		for _, m := range messages[:phase%4] {
			reply(m)
		}
		before, _ := w.count()
		g.receive(g.gen, g.topics.down, payload)
		g.receive(g.gen, g.topics.notification, payload)
		g.Restart()
		if after, _ := w.count(); after <= before {
			t.Errorf("no new attempt after a restart: %d opened before, %d after", before, after)
		}
	})
}
