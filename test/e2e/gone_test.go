package e2e

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// road is the way from a car to the broker, which can be cut.
type road struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	open     []net.Conn
	greeted  int // connections on which the broker has said something
	traffic  sync.WaitGroup
}

func newRoad(t *testing.T, to string) *road {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &road{listener: l, to: to}
	r.traffic.Go(r.serve)
	t.Cleanup(func() {
		r.close()
		r.traffic.Wait()
	})
	return r
}

func (r *road) serve() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", r.to)
		if err != nil {
			near.Close()
			continue
		}
		r.mu.Lock()
		r.open = append(r.open, near, far)
		r.mu.Unlock()
		r.traffic.Go(func() { r.carry(far, near) })
		r.traffic.Go(func() {
			if _, err := io.CopyN(near, far, 1); err == nil {
				r.mu.Lock()
				r.greeted++
				r.mu.Unlock()
			}
			r.carry(near, far)
		})
	}
}

// carry copies until the road is cut.
func (r *road) carry(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
}

func (r *road) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.greeted
}

// cut ends the connections; new ones are possible.
func (r *road) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.open {
		c.Close()
	}
	r.open = nil
}

func (r *road) close() {
	r.listener.Close()
	r.cut()
}

// A gateway whose connection to the embedded broker is cut goes on with its session,
// although it does not subscribe again (GW-55); the session of one that does not come
// back ends soon, with a reason that says so.
func TestGatewayLeavesTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	// A command that is on its way when the road is cut is lost, and its number is missing.
	quiet := obj{"1000": obj{"lib_path": servertest.Example(t), "config": obj{"command_interval_ms": "3600000"}}}
	config := formatD("127.0.0.1:1", quiet, "car_1")
	delete(config, "external_communication")
	address := brokertest.FreeAddress(t)
	config["embedded_broker"] = obj{"listen": address}
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	way := newRoad(t, address)
	c := startCar(t, gateway.Broker{Address: way.listener.Addr().String()}, "car_1")
	c.lostIsExpected()
	c.report(`{"pressed": true}`, button)
	c.reportUntil("the session is under way", func() bool { // the gateway has finished its connect sequence
		_, answered, _ := c.watch.get()
		return answered >= 3
	}, button)
	// A gateway that has something to say in the moment without connection begins anew,
	// which is not what this is about.
	for round := 1; ; round++ {
		sessions, before, _ := c.watch.get()
		connections := way.connections()
		way.cut()
		testwait.Until(t, "the gateway is back at the broker", func() bool { return way.connections() > connections })
		c.reportUntil("a status is answered after the cut", func() bool {
			_, answered, _ := c.watch.get()
			return answered > before
		}, button)
		if now, _, _ := c.watch.get(); now == sessions {
			break
		}
		if round == 5 {
			t.Fatal("the gateway began anew each time")
		}
	}
	if strings.Contains(s.Log(), "another server") {
		t.Error("another server is suspected")
	}
	way.close()
	s.WaitLog("gateway's connection closed")
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
