// Package e2e tests the real binary with real brokers, real module libraries and
// faithful gateways, as an operator and a car see it.
package e2e

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

type obj = servertest.Map

const company = "acme"

var (
	button = fleet.Device{Module: 1000, Type: 0, Role: "button", Name: "button1"}
	probe1 = fleet.Device{Module: 77, Type: 2, Role: "probe", Name: "one", Priority: 2}
)

// formatD returns a configuration with the modules for the cars.
func formatD(broker string, modules obj, cars ...string) obj {
	host, port := "127.0.0.1", 0
	if _, err := fmt.Sscanf(broker, "127.0.0.1:%d", &port); err != nil {
		panic(err)
	}
	named := obj{}
	for _, c := range cars {
		named[c] = obj{}
	}
	return obj{
		"company_name": company,
		"external_communication": obj{
			"protocol": "MQTT", "server_address": host, "server_port": port, "timeout_ms": 30000,
		},
		"timeout":              30, // a busy machine must lose no car
		"send_invalid_command": false,
		"sleep_duration_after_connection_refused": 0.5,
		"common_modules": modules,
		"cars":           named,
		"logging": obj{
			"console": obj{"level": "INFO", "use": true},
			"file":    obj{"level": "INFO", "use": false},
		},
	}
}

func exampleModule(t testing.TB) obj {
	return obj{"1000": obj{"lib_path": servertest.Example(t), "config": obj{"command_interval_ms": "200"}}}
}

// carWatch counts what a gateway reports.
type carWatch struct {
	mu         sync.Mutex
	connected  int
	answered   int
	recent     time.Time // when the newest answered status was sent
	commands   int
	ends       []string // reasons of failed sequences and of ended sessions
	violations []string
	expected   map[string]bool      // violations that the test itself causes
	answer     func()               // is told of each answer; nil: it is not called
	effect     func(gateway.Effect) // is told of everything, with mu held; nil: it is not called
}

func (w *carWatch) observe(e gateway.Effect) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.effect != nil {
		w.effect(e)
	}
	switch e.Kind {
	case gateway.EffectConnected:
		w.connected++
	case gateway.EffectAnswered:
		w.answered++
		if e.Sent.After(w.recent) {
			w.recent = e.Sent
		}
		if w.answer != nil {
			w.answer()
		}
	case gateway.EffectCommand:
		w.commands++
	case gateway.EffectSequenceFailed, gateway.EffectDisconnected:
		w.ends = append(w.ends, e.Reason.String())
	case gateway.EffectViolation:
		if w.expected[e.Reason.String()] {
			return
		}
		w.violations = append(w.violations, e.Reason.String())
	}
}

func (w *carWatch) get() (connected, answered, commands int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.connected, w.answered, w.commands
}

// testCar is a gateway and what is known of it.
type testCar struct {
	*gateway.Gateway
	watch *carWatch
	t     testing.TB
}

// startCar runs a gateway until the test ends. Its pause after a failed attempt
// is short, so that a test of recovery need not wait for it.
func startCar(t testing.TB, broker gateway.Broker, name string) *testCar {
	t.Helper()
	return startCarWith(t, broker, name, gateway.Timing{
		RetryPause:     300 * time.Millisecond,
		MessageTimeout: 30 * time.Second, // the machine of the test may be slow
		LinkTimeout:    10 * time.Second,
		StatusTimeout:  30 * time.Second,
		QueuePoll:      50 * time.Millisecond,
		LeaveStall:     50 * time.Millisecond,
	})
}

func startCarWith(t testing.TB, broker gateway.Broker, name string, timing gateway.Timing) *testCar {
	t.Helper()
	w := &carWatch{expected: make(map[string]bool)}
	g, err := gateway.Start(gateway.Settings{
		Car:     fleet.CarID{Company: company, Car: name},
		Broker:  broker,
		Observe: w.observe,
		Core:    gateway.Options{Timing: timing, Steady: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &testCar{Gateway: g, watch: w, t: t}
	t.Cleanup(func() {
		g.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.violations) > 0 {
			t.Errorf("car %s saw the server break the protocol: %v", name, w.violations)
		}
	})
	return c
}

// report sends a status of each device.
func (c *testCar) report(data string, devices ...fleet.Device) {
	for _, d := range devices {
		c.Status(d, []byte(data), time.Time{})
	}
}

// await waits until the car has seen that many sessions, answers and commands.
func (c *testCar) await(connected, answered, commands int) {
	c.t.Helper()
	testwait.Until(c.t, fmt.Sprintf("car %v: %d sessions, %d answers, %d commands", c.Car(), connected, answered, commands), func() bool {
		a, b, d := c.watch.get()
		return a >= connected && b >= answered && d >= commands
	})
}

// reportUntil sends a status now and then until the condition holds.
func (c *testCar) reportUntil(what string, condition func() bool, d fleet.Device) {
	c.t.Helper()
	var last time.Time
	testwait.Until(c.t, what, func() bool {
		if time.Since(last) > 200*time.Millisecond {
			last = time.Now()
			c.report(`{"pressed": false}`, d)
		}
		return condition()
	})
}

// reportAllUntil does so for several cars at once: each waits for limits of its gateway.
func reportAllUntil(t testing.TB, what string, cars []*testCar, condition func(*testCar) bool, d fleet.Device) {
	t.Helper()
	var last time.Time
	testwait.Until(t, what, func() bool {
		report, all := time.Since(last) > 200*time.Millisecond, true
		for _, c := range cars {
			if condition(c) {
				continue
			}
			all = false
			if report {
				last = time.Now()
				c.report(`{"pressed": false}`, d)
			}
		}
		return all
	})
}

// lostIsExpected says that the test cuts connections: a gateway whose broker
// goes away finds its last statuses unanswered.
func (c *testCar) lostIsExpected() { c.expect("status not answered in time") }

// expect names violations that the test itself causes.
func (c *testCar) expect(reasons ...string) {
	c.watch.mu.Lock()
	defer c.watch.mu.Unlock()
	for _, r := range reasons {
		c.watch.expected[r] = true
	}
}

func open(m *brokertest.Mosquitto) gateway.Broker { return gateway.Broker{Address: m.Address()} }
