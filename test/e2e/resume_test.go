package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// kept is a server whose sessions outlive its process, with cars that report all the
// time.
type kept struct {
	t      *testing.T
	broker *brokertest.Mosquitto // nil: the embedded one
	config obj
	state  string // the state directory
	server *servertest.Server
	cars   []*testCar
	device fleet.Device
	more   map[string][]fleet.Device // of a car, beside device
	limit  time.Duration             // within which the server has to answer while a car connects
	stop   chan struct{}
	drives sync.WaitGroup
}

// defaults are the settings that mosquitto has without a configuration file, which
// listens only where the test wants it, and extra lines.
func defaults(t *testing.T, extra string) brokertest.Options {
	t.Helper()
	text := "listener 1883\nallow_anonymous true\nlog_dest stderr\n" + extra
	if os.Geteuid() == 0 {
		text += "user root\n" // it could not use the test's files otherwise
	}
	path := filepath.Join(t.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return brokertest.Options{File: path}
}

// keep makes the configuration of a server with cars c_0 to c_(n-1), and a broker.
func keep(t *testing.T, n int, modules obj) *kept {
	t.Helper()
	k := &kept{t: t, broker: brokertest.Start(t, defaults(t, "")), device: button, limit: time.Minute, stop: make(chan struct{})}
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("c_%d", i))
	}
	k.config = formatD(k.broker.Address(), modules, names...)
	k.state = filepath.Join(t.TempDir(), "state")
	k.config["state_directory"] = k.state
	return k
}

func (k *kept) start() {
	k.t.Helper()
	k.server = servertest.Start(k.t, servertest.Options{Config: k.config})
}

// drive starts a gateway per configured car and lets each report every 50 ms until the test
// ends; it returns when all are served.
func (k *kept) drive() {
	k.t.Helper()
	k.server.WaitLog("connected to the broker")
	for name := range k.config["cars"].(obj) {
		k.gateway(name)
	}
	k.served(1)
	k.connectedAnew(1, k.cars...) // the first answer comes before the end of the connect sequence
}

func (k *kept) gateway(name string) *testCar {
	k.t.Helper()
	broker := gateway.Broker{}
	if k.broker != nil {
		broker = open(k.broker)
	} else {
		broker.Address = k.config["embedded_broker"].(obj)["listen"].(string)
	}
	c := startCarWith(k.t, broker, name, gateway.Timing{ // a real gateway's, but patient while it connects
		RetryPause: 300 * time.Millisecond, MessageTimeout: k.limit, LinkTimeout: 30 * time.Second,
		StatusTimeout: 30 * time.Second, QueuePoll: 50 * time.Millisecond, LeaveStall: 50 * time.Millisecond,
	})
	k.cars = append(k.cars, c)
	k.drives.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			c.report(`{"pressed": true}`, append([]fleet.Device{k.device}, k.more[name]...)...)
			select {
			case <-k.stop:
				return
			case <-tick.C:
			}
		}
	})
	return c
}

// served waits until each car has had n more statuses answered.
func (k *kept) served(n int) {
	k.t.Helper()
	for _, c := range k.cars {
		_, before, _ := c.watch.get()
		testwait.Until(k.t, fmt.Sprintf("car %v is served", c.Car()), func() bool {
			_, now, _ := c.watch.get()
			return now >= before+n
		})
	}
}

// again starts the server, which has ended, and waits until it serves all cars.
func (k *kept) again() {
	k.t.Helper()
	k.start()
	k.served(5)
}

func (k *kept) terminate() {
	k.t.Helper()
	if code := k.server.Stop(); code != 0 {
		k.t.Errorf("exit code %d", code)
	}
}

// finish ends the reports and the server.
func (k *kept) finish() {
	k.t.Helper()
	k.halt()
	k.terminate()
}

func (k *kept) halt() {
	close(k.stop)
	k.drives.Wait()
}

// unnoticed demands that each car has had one session and nothing went wrong.
func (k *kept) unnoticed() {
	k.t.Helper()
	unnoticed(k.t, k.cars...)
}

func unnoticed(t *testing.T, cars ...*testCar) {
	t.Helper()
	for _, c := range cars {
		c.watch.mu.Lock()
		if c.watch.connected != 1 || len(c.watch.ends) > 0 {
			t.Errorf("car %v had %d sessions: %v", c.Car(), c.watch.connected, c.watch.ends)
		}
		c.watch.mu.Unlock()
	}
}

// connectedAnew waits until each of the cars has had n sessions.
func (k *kept) connectedAnew(n int, cars ...*testCar) {
	k.t.Helper()
	for _, c := range cars {
		testwait.Until(k.t, fmt.Sprintf("car %v has session %d", c.Car(), n), func() bool {
			sessions, _, _ := c.watch.get()
			return sessions >= n
		})
	}
}

// said tells whether the running server has logged the text.
func (k *kept) said(text string) bool { return strings.Contains(k.server.Log(), text) }

// No car notices that its server was stopped and started, killed and started, or
// replaced by another build and back.
func TestRestartIsNotNoticed(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(k *kept)
	}{
		{"SIGTERM", func(k *kept) { k.terminate(); k.again() }},
		{"SIGKILL", func(k *kept) { k.server.Kill(); k.again() }},
		{"SIGKILL, SIGTERM, SIGKILL", func(k *kept) {
			k.server.Kill()
			k.again()
			k.terminate()
			k.again()
			k.server.Kill()
			k.again()
		}},
		{"SIGKILL and later", func(k *kept) {
			k.server.Kill()
			<-time.After(6 * time.Second) // more than 5 s: what the broker held is read before anything is answered
			k.again()
		}},
		{"another build and back", func(k *kept) {
			k.terminate()
			k.server = servertest.Start(k.t, servertest.Options{Config: k.config, Binary: servertest.Build(k.t, "other")})
			k.served(5)
			k.terminate()
			k.again()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := keep(t, 5, exampleModule(t))
			k.start()
			k.drive()
			c.end(k)
			k.halt()
			k.unnoticed()
			k.terminate()
		})
	}
}

// A reload that changes a module of a car is not noticed.
func TestReloadKeepsSessions(t *testing.T) {
	t.Parallel()
	k := keep(t, 5, exampleModule(t))
	k.start()
	k.drive()
	reload := func(expected string) {
		t.Helper()
		servertest.WriteConfig(t, k.server.ConfigPath, k.config)
		k.server.Signal(syscall.SIGHUP)
		k.server.WaitLog(expected)
		k.served(5)
	}
	k.config["common_modules"] = obj{"1000": obj{"lib_path": servertest.Example(t), "config": obj{"command_interval_ms": "300"}}}
	reload("configuration reloaded")
	k.unnoticed()
	for _, c := range k.cars {
		_, _, before := c.watch.get()
		testwait.Until(t, "the new module sends commands", func() bool {
			_, _, now := c.watch.get()
			return now > before
		})
	}
	k.finish()
}

// A reload that adds a module to all cars, or removes it, makes the gateways connect anew
// whose devices begin or stop to be supported (GW-34, RES-18). No other car notices it.
func TestReloadThatChangesWhatIsSupported(t *testing.T) {
	t.Parallel()
	const concerned = "c_1"
	k := keep(t, 4, exampleModule(t))
	k.more = map[string][]fleet.Device{concerned: {{Module: 78, Type: 1, Role: "device", Name: "Device"}}}
	k.start()
	k.drive()
	i := slices.IndexFunc(k.cars, func(c *testCar) bool { return c.Car().Car == concerned })
	changed := k.cars[i]
	others := slices.Delete(slices.Clone(k.cars), i, i+1)
	testwait.Until(t, "the server knows the device of the module that is not there yet", func() bool {
		return k.said("78/1/device/Device")
	})
	record := filepath.Join(t.TempDir(), "record")
	recorded := func() int {
		text, err := os.ReadFile(record)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return bytes.Count(text, []byte("pressed"))
	}
	reload := func(times int) {
		t.Helper()
		servertest.WriteConfig(t, k.server.ConfigPath, k.config)
		k.server.Signal(syscall.SIGHUP)
		testwait.Until(t, "the configuration is reloaded", func() bool {
			return strings.Count(k.server.Log(), "configuration reloaded") == times
		})
	}
	modules := k.config["common_modules"].(obj)
	modules["78"] = obj{"lib_path": servertest.Library(t, "test/faults/testdata/recorder.c"), "config": obj{"record": record}}
	reload(1)
	k.connectedAnew(2, changed)
	testwait.Until(t, "the new module gets statuses", func() bool { return recorded() > 3 })
	k.served(3)
	unnoticed(t, others...)

	delete(modules, "78")
	reload(2)
	k.connectedAnew(3, changed)
	k.served(3)
	unnoticed(t, others...)
	k.halt()
	changed.watch.mu.Lock()
	if changed.watch.connected != 3 {
		t.Errorf("the car had %d sessions: %v", changed.watch.connected, changed.watch.ends)
	}
	changed.watch.mu.Unlock()
	k.terminate()
}

// The broker ends with the process when it is embedded: the sessions of gateways that were
// silent meanwhile go on, the others are back soon.
func TestEmbeddedBrokerRestarts(t *testing.T) {
	t.Parallel()
	k := keep(t, 3, exampleModule(t))
	delete(k.config, "external_communication")
	k.config["embedded_broker"] = obj{"listen": brokertest.FreeAddress(t)}
	k.broker = nil
	k.start()
	k.server.WaitLog("connected to the broker")
	k.drive()
	for _, c := range k.cars {
		c.lostIsExpected()
	}
	k.terminate()
	k.again()
	k.finish()
}

// A car that is not configured any more is told once, and its topic is left.
func TestCarIsRemovedBetweenTwoProcesses(t *testing.T) {
	t.Parallel()
	k := keep(t, 3, exampleModule(t))
	k.start()
	k.drive()
	var gone *testCar
	for i, c := range k.cars {
		if c.Car().Car == "c_1" {
			gone = c
			k.cars = append(k.cars[:i:i], k.cars[i+1:]...)
			break
		}
	}
	k.terminate()
	delete(k.config["cars"].(obj), "c_1")
	k.again()
	testwait.Until(t, "the gateway of the removed car is told", func() bool {
		gone.watch.mu.Lock()
		defer gone.watch.mu.Unlock()
		return len(gone.watch.ends) > 0 && gone.watch.ends[0] == "disconnect notification"
	})
	k.server.WaitLog("not configured any more")
	k.halt()
	k.unnoticed()
	k.terminate()
}

// Cars that "*" has found are known to the next process.
func TestFoundCarsAreResumed(t *testing.T) {
	t.Parallel()
	k := keep(t, 0, exampleModule(t))
	k.config["cars"] = obj{"*": obj{}}
	k.start()
	k.server.WaitLog("connected to the broker")
	for i := range 3 {
		k.gateway(fmt.Sprintf("found_%d", i))
	}
	k.served(3)
	for range 2 {
		k.server.Kill()
		k.again()
	}
	k.terminate()
	k.again()
	k.halt()
	k.unnoticed()
	k.terminate()
}

// A broker that is restarted with its persistence gives back what it held; one without
// has forgotten the sessions, and the cars connect anew.
func TestBrokerRestartsBesideKeptSessions(t *testing.T) {
	for _, persistent := range []bool{true, false} {
		t.Run(fmt.Sprintf("persistence %v", persistent), func(t *testing.T) {
			t.Parallel()
			k := keep(t, 3, exampleModule(t))
			if persistent {
				k.broker = brokertest.Start(t, defaults(t, "persistence true\npersistence_location "+t.TempDir()+"/\n"))
			}
			k.config["external_communication"].(obj)["server_port"] = k.broker.Port()
			k.limit = 5 * time.Second
			k.start()
			k.drive()
			for _, c := range k.cars { // a Connect may be lost with the broker
				c.expect("status not answered in time", "no ConnectResponse in time")
			}
			k.broker.End()
			k.server.WaitLog("connection lost")
			k.broker.Restart()
			k.served(5)
			if !persistent {
				k.connectedAnew(2, k.cars...)
			}
			k.finish()
		})
	}
}

// With "on_stop": "notify" SIGTERM ends the sessions, and the next start begins clean.
func TestStopNotifies(t *testing.T) {
	t.Parallel()
	k := keep(t, 3, exampleModule(t))
	k.config["on_stop"] = "notify"
	k.limit = 5 * time.Second
	k.start()
	k.drive()
	for _, c := range k.cars {
		c.expect("no ConnectResponse in time") // while there is no server
	}
	k.terminate()
	for _, c := range k.cars {
		testwait.Until(t, "the gateway is told", func() bool {
			c.watch.mu.Lock()
			defer c.watch.mu.Unlock()
			return len(c.watch.ends) > 0 && c.watch.ends[0] == "disconnect notification"
		})
	}
	k.start()
	k.connectedAnew(2, k.cars...)
	k.finish()
}
