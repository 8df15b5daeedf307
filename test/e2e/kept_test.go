package e2e

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	tls    *tls.Config           // of the gateways; nil: none
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
	k.served(1)                   // the server has got the end of the connect sequence and keeps the session (RES-2)
}

func (k *kept) gateway(name string) *testCar {
	k.t.Helper()
	broker := gateway.Broker{}
	if k.broker != nil {
		broker = open(k.broker)
		broker.TLS = k.tls
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

// upToDate waits until each car has an answer to a status that it sends from now on: what the broker held is
// answered.
func (k *kept) upToDate() {
	k.t.Helper()
	now := time.Now()
	for _, c := range k.cars {
		testwait.Until(k.t, fmt.Sprintf("what car %v says now is answered", c.Car()), func() bool {
			c.watch.mu.Lock()
			defer c.watch.mu.Unlock()
			return c.watch.recent.After(now)
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

// run starts the server and the cars.
func (k *kept) run() {
	k.t.Helper()
	k.start()
	k.drive()
}

// finishUnnoticed is finish, and demands that no car has noticed anything.
func (k *kept) finishUnnoticed() {
	k.t.Helper()
	k.halt()
	k.unnoticed()
	k.terminate()
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
