package broker_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"external-server/internal/broker"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t testing.TB, o broker.Options) (*broker.Broker, *testlog.Buffer) {
	t.Helper()
	log := &testlog.Buffer{}
	o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	b, err := broker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			s := log.String()
			t.Logf("log:\n%s", s[max(0, len(s)-20_000):])
		}
	})
	return b, log
}

func dial(t testing.TB, b *broker.Broker, o brokertest.PeerOptions) *brokertest.Peer {
	t.Helper()
	o.Address = b.Addr().String()
	p, err := brokertest.Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Conn.Close() })
	return p
}

func subscribe(t testing.TB, p *brokertest.Peer, filters ...string) {
	t.Helper()
	if err := p.Subscribe(1, filters...); err != nil {
		t.Fatal(err)
	}
}

func publish(t testing.TB, p *brokertest.Peer, topic, payload string) {
	t.Helper()
	if err := p.Publish(topic, []byte(payload), false); err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, p *brokertest.Peer, topic, payload string) {
	t.Helper()
	m, err := p.Receive(testwait.Patience)
	if err != nil || m.Topic != topic || string(m.Payload) != payload {
		t.Fatalf("got %+v, error %v; expected %q on %s", m, err, payload, topic)
	}
}

// ended waits until the broker has closed the connection.
func ended(t testing.TB, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(testwait.Patience)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := io.Copy(io.Discard, c); errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the connection was not closed")
	}
}

func TestStartErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct{ listen, want string }{
		{"", "host:port"},
		{"localhost", "host:port"},
		{"localhost:mqtt", "host:port"},
		{"127.0.0.1:70000", "65535"},
		{taken.Addr().String(), "in use"},
		{"192.0.2.1:0", "does not have the address"},
		{"no-such-host.invalid:0", "unknown"},
	} {
		b, err := broker.New(broker.Options{Listen: tc.listen, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			if err = b.Start(); err == nil {
				t.Error(b.Close())
			}
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "embedded_broker.listen") {
			t.Errorf("listen %q: error %v does not contain the key and %q", tc.listen, err, tc.want)
		}
	}
	for _, users := range [][]broker.User{{{Name: "", Password: "x"}}, {{Name: "x"}}, {{Name: "x", Password: "1"}, {Name: "x", Password: "2"}}} {
		if _, err := broker.New(broker.Options{Listen: ":0", Users: users, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "embedded_broker.users") {
			t.Errorf("users %v: error %v", users, err)
		}
	}
}

func TestUsersAndPrefixes(t *testing.T) {
	b, log := start(t, broker.Options{Users: []broker.User{
		{Name: "server", Password: "secret-1"},
		{Name: "company/car_1", Password: "secret-2", Car: "company/car_1"},
	}})
	for _, o := range []brokertest.PeerOptions{
		{}, {Username: "server"}, {Username: "server", Password: "secret-2"}, {Username: "nobody", Password: "secret-1"},
	} {
		o.Address = b.Addr().String()
		if p, err := brokertest.Dial(o); err == nil {
			t.Errorf("%+v was let in", o)
			p.Conn.Close()
		}
	}
	server := dial(t, b, brokertest.PeerOptions{Username: "server", Password: "secret-1"})
	subscribe(t, server, "company/+/module_gateway")
	car := dial(t, b, brokertest.PeerOptions{Username: "company/car_1", Password: "secret-2", ClientID: "company/car_1"})
	subscribe(t, car, "company/car_1/external_server")
	for _, filter := range []string{"#", "company/car_10/external_server", "company/+/external_server", "company/car_1"} {
		if err := car.Subscribe(1, filter); err == nil {
			t.Errorf("the car may subscribe to %s", filter)
		}
	}
	publish(t, car, "company/car_1/module_gateway", "mine")
	expect(t, server, "company/car_1/module_gateway", "mine")
	if err := car.Publish("company/car_2/module_gateway", []byte("not mine"), false); err == nil {
		t.Error("the car may publish for another one")
	}
	publish(t, server, "company/car_2/module_gateway", "next")
	expect(t, server, "company/car_2/module_gateway", "next")
	if s := log.String(); strings.Contains(s, "secret") || !strings.Contains(s, "refuses a client") {
		t.Error("the log holds a password or does not tell of refused clients")
	}
}

func TestMutualTLS(t *testing.T) {
	certs := brokertest.NewCerts(t)
	b, log := start(t, broker.Options{TLS: certs.ServerConfig(certs.Server)})
	p := dial(t, b, brokertest.PeerOptions{TLS: certs.ClientConfig(&certs.Client)})
	subscribe(t, p, "a")
	publish(t, p, "a", "hello")
	expect(t, p, "a", "hello")
	for name, pair := range map[string]*brokertest.Pair{"none": nil, "expired": &certs.ClientExpired} {
		if p, err := brokertest.Dial(brokertest.PeerOptions{Address: b.Addr().String(), TLS: certs.ClientConfig(pair)}); err == nil {
			t.Errorf("client certificate %s was accepted", name)
			p.Conn.Close()
		}
	}
	plain, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Write(wire.AppendConnect(nil, wire.ConnectOptions{ClientID: "x"})); err != nil {
		t.Fatal(err)
	}
	ended(t, plain)
	testwait.Until(t, "failed handshakes are logged", func() bool { return strings.Contains(log.String(), "TLS handshake") })
}

// A client that returns while its old connection still exists takes over
// completely, every time: the library's clean-up of the old one must not take
// the new subscriptions away.
func TestTakeover(t *testing.T) {
	b, _ := start(t, broker.Options{})
	sender := dial(t, b, brokertest.PeerOptions{})
	filters := []string{"to/car"}
	for i := range 500 { // the more there is to clean up the longer it takes
		filters = append(filters, fmt.Sprintf("other/%d", i))
	}
	for i := range 50 {
		p := dial(t, b, brokertest.PeerOptions{ClientID: "company/car"})
		subscribe(t, p, filters...)
		publish(t, sender, "to/car", fmt.Sprint(i))
		expect(t, p, "to/car", fmt.Sprint(i))
	}
}

// Packet identifiers of the two directions have nothing to do with each other.
func TestSubscribeWithIdentifierInFlight(t *testing.T) {
	b, _ := start(t, broker.Options{})
	p := dial(t, b, brokertest.PeerOptions{})
	subscribe(t, p, "a")
	sender := dial(t, b, brokertest.PeerOptions{})
	// The broker sends with identifiers from 1 and is not acknowledged, because
	// nothing was read yet; the second subscription has identifier 2.
	for i := range 10 {
		publish(t, sender, "a", fmt.Sprint(i))
	}
	subscribe(t, p, "b")
	publish(t, sender, "b", "x")
	for i := range 10 {
		expect(t, p, "a", fmt.Sprint(i))
	}
	expect(t, p, "b", "x")
}

// A client that does not read is disconnected and does not hold up others.
func TestSlowClient(t *testing.T) {
	b, log := start(t, broker.Options{MaxPendingBytes: 1 << 20, WriteTimeout: time.Hour})
	slow := dial(t, b, brokertest.PeerOptions{})
	subscribe(t, slow, "news")
	quick := dial(t, b, brokertest.PeerOptions{})
	subscribe(t, quick, "news")
	sender := dial(t, b, brokertest.PeerOptions{})
	payload := strings.Repeat("x", 100_000)
	testwait.Until(t, "the slow client is disconnected", func() bool {
		publish(t, sender, "news", payload)
		expect(t, quick, "news", payload)
		return strings.Contains(log.String(), "does not keep up")
	})
	ended(t, slow.Conn)
}

// Nothing is kept for clients that are gone, whatever they ask for.
func TestNoSessionIsKept(t *testing.T) {
	b, _ := start(t, broker.Options{})
	c, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	hello := wire.AppendConnect(nil, wire.ConnectOptions{ClientID: "keeper", KeepAlive: 60})
	hello[9] &^= 0x02 // clean session off
	if _, err := c.Write(wire.AppendSubscribe(hello, 1, 1, "a")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 9) // CONNACK and SUBACK
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	c.Close()
	sender := dial(t, b, brokertest.PeerOptions{})
	subscribe(t, sender, "a")
	publish(t, sender, "a", "while away")
	expect(t, sender, "a", "while away")
	p := dial(t, b, brokertest.PeerOptions{ClientID: "keeper"})
	subscribe(t, p, "b")
	publish(t, sender, "b", "now")
	expect(t, p, "b", "now")
}

func TestBounds(t *testing.T) {
	b, log := start(t, broker.Options{MaxPacket: 1000, MaxClients: 3, ConnectTimeout: 500 * time.Millisecond})
	big := dial(t, b, brokertest.PeerOptions{})
	if err := big.Send("a", make([]byte, 2000)); err != nil {
		t.Fatal(err)
	}
	ended(t, big.Conn)
	// A client that says nothing has to go.
	silent, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ended(t, silent)
	var peers []*brokertest.Peer
	testwait.Until(t, "the fourth client is refused", func() bool { // the earlier ones may still be leaving
		p, err := brokertest.Dial(brokertest.PeerOptions{Address: b.Addr().String()})
		if err == nil {
			peers = append(peers, p)
			t.Cleanup(func() { _ = p.Conn.Close() })
		}
		if len(peers) > 3 {
			t.Fatalf("%d clients at once, expected 3", len(peers))
		}
		return err != nil && len(peers) == 3
	})
	// Who was refused may know it before the log does.
	testwait.Until(t, "refused clients are logged", func() bool { return strings.Contains(log.String(), "too many clients") })
}
