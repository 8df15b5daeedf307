package gateway

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// TestStreamKeepsOrderBeyondItsWindow: more messages than the broker may leave
// unacknowledged wait and arrive, each once and in order.
func TestStreamKeepsOrderBeyondItsWindow(t *testing.T) {
	mosquitto := brokertest.Start(t, brokertest.Options{})
	broker := Broker{Address: mosquitto.Address()}
	messages := 5 * sharedLimits().window
	var mu sync.Mutex
	var got []string
	all := make(chan struct{})
	receiver, err := dialStream(broker, "receiver", sharedLimits(), func(topic, payload []byte) {
		mu.Lock()
		defer mu.Unlock()
		if got = append(got, string(topic)+" "+string(payload)); len(got) == messages {
			close(all)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.close()
	if err := <-receiver.subscribe("a/b"); err != nil {
		t.Fatal(err)
	}
	sender, err := dialStream(broker, "sender", sharedLimits(), func(_, _ []byte) {})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.close()
	mosquitto.Stop() // nothing is acknowledged meanwhile
	for i := range messages {
		if !sender.publish("a/b", fmt.Appendf(nil, "%d", i)) {
			t.Fatalf("message %d refused", i)
		}
	}
	sender.mu.Lock()
	// The broker may have acknowledged a few before it halted.
	if sender.inFlight != sharedLimits().window || len(sender.queue) == 0 || len(sender.queue) > messages-sharedLimits().window {
		t.Errorf("%d in flight and %d waiting, want %d and up to %d", sender.inFlight, len(sender.queue), sharedLimits().window, messages-sharedLimits().window)
	}
	sender.mu.Unlock()
	mosquitto.Continue()
	select {
	case <-all:
	case <-time.After(testwait.Patience):
		mu.Lock()
		t.Fatalf("%d of %d messages arrived", len(got), messages)
	}
	for i, m := range got {
		if want := fmt.Sprintf("a/b %d", i); m != want {
			t.Fatalf("message %d is %q, want %q", i, m, want)
		}
	}
}

// TestStreamComesBack: after the broker's death the stream refuses messages and
// subscriptions, and takes them again when the broker is back.
func TestStreamComesBack(t *testing.T) {
	mosquitto := brokertest.Start(t, brokertest.Options{})
	s, err := dialStream(Broker{Address: mosquitto.Address()}, "stream", sharedLimits(), func(_, _ []byte) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	mosquitto.Stop()
	lost := s.subscribe("a/b")
	mosquitto.Kill()
	if err := <-lost; err == nil {
		t.Error("a subscription that got no answer succeeded")
	}
	if s.publish("a/b", nil) {
		t.Error("published without a broker")
	}
	if err := <-s.subscribe("a/b"); err == nil {
		t.Error("subscribed without a broker")
	}
	mosquitto.Restart()
	limit := time.After(testwait.Patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !s.publish("a/b", nil) {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("the stream did not come back")
		}
	}
	if err := <-s.subscribe("a/b"); err != nil {
		t.Errorf("subscribe after the return: %v", err)
	}
}

// TestPoolCredentials: a pool with user and password, with TLS, and the errors of a
// broker that refuses.
func TestPoolCredentials(t *testing.T) {
	certs := brokertest.NewCerts(t)
	secured := brokertest.Start(t, brokertest.Options{Certs: certs})
	locked := brokertest.Start(t, brokertest.Options{Username: "fleet", Password: "secret"})
	for _, test := range []struct {
		name   string
		broker Broker
		want   string // "" is success
	}{
		{"password", Broker{Address: locked.Address(), Username: "fleet", Password: "secret"}, ""},
		{"wrong password", Broker{Address: locked.Address(), Username: "fleet", Password: "guess"}, "user name or password"},
		{"mutual TLS", Broker{Address: secured.Address(), TLS: certs.ClientConfig(&certs.Client)}, ""},
		{"plain to a TLS port", Broker{Address: secured.Address()}, "no answer to CONNECT"},
		{"nobody there", Broker{Address: "127.0.0.1:1"}, "connect to 127.0.0.1:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pool, err := NewPool(test.broker, 2)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "guess") {
					t.Fatalf("error %v, want one containing %q and no password", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			newServer(t, test.broker, car1.Company)
			g, log := start(t, Settings{Pool: pool, Core: Options{Timing: quick}})
			defer g.Close()
			g.Status(button, []byte("x"), time.Time{})
			log.waitKind(t, 1, EffectConnected)
		})
	}
}

// FuzzStream lets a broker say anything after a proper welcome, or instead of it: the
// stream ends the connection or goes on, and can be closed.
func FuzzStream(f *testing.F) {
	f.Add([]byte{}, []byte{0xd0, 0x00})
	f.Add([]byte{0x20, 0x02, 0x00, 0x05}, []byte{})
	f.Add([]byte{0x20, 0x02, 0x00, 0x00}, []byte{0x32, 0x09, 0x00, 0x03, 'a', '/', 'b', 0x00, 0x01, 'x', 'y'})
	f.Add([]byte{0x20, 0x02, 0x00, 0x00}, []byte{0x40, 0x02, 0x00, 0x01, 0x90, 0x03, 0x00, 0x02, 0x80, 0xff})
	f.Fuzz(func(t *testing.T, welcome, rest []byte) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var broker sync.WaitGroup
		broker.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				hello := make([]byte, 4096)
				if _, err := c.Read(hello); err == nil {
					if len(welcome) == 0 {
						welcome = []byte{0x20, 0x02, 0x00, 0x00}
					}
					_, _ = c.Write(append(append([]byte(nil), welcome...), rest...)) // the stream may have gone
				}
				c.Close()
			}
		})
		defer broker.Wait()
		defer l.Close()
		s, err := dialStream(Broker{Address: l.Addr().String()}, "fuzz", sharedLimits(), func(_, _ []byte) {})
		if err != nil {
			return
		}
		answer := s.subscribe("a/b")
		s.publish("a/b", []byte("x"))
		<-answer
		s.close()
		if s.publish("a/b", nil) {
			t.Error("published after close")
		}
	})
}

// TestPoolForgetsClosedGateways: nothing of a closed gateway is left on the pool.
func TestPoolForgetsClosedGateways(t *testing.T) {
	broker := Broker{Address: brokertest.Start(t, brokertest.Options{}).Address()}
	newServer(t, broker, car1.Company)
	pool := newPool(t, broker, 1)
	for i := range 20 {
		g, log := start(t, Settings{Car: fleet.CarID{Company: car1.Company, Car: fmt.Sprintf("car%d", i%3)}, Pool: pool, Core: Options{Timing: quick}})
		g.Status(button, []byte("x"), time.Time{})
		log.waitKind(t, 1, EffectConnected)
		g.Close()
	}
	if n := len(pool.conns[0].members); n != 0 || len(pool.cars) != 0 {
		t.Errorf("%d members and cars %v are left", n, pool.cars)
	}
}
