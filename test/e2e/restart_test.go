package e2e

import (
	"fmt"
	"testing"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
)

// The broker dies without a word and comes back: every car has a session again,
// and what it says is answered.
func TestBrokerDiesAndReturns(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	var names []string
	for i := range 10 {
		names = append(names, fmt.Sprintf("car_%d", i))
	}
	s := servertest.Start(t, servertest.Options{Config: formatD(m.Address(), exampleModule(t), names...)})
	s.WaitLog("connected to the broker")
	var cars []*testCar
	for _, n := range names {
		c := startCar(t, open(m), n)
		c.report(`{"pressed": true}`, button)
		cars = append(cars, c)
	}
	for _, c := range cars {
		c.await(1, 1, 1)
		c.lostIsExpected()
	}
	m.Kill()
	s.WaitLog("reason=\"broker connection lost\"")
	m.Restart()
	reportAllUntil(t, "all cars are served again", cars, func(c *testCar) bool {
		sessions, answers, _ := c.watch.get()
		return sessions >= 2 && answers >= 3
	}, button)
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// The server dies without a word and is started again: the gateway, which still
// believes in its session, is called at its next status and connects anew at once (GW-34).
func TestServerDiesAndReturns(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	config := formatD(m.Address(), exampleModule(t), "car_a", "car_b")
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	a, b := startCar(t, open(m), "car_a"), startCar(t, open(m), "car_b")
	for _, c := range []*testCar{a, b} {
		c.report(`{"pressed": true}`, button)
		c.await(1, 1, 1)
	}
	s.Kill()
	s = servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	for _, c := range []*testCar{a, b} {
		c.reportUntil("the car has a second session", func() bool {
			sessions, _, _ := c.watch.get()
			return sessions >= 2
		}, button)
		c.watch.mu.Lock()
		if len(c.watch.ends) == 0 || c.watch.ends[0] != gateway.ReasonCalled.String() {
			t.Errorf("car %v left its session because of %q, expected %q", c.Car(), c.watch.ends, gateway.ReasonCalled)
		}
		c.watch.mu.Unlock()
	}
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A gateway that restarts is answered at once, without waiting for anything to
// time out (REC-3, DEF-17).
func TestGatewayRestarts(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	s := servertest.Start(t, servertest.Options{Config: formatD(m.Address(), exampleModule(t), "car_a")})
	s.WaitLog("connected to the broker")
	c := startCar(t, open(m), "car_a")
	c.report(`{"pressed": true}`, button)
	c.await(1, 1, 1)
	for n := 2; n <= 5; n++ {
		c.Restart()
		c.report(`{"pressed": true}`, button)
		c.await(n, 1, 1)
	}
	s.WaitLog("gateway started a new session")
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
