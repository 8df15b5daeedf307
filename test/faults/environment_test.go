package faults

import (
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) {
	// Defaults of make test; the command line comes after them. These tests mostly wait.
	for name, value := range map[string]string{"test.parallel": "5", "rapid.checks": "3", "rapid.steps": "15", "rapid.shrinktime": "1s", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	if *underClockFlag != "" {
		fmt.Fprintln(os.Stderr, runUnderClock(*underClockFlag, flag.Args()))
		os.Exit(1)
	}
	os.Exit(servertest.Main(m))
}

type obj = servertest.Map

// rig is one server with its broker, its modules and its cars. The parts are made
// in the order in which a scenario asks for them.
type rig struct {
	testing.TB
	row      *row
	full     bool // the real gateway's time limits and large fleets
	dir      string
	broker   *brokertest.Mosquitto
	embedded string            // address of the embedded broker; "": none
	way      *badnetwork.Proxy // between server and broker; nil: direct
	config   obj
	server   *servertest.Server
	crew     *crew
	life     int                // of the server, see nextLife
	opts     servertest.Options // of the server, without configuration
	// library of the modules by number
	libraries map[int32]string
	answer    string      // of the modules, "": the default
	tls       *tls.Config // of the cars
}

// cars is the size of the fleet: many for the table, few for `make test`.
func (r *rig) size(full, short int) int {
	if r.full {
		return full
	}
	return short
}

// during is how long a fault lasts.
func (r *rig) during(full, short time.Duration) time.Duration {
	if r.full {
		return full
	}
	return short
}

func (r *rig) timing() gateway.Timing {
	if r.full {
		return gateway.Timing{LinkTimeout: 30 * time.Second}
	}
	// Short pauses, so that a test need not wait for them; the limit of the real gateway for
	// an answer, because the machine may be busy with other tests.
	return gateway.Timing{
		RetryPause: 300 * time.Millisecond, MessageTimeout: 5 * time.Second, LinkTimeout: 10 * time.Second,
		StatusTimeout: 30 * time.Second, QueuePoll: 50 * time.Millisecond, LeaveStall: 50 * time.Millisecond,
	}
}

// record is the file into which module writes what it gets.
func (r *rig) record(module int32) string {
	return r.recordOf(module, r.life)
}

func (r *rig) recordOf(module int32, life int) string {
	return filepath.Join(r.dir, fmt.Sprintf("record%d%s", module, lifeSuffix(life)))
}

func lifeSuffix(life int) string {
	if life == 0 {
		return ""
	}
	return fmt.Sprintf("_%d", life)
}

// trigger is the file that makes the module misbehave.
func (r *rig) trigger(module int32, what string) string {
	return filepath.Join(r.dir, fmt.Sprintf("%s%d", what, module))
}

func (r *rig) touch(path string) {
	r.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) remove(path string) {
	r.Helper()
	if err := os.Remove(path); err != nil {
		r.Fatal(err)
	}
}

// module is the configuration of a recording module.
func (r *rig) module(number int32) obj {
	if r.libraries[number] == "" {
		r.libraries[number] = servertest.Library(r, "test/faults/testdata/recorder.c", fmt.Sprintf("-DRECORDER_NUMBER=%d", number))
	}
	m := obj{"lib_path": r.libraries[number], "timeout_ms": 1000, "max_restarts": 0, "config": obj{
		"record": r.record(number), "crash": r.trigger(number, "crash"), "hang": r.trigger(number, "hang"), "command": "10",
	}}
	if r.answer != "" {
		m["answer"] = r.answer
	}
	return m
}

// startBroker runs mosquitto; withProxy puts a spoilable network between it and the
// server.
func (r *rig) startBroker(withProxy bool, o brokertest.Options) {
	r.broker = brokertest.Start(r, o)
	if withProxy {
		r.way = badnetwork.New(r, r.broker.Address())
	}
}

// configure makes the configuration for the given cars: name -> module.
func (r *rig) configure(cars map[string]int32) {
	port := 0
	if r.broker != nil {
		port = r.broker.Port()
	}
	if r.way != nil {
		port = r.way.Port()
	}
	named := obj{}
	for name, module := range cars {
		named[name] = obj{"specific_modules": obj{fmt.Sprint(module): r.module(module)}}
	}
	r.config = obj{
		"company_name": company,
		"external_communication": obj{
			"protocol": "MQTT", "server_address": "127.0.0.1", "server_port": port, "timeout_ms": 30000,
		},
		"timeout":              5,
		"send_invalid_command": false,
		"sleep_duration_after_connection_refused": 1,
		"common_modules": obj{},
		"cars":           named,
		"logging": obj{
			"console": obj{"level": "INFO", "use": true},
			"file":    obj{"level": "INFO", "use": false},
		},
	}
}

// embedBroker replaces the broker of the configuration by the embedded one.
func (r *rig) embedBroker() {
	r.Helper()
	r.embedded = brokertest.FreeAddress(r)
	delete(r.config, "external_communication")
	r.config["embedded_broker"] = obj{"listen": r.embedded}
}

func (r *rig) brokerAddress() string {
	if r.embedded != "" {
		return r.embedded
	}
	return r.broker.Address()
}

func (r *rig) startServer() {
	o := r.opts
	o.Config = r.config
	r.server = servertest.Start(r, o)
}

func writeConfig(r *rig, config obj) { servertest.WriteConfig(r, r.server.ConfigPath, config) }

// fleetOf adds n cars of one module and returns into.
func fleetOf(prefix string, n int, module int32, into map[string]int32) map[string]int32 {
	if into == nil {
		into = make(map[string]int32)
	}
	for i := range n {
		into[fmt.Sprintf("%s_%04d", prefix, i)] = module
	}
	return into
}

// startCars starts a gateway for every car and waits until each is served.
func (r *rig) startCars(cars map[string]int32, period time.Duration) {
	r.Helper()
	r.crew = &crew{t: r}
	broker := gateway.Broker{Address: r.brokerAddress(), TLS: r.tls}
	var pool *gateway.Pool
	if len(cars) > 50 && r.embedded == "" { // which knows gateways by their connections, and subscribes them
		var err error
		// The broker queues 1000 messages per connection, after a silence all answers at once.
		if pool, err = gateway.NewPool(broker, max(4, len(cars)/50)); err != nil {
			r.Fatal(err)
		}
	}
	for name, module := range cars {
		r.crew.cars = append(r.crew.cars, newCar(r, carOptions{name: name, module: module, pool: pool, broker: broker, timing: r.timing()}))
	}
	r.Cleanup(func() {
		for _, c := range r.crew.cars {
			c.Close()
		}
		if pool != nil {
			pool.Close()
		}
	})
	begin := time.Now()
	r.crew.start(period)
	r.Cleanup(r.crew.haltOnce())
	r.crew.served(begin, 2*testwait.Patience)
	// The first answer comes before the end of the connect sequence; with another one the server has got that end.
	r.crew.served(time.Now(), 2*testwait.Patience)
}

// haltOnce returns a function that ends the reports unless they have ended.
func (f *crew) haltOnce() func() {
	return func() {
		select {
		case <-f.stop:
		default:
			f.halt()
		}
	}
}

// group returns the cars with that prefix.
func (r *rig) group(prefix string) []*car {
	var out []*car
	for _, c := range r.crew.cars {
		if strings.HasPrefix(c.name, prefix) {
			out = append(out, c)
		}
	}
	return out
}

// recovered notes how long after the end of the fault every car was served.
func (r *rig) recovered(at time.Time) {
	r.Helper()
	r.row.Recovery = r.crew.served(at, 3*testwait.Patience)
	r.row.recovered = true
}

// unaffected demands that the cars have lost no session and notes it.
func (r *rig) unaffected(cars []*car) {
	r.Helper()
	r.row.others = true
	for _, c := range cars {
		if n := c.lostSessions(); n > 0 {
			r.row.OthersLost += n
			r.Errorf("car %s, which the fault does not concern, lost %d sessions: %s", c.name, n, c.reasons(c.ends))
		}
	}
}

// finish stops the reports and the server and settles the account.
func (r *rig) finish(lossAllowed string) {
	r.Helper()
	r.crew.halt()
	r.crew.settle(r.during(35*time.Second, 15*time.Second))
	if lossAllowed == "" {
		r.awaitDelivery(func() bool { return r.missing(r.recorded()) == 0 })
	}
	if code := r.server.Stop(); code != 0 {
		r.Errorf("exit code %d", code)
	}
	r.account(lossAllowed)
}
