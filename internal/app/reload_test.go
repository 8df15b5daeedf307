package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/module"
	"external-server/internal/protocol"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// idleModule does nothing; contexts of the car held end when release is closed.
type idleModule struct {
	held    string
	closing chan struct{} // closed when the context of held is to end
	release chan struct{}
	once    *sync.Once
	open    func(context.Context) error // what opening a context does; nil: nothing
}

func (m idleModule) Number() int32        { return 5 }
func (m idleModule) Supports(uint32) bool { return true }
func (m idleModule) Close() error         { return nil }

func (m idleModule) Open(ctx context.Context, spec module.InstanceSpec) (module.Instance, error) {
	if m.open != nil {
		if err := m.open(ctx); err != nil {
			return nil, err
		}
	}
	return idleInstance{m, spec.Car}, nil
}

type idleInstance struct {
	m   idleModule
	car fleet.CarID
}

func (i idleInstance) DeviceConnected(context.Context, fleet.Device) error       { return nil }
func (i idleInstance) ForwardStatus(context.Context, fleet.Device, []byte) error { return nil }
func (i idleInstance) ForwardError(context.Context, fleet.Device, []byte) error  { return nil }
func (i idleInstance) CommandAck(context.Context, fleet.Command) error           { return nil }
func (i idleInstance) DeviceDisconnected(context.Context, fleet.DisconnectType, fleet.Device) error {
	return nil
}

func (i idleInstance) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (i idleInstance) Close(context.Context) error {
	if i.car.Car == i.m.held {
		i.m.once.Do(func() { close(i.m.closing) })
		<-i.m.release
	}
	return nil
}

// server is an App with an embedded broker, two named cars and "*", and a gateway's
// connection to it.
type server struct {
	*App
	peer *brokertest.Peer
	path string
	t    *testing.T
}

// load returns a configuration in which the modules of all cars differ by value.
func (s *server) load(value int) *config.Config {
	text := fmt.Sprintf(`{"company_name": "company", "embedded_broker": {"listen": "127.0.0.1:0"}, "limits": {"idle_car_s": 1},
		"common_modules": {"5": {"command": ["true"], "config": {"value": %d}}}, "cars": {"a": {}, "b": {}, "*": {}}}`, value)
	if err := os.WriteFile(s.path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cfg, _, err := config.Load(s.path, func(string) (string, bool) { return "", false })
	if err != nil {
		s.t.Fatal(err)
	}
	return cfg
}

func newServer(t *testing.T, m idleModule) *server { return newServerAt(t, m, nil) }

// newServerAt attaches the cars to what at makes of the link.
func newServerAt(t *testing.T, m idleModule, at func(link.Link) link.Link) *server {
	s := &server{path: filepath.Join(t.TempDir(), "config.json"), t: t}
	var err error
	s.App, err = New(t.Context(), Options{
		Config: s.load(1), Logger: slog.New(slog.DiscardHandler),
		Module: func(config.Module) (module.Module, error) { return m, nil },
		link:   at,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func startServer(t *testing.T, m idleModule) *server {
	s := newServer(t, m)
	s.start()
	return s
}

// start runs the server until stop is called or the test ends.
func (s *server) start() (stop func()) {
	t := s.t
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
	testwait.Until(t, "the broker is reached", s.LinkUp)
	var err error
	if s.peer, err = brokertest.Dial(brokertest.PeerOptions{Address: s.BrokerAddr().String()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.peer.Close() })
	return stop
}

// connect sends the Connect of a car with one device.
func (s *server) connect(car, session string) {
	s.t.Helper()
	raw, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: session,
		Devices: []fleet.Device{{Module: 5, Type: 1, Role: "r", Name: "n"}}}, fleet.CarID{Company: "company", Car: car})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.peer.Publish("company/"+car+"/module_gateway", raw, false); err != nil {
		s.t.Fatal(err)
	}
}

// answered waits for the ConnectResponses of the sessions, in any order.
func (s *server) answered(sessions ...string) {
	s.t.Helper()
	for len(sessions) > 0 {
		m, err := s.peer.Receive(testwait.Patience)
		if err != nil {
			s.t.Fatalf("no answer to the Connect of %v: %v", sessions, err)
		}
		sessions = slices.DeleteFunc(sessions, func(id string) bool { return strings.Contains(string(m.Payload), id) })
	}
}

// TestGatewayHeardDuringReload: gateways whose cars are changed are served while the
// modules of the old ones still end, whatever car holds the reload up: named cars, cars
// of "*", and that car itself.
func TestGatewayHeardDuringReload(t *testing.T) {
	m := idleModule{held: "b", closing: make(chan struct{}), release: make(chan struct{}), once: new(sync.Once)}
	s := startServer(t, m)
	let := sync.OnceFunc(func() { close(m.release) })
	defer let()
	if err := s.peer.Subscribe(1, "company/a/external_server", "company/b/external_server", "company/found/external_server"); err != nil {
		t.Fatal(err)
	}
	s.connect("found", "session0") // a car of "*", which the reload changes too
	s.answered("session0")
	reloaded := make(chan error, 1)
	go func() {
		_, err := s.Reload(t.Context(), s.load(2))
		reloaded <- err
	}()
	<-m.closing
	s.connect("a", "session1")
	s.connect("found", "session2")
	s.connect("b", "session3")
	s.answered("session1", "session2", "session3")
	select {
	case err := <-reloaded:
		t.Errorf("the reload ended before the modules of the old cars: %v", err)
	default:
	}
	let()
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
	if cars := s.Cars(); len(cars) != 3 {
		t.Errorf("%d cars are served, expected 3", len(cars))
	}
}

// TestGatewayHeardDuringRelease: a car of "*" that comes back in the moment in which
// it is released for its silence is served.
func TestGatewayHeardDuringRelease(t *testing.T) {
	m := idleModule{held: "found", closing: make(chan struct{}), release: make(chan struct{}), once: new(sync.Once)}
	s := startServer(t, m)
	let := sync.OnceFunc(func() { close(m.release) })
	defer let()
	if err := s.peer.Subscribe(1, "company/found/external_server"); err != nil {
		t.Fatal(err)
	}
	s.connect("found", "session1")
	s.answered("session1")
	s.connect("found", "") // a Connect without id ends the session
	<-m.closing
	s.connect("found", "session2")
	let()
	s.answered("session2")
}

// TestOnlyAConnectFindsACar: other messages do not use up limits.any_cars.
func TestOnlyAConnectFindsACar(t *testing.T) {
	s := startServer(t, idleModule{})
	status, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "x", Counter: 1}, fleet.CarID{})
	if err != nil {
		t.Fatal(err)
	}
	for i, payload := range [][]byte{nil, {1}, []byte("garbage"), status} {
		if err := s.peer.Publish(fmt.Sprintf("company/noise_%d/module_gateway", i), payload, false); err != nil {
			t.Fatal(err)
		}
	}
	s.connect("real", "session1") // handled after the others
	testwait.Until(t, "the real car is found", func() bool { return len(s.Cars()) >= 3 })
	for _, c := range s.Cars() {
		if strings.HasPrefix(c.ID.Car, "noise") {
			t.Errorf("%s is served", c.ID.Car)
		}
	}
}
