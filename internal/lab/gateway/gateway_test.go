package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/support/brokertest"
)

var (
	car1     = fleet.CarID{Company: "company", Car: "car1"}
	button   = fleet.Device{Module: 1000, Type: 0, Role: "button", Name: "Button", Priority: 2}
	autonomy = fleet.Device{Module: 1, Type: 1, Role: "driving", Name: "Autonomy"}
)

// quick is the real timing with the pauses that only cost test time cut short.
var quick = Timing{RetryPause: 50 * time.Millisecond, QueuePoll: 20 * time.Millisecond, LeaveStall: 100 * time.Millisecond,
	LinkTimeout: 20 * time.Second, MessageTimeout: 20 * time.Second}

func start(t *testing.T, s Settings) (*Gateway, *effectLog) {
	t.Helper()
	log := newEffectLog()
	s.Observe = log.observe
	if s.Car == (fleet.CarID{}) {
		s.Car = car1
	}
	g, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g, log
}

// lamp is a button whose lamp is switched by commands; its status changes with
// every command.
type lamp struct {
	mu       sync.Mutex
	received []string
	fresh    bool
}

func (l *lamp) Identity() fleet.Device { return button }

func (l *lamp) Status() ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := l.fresh
	l.fresh = false
	return fmt.Appendf(nil, `{"commands": %d}`, len(l.received)), fresh
}

func (l *lamp) Command(data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.received = append(l.received, string(data))
	l.fresh = true
}

// TestSessionOverBroker takes a gateway with a connection of its own through a whole
// session: connect, statuses, a command to a driven device, a device that leaves, a
// disconnect notification and the return.
func TestSessionOverBroker(t *testing.T) {
	broker := Broker{Address: brokertest.Start(t, brokertest.Options{}).Address()}
	srv := newServer(t, broker, car1.Company)
	g, log := start(t, Settings{Broker: broker, Core: Options{Timing: quick}})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var driving sync.WaitGroup
	dev := &lamp{}
	driving.Go(func() { g.Drive(ctx, dev, 10*time.Millisecond) })
	connected := log.waitKind(t, 1, EffectConnected)
	if g.Phase() != PhaseRunning || g.LinkError() != nil {
		t.Errorf("phase %v and error %v after the connect sequence", g.Phase(), g.LinkError())
	}

	planned := time.Now().Add(-time.Second)
	g.Status(autonomy, []byte("drive"), planned)
	answered := log.wait(t, 1, "answer to autonomy", func(e Effect) bool {
		return e.Kind == EffectAnswered && e.Device == autonomy
	})
	if !answered.Planned.Equal(planned) || answered.Sent.Before(planned) {
		t.Errorf("planned %v and sent %v, want planned %v and sent later", answered.Planned, answered.Sent, planned)
	}

	srv.Command(car1, button, `{"lit_up": true}`)
	log.waitKind(t, 1, EffectDeliver)
	log.wait(t, 1, "status after the command", func(e Effect) bool {
		return e.Kind == EffectSend && string(e.Message.Data) == `{"commands": 1}` && e.Message.State == fleet.StateRunning
	})

	cancel()
	driving.Wait()
	left := log.wait(t, 1, "DISCONNECT", func(e Effect) bool { return e.Kind == EffectSend && e.Message.State == fleet.StateDisconnect })
	// An answer that is still on its way would reach the next connection.
	log.wait(t, 1, "answer to DISCONNECT", func(e Effect) bool { return e.Kind == EffectAnswered && e.Counter == left.Message.Counter })

	srv.publish(topicsOf(car1).notification, nil)
	gone := log.waitKind(t, 1, EffectDisconnected)
	if gone.Reason != ReasonNotified || gone.Session != connected.Session {
		t.Errorf("disconnected %s for %v, want %s for the notification", gone.Session, gone.Reason, connected.Session)
	}
	g.Status(autonomy, []byte("idle"), time.Time{})
	if again := log.waitKind(t, 2, EffectConnected); again.Session == connected.Session {
		t.Errorf("session %s twice, want a new one (GW-11)", again.Session)
	}
	if n := log.count(isViolation); n != 0 {
		t.Errorf("%d violations of a server that made none", n)
	}
	states := ""
	for _, m := range srv.Statuses(car1) {
		if m.Device == autonomy {
			states += m.State.String() + " "
		}
	}
	if states != "CONNECTING " {
		t.Errorf("autonomy sent %q in normal communication, want CONNECTING once", states)
	}
}

// TestBrokerRestart: GW-43. The gateway learns of a dead broker when it publishes, and
// comes back with the status that follows its return.
func TestBrokerRestart(t *testing.T) {
	mosquitto := brokertest.Start(t, brokertest.Options{})
	broker := Broker{Address: mosquitto.Address()}
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared=%v", shared), func(t *testing.T) {
			srv := newServer(t, broker, car1.Company)
			s := Settings{Broker: broker, Core: Options{Timing: quick}}
			if shared {
				s.Pool = newPool(t, broker, 1)
			}
			g, log := start(t, s)
			g.Status(button, []byte("1"), time.Time{})
			log.waitKind(t, 1, EffectConnected)
			mosquitto.Kill()
			stop := keepReporting(t, g)
			defer stop()
			log.wait(t, 1, "publish failure", func(e Effect) bool { return e.Kind == EffectDisconnected && e.Reason == ReasonPublishFailed })
			log.wait(t, 1, "failed attempt", func(e Effect) bool { return e.Kind == EffectSequenceFailed && e.Reason == ReasonLinkFailed })
			if err := g.LinkError(); err == nil {
				t.Error("no reason why the broker was not reached")
			}
			mosquitto.Restart()
			srv.conn.close()
			newServer(t, broker, car1.Company)
			log.waitKind(t, 2, EffectConnected)
			if n := log.count(func(e Effect) bool { return e.Kind == EffectDisconnected && e.Reason.Violation() }); n != 0 {
				t.Errorf("%d connections ended with a violation, want none", n)
			}
		})
	}
}

// keepReporting lets a device report until the returned function is called.
func keepReporting(t *testing.T, g *Gateway) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-tick.C:
				g.Status(button, []byte("again"), time.Time{})
			case <-ctx.Done():
			}
		}
	}()
	return func() { cancel(); <-done }
}

func newPool(t *testing.T, broker Broker, connections int) *Pool {
	t.Helper()
	pool, err := NewPool(broker, connections)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// TestFleetOnPool: many gateways on two connections connect, restart all at once, and
// connect again, without a message of an old session reaching a new one.
func TestFleetOnPool(t *testing.T) {
	broker := Broker{Address: brokertest.Start(t, brokertest.Options{}).Address()}
	newServer(t, broker, "fleet")
	pool := newPool(t, broker, 2)
	const cars = 200
	log := newEffectLog()
	var gateways []*Gateway
	for i := range cars {
		g, err := Start(Settings{Car: fleet.CarID{Company: "fleet", Car: fmt.Sprintf("car%d", i)}, Pool: pool, Observe: log.observe,
			Core: Options{Timing: quick, Steady: true, Rand: rand.New(rand.NewPCG(1, uint64(i)))}})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		gateways = append(gateways, g)
		g.Status(button, []byte("b"), time.Time{})
		g.Status(autonomy, []byte("a"), time.Time{})
	}
	log.waitKind(t, cars, EffectConnected)
	for _, g := range gateways {
		g.Status(autonomy, []byte("last words"), time.Time{})
		g.Restart()
	}
	log.waitKind(t, 2*cars, EffectConnected)
	for _, g := range gateways {
		g.Status(autonomy, []byte("more"), time.Time{})
	}
	log.wait(t, cars, "answers", func(e Effect) bool { return e.Kind == EffectAnswered && e.Counter > 2 })
	if n := log.count(isViolation); n != 0 {
		t.Errorf("%d violations of a server that made none", n)
	}
}

func TestPoolRefusesSecondGateway(t *testing.T) {
	broker := Broker{Address: brokertest.Start(t, brokertest.Options{}).Address()}
	pool := newPool(t, broker, 2)
	g, err := Start(Settings{Car: car1, Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Settings{Car: car1, Pool: pool}); err == nil || !strings.Contains(err.Error(), "company/car1") {
		t.Errorf("error %v, want one that names the car", err)
	}
	g.Close()
	again, err := Start(Settings{Car: car1, Pool: pool})
	if err != nil {
		t.Fatalf("after the first has closed: %v", err)
	}
	again.Close()
}

func TestSettingsRefused(t *testing.T) {
	good := Settings{Car: car1, Broker: Broker{Address: "127.0.0.1:1883"}}
	for _, test := range []struct {
		name, want string
		change     func(*Settings)
	}{
		{"company", `company "My"`, func(s *Settings) { s.Car.Company = "My" }}, // GW-56
		{"car", `car "a-b"`, func(s *Settings) { s.Car.Car = "a-b" }},           // GW-56
		{"no car", `car ""`, func(s *Settings) { s.Car.Car = "" }},              // GW-56
		{"address", `broker address "localhost"`, func(s *Settings) { s.Broker.Address = "localhost" }},
		{"no host", `broker address ":1883"`, func(s *Settings) { s.Broker.Address = ":1883" }},
		{"port", `port of 1 to 65535`, func(s *Settings) { s.Broker.Address = "localhost:99999" }},
		{"password", `needs a user name`, func(s *Settings) { s.Broker.Password = "geheim" }},
		{"fault", `fault "lose" has probability 2`, func(s *Settings) { s.Faults.Lose = 2 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := good
			test.change(&s)
			g, err := Start(s)
			if err == nil {
				g.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "geheim") {
				t.Errorf("error %v, want one containing %q", err, test.want)
			}
		})
	}
	for _, n := range []int{0, 1001} {
		if _, err := NewPool(good.Broker, n); err == nil || !strings.Contains(err.Error(), "expected 1 to 1000") {
			t.Errorf("pool of %d connections: error %v", n, err)
		}
	}
}

// TestCredentials: user and password, TLS with a client certificate, and what the owner
// learns when the broker refuses.
func TestCredentials(t *testing.T) {
	certs := brokertest.NewCerts(t)
	secured := brokertest.Start(t, brokertest.Options{Certs: certs})
	locked := brokertest.Start(t, brokertest.Options{Username: "fleet", Password: "secret"})
	for _, test := range []struct {
		name   string
		broker Broker
		good   bool
	}{
		{"password", Broker{Address: locked.Address(), Username: "fleet", Password: "secret"}, true},
		{"wrong password", Broker{Address: locked.Address(), Username: "fleet", Password: "guess"}, false},
		{"mutual TLS", Broker{Address: secured.Address(), TLS: certs.ClientConfig(&certs.Client)}, true},
		{"no client certificate", Broker{Address: secured.Address(), TLS: certs.ClientConfig(nil)}, false},
		{"plain to a TLS port", Broker{Address: secured.Address()}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			timing := quick
			if !test.good {
				timing.LinkTimeout = 5 * time.Second
			}
			g, log := start(t, Settings{Broker: test.broker, Core: Options{Timing: timing}})
			if test.good {
				newServer(t, test.broker, car1.Company)
			}
			g.Status(button, []byte("x"), time.Time{})
			if test.good {
				log.waitKind(t, 1, EffectConnected)
				return
			}
			log.wait(t, 1, "failed attempt", func(e Effect) bool { return e.Kind == EffectSequenceFailed && e.Reason == ReasonLinkFailed })
			if err := g.LinkError(); err == nil || strings.Contains(err.Error(), "guess") {
				t.Errorf("link error %v, want one that does not tell the password", err)
			}
		})
	}
}
