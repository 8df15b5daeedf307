package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

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
			other := servertest.Build(k.t, "other") // may take longer than the gateways wait
			k.terminate()
			k.server = servertest.Start(k.t, servertest.Options{Config: k.config, Binary: other})
			k.served(5)
			k.terminate()
			k.again()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := keep(t, 5, exampleModule(t))
			k.run()
			c.end(k)
			k.finishUnnoticed()
		})
	}
}

// A reload that changes a module of a car is not noticed.
func TestReloadKeepsSessions(t *testing.T) {
	t.Parallel()
	k := keep(t, 5, exampleModule(t))
	k.run()
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
	k.run()
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
	k.run()
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
	k.finishUnnoticed()
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
	k.finishUnnoticed()
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
			k.run()
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
	k.run()
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

// A server that is killed again and again, each time as soon as it has served all cars, is
// not taken for one that its journals end: no session is lost (RES-17).
func TestKilledWheneverItServes(t *testing.T) {
	t.Parallel()
	k := keep(t, 4, exampleModule(t))
	k.run()
	for range 12 {
		k.server.Kill()
		k.start()
		k.upToDate() // the answers to all that the broker held come at once
		k.served(10)
		if k.said("died again and again") {
			t.Fatal("the journals were set aside")
		}
	}
	k.finishUnnoticed()
}
