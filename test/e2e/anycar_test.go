package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/lab/simulate"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// "*" serves cars that the configuration does not name: from their first message
// on, up to a limit, until they have been silent, and across a reload that names
// one of them or takes "*" away.
func TestCarsThatAreNotNamed(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	config := formatD(m.Address(), exampleModule(t), "named", "*")
	config["limits"] = obj{"idle_car_s": 5, "any_cars": 2}
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")

	named := startCar(t, open(m), "named")
	first := startCar(t, open(m), "guest_1")
	for _, c := range []*testCar{named, first} {
		c.report(`{"pressed": false}`, button)
		c.await(1, 1, 2) // the first command, and one of the module
		c.report(`{"pressed": true}`, button)
		c.await(1, 2, 3)
	}
	second := startCar(t, open(m), "guest_2")
	second.report(`{"pressed": false}`, button)
	second.await(1, 1, 2)

	// The limit holds, and counts found cars only.
	third := startCar(t, open(m), "guest_3")
	third.watch.mu.Lock()
	third.watch.expected["no ConnectResponse in time"] = true
	third.watch.mu.Unlock()
	third.report(`{"pressed": false}`, button)
	s.WaitLog(`the limit of cars served by "*" is reached`)
	if n, _, _ := third.watch.get(); n != 0 {
		t.Error("a car beyond the limit is served")
	}
	third.Close()

	// A silent car makes room; the car comes back as if it were new.
	first.Close()
	s.WaitLog("released a car that had been silent")
	again := startCar(t, open(m), "guest_1")
	again.reportUntil("the released car is served again", func() bool { n, _, _ := again.watch.get(); return n > 0 }, button)

	// A reload that names the car keeps it served.
	config["cars"].(obj)["guest_1"] = obj{}
	servertest.WriteConfig(t, s.ConfigPath, config)
	s.Signal(syscall.SIGHUP)
	s.WaitLog("1 changed")
	_, answered, _ := again.watch.get()
	again.reportUntil("the car is served under its name", func() bool { _, n, _ := again.watch.get(); return n > answered+2 }, button)

	// Without "*" the others go, the named ones stay.
	delete(config["cars"].(obj), "*")
	servertest.WriteConfig(t, s.ConfigPath, config)
	s.Signal(syscall.SIGHUP)
	testwait.Until(t, "the guest is told that it is not served any more", func() bool {
		second.watch.mu.Lock()
		defer second.watch.mu.Unlock()
		return len(second.watch.ends) > 0
	})
	before, _, _ := named.watch.get()
	named.report(`{"pressed": false}`, button)
	named.await(before, 3, 3)
	if n, _, _ := named.watch.get(); n != before {
		t.Error("a reload has ended the session of a car that did not change")
	}
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(s.Log(), "[ERROR]") {
		t.Error("the server logs an error")
	}
}

// A reload that changes a module of all cars ends no session: what the cars send is
// answered on, those of "*" too (RES-18).
func TestReloadHearsEveryCar(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{Extra: "log_type none\n"})
	modules := exampleModule(t)
	config := formatD(m.Address(), modules, "car_1", "car_2", "*")
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	const cars = 200
	f, _ := drive(t, simulate.Options{Broker: gateway.Broker{Address: m.Address()}, Company: company, Cars: cars, First: 1, Prefix: "car_", Devices: 2, Module: 1000,
		Payload: 100, Rate: 2, Connections: 4, Ramp: time.Second, ConnectTimeout: 2 * time.Minute, Seed: 1})
	testwait.Until(t, "the server has the end of all connect sequences", func() bool { // one that is under way does not go on (RES-4)
		return strings.Count(s.Log(), "session running") >= cars
	})
	modules["1000"].(obj)["config"] = obj{"command_interval_ms": "300"}
	servertest.WriteConfig(t, s.ConfigPath, config)
	s.Signal(syscall.SIGHUP)
	s.WaitLog("configuration reloaded")
	answered := f.Figures().Answered
	testwait.Until(t, "all cars are answered", func() bool { return f.Figures().Answered >= answered+uint64(4*cars) })
	if r := f.Report(); r.Sessions != cars || f.Figures().Connected != cars {
		t.Errorf("%d sessions of %d cars, %d are connected; dropped: %+v", r.Sessions, cars, f.Figures().Connected, r.Dropped)
	}
}

// After the broker was restarted, a thousand cars are back, each with one session,
// and none saw the server break the protocol.
func TestManyCarsAreBackAfterTheBroker(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{Extra: "log_type none\n"})
	config := formatD(m.Address(), obj{"3": obj{"builtin": "transparent", "config": obj{}}}, "*")
	config["http_api"] = obj{"listen": "127.0.0.1:0", "store": "sqlite:" + t.TempDir() + "/api.db"}
	admin := brokertest.FreeAddress(t)
	config["admin"] = obj{"listen": admin}
	config["logging"].(obj)["console"].(obj)["level"] = "WARNING"
	s := servertest.Start(t, servertest.Options{Config: config})
	const cars = 1000
	f, halt := drive(t, simulate.Options{Broker: gateway.Broker{Address: m.Address()}, Company: company, Cars: cars, Devices: 2, Module: 3,
		DeviceType: -1, Payload: 100, Rate: 0.2, Connections: 4, Ramp: 2 * time.Second, ConnectTimeout: 2 * time.Minute, Seed: 1})
	m.Kill()
	testwait.Until(t, "the cars notice that the broker is gone", func() bool { return f.Figures().Connected == 0 })
	m.Restart()
	limit, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if _, err := f.AwaitConnected(limit); err != nil {
		t.Fatal(err)
	}
	for _, v := range f.Report().Violations {
		// A machine that is busy may exceed the limits of time; nothing else is excused.
		if !strings.Contains(v.Reason, "in time") && !strings.Contains(v.Reason, "missing") {
			t.Errorf("%+v", v)
		}
	}
	if n := f.Report().Sessions; n > 2*cars+cars/10 {
		t.Errorf("%d sessions for %d cars", n, cars)
	}
	halt()
	testwait.Until(t, "what was answered is posted", func() bool { // else the server stops with exit code 2 and says what it has lost
		all := get(t, "http://"+admin+"/metrics")
		for _, queue := range []string{"module", "builtin"} {
			if !strings.Contains(all, fmt.Sprintf("external_server_%s_queue_length{module=\"3\"} 0\n", queue)) {
				return false
			}
		}
		return true
	})
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// drive connects a simulated fleet and lets it report until halt is called or the test ends.
func drive(t *testing.T, opts simulate.Options) (f *simulate.Fleet, halt func()) {
	t.Helper()
	f, err := simulate.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	if _, err := f.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	driving, stop := context.WithCancel(t.Context())
	driven := make(chan struct{})
	go func() { f.Drive(driving, time.Hour); close(driven) }()
	halt = func() { stop(); <-driven }
	t.Cleanup(halt)
	return f, halt
}
