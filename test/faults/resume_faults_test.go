package faults

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// keptCars starts cars that report once per second, or ten times, and a server whose
// sessions outlive its process.
//
// At full size the server is the one that is shipped, because the row says for how long
// the cars had no answer; the small scenarios run with the race detector.
func (r *rig) keptCars(full, short int) {
	r.Helper()
	if r.full && r.opts.Binary == "" {
		r.opts.Binary = servertest.Plain(r)
	}
	if r.embedded == "" && r.broker == nil {
		r.broker = brokertest.Start(r, r.mosquittoDefaults())
	}
	cars := fleetOf("car", r.size(full, short), recorder, nil)
	r.configure(cars)
	r.config["state_directory"] = filepath.Join(r.dir, "state")
	r.startServer()
	r.server.WaitLog("connected to the broker")
	r.startCars(cars, r.during(time.Second, 100*time.Millisecond))
	r.running(len(cars))
}

// running waits until the server, too, has finished that many connect sequences: one that
// is under way is not resumed (RES-4).
func (r *rig) running(cars int) {
	r.Helper()
	testwait.Until(r, "the sessions run", func() bool { return strings.Count(r.server.Log(), "session running") >= cars })
}

// mosquittoDefaults is the configuration that mosquitto has by itself.
func (r *rig) mosquittoDefaults() brokertest.Options {
	r.Helper()
	path := filepath.Join(r.dir, "mosquitto.conf")
	r.write(path, []byte("listener 1883\nallow_anonymous true\nlog_dest stderr\nuser root\n"))
	return brokertest.Options{File: path}
}

// nextLife starts the server again; its modules write down what they get in a file of this
// life.
func (r *rig) nextLife() {
	r.Helper()
	r.life++
	for name := range r.config["cars"].(obj) {
		r.config["cars"].(obj)[name] = obj{"specific_modules": obj{fmt.Sprint(recorder): r.module(recorder)}}
	}
	r.startServer()
}

// forgetWaits begins a new measurement of the longest wait for an answer.
func (r *rig) forgetWaits() {
	for _, c := range r.crew.cars {
		c.mu.Lock()
		c.longest = 0
		c.mu.Unlock()
	}
}

// kept waits until every car was served again and tells what they noticed.
func (r *rig) kept() {
	r.Helper()
	r.crew.served(time.Now(), testwait.Patience)
	lost, longest := 0, time.Duration(0)
	for _, c := range r.crew.cars {
		lost += c.lostSessions()
		c.mu.Lock()
		longest = max(longest, c.longest)
		c.mu.Unlock()
	}
	if r.broker != nil && strings.Contains(r.broker.Log(), "being dropped") {
		r.Error("the broker has dropped messages: its queue for a client was full")
	}
	r.row.Note = fmt.Sprintf("sessions lost %d, longest wait for an answer %v", lost, longest.Round(10*time.Millisecond))
	if lost > 0 {
		for _, c := range r.crew.cars {
			if c.lostSessions() > 0 {
				r.Errorf("car %s lost its session: %s", c.name, c.reasons(c.ends))
			}
		}
	}
}

// finishKept is finish for sessions that nothing may end: what was delivered twice in one
// life of the server is a fault, too.
func (r *rig) finishKept() {
	r.Helper()
	note := r.row.Note
	r.finish("")
	r.row.Note = note + prefixed("; ", r.row.Note[min(len(note), len(r.row.Note)):])
	if r.row.Again > 0 {
		r.row.Note += fmt.Sprintf("; %d delivered again by another process", r.row.Again)
	}
}

func resumeFaults() []scenario {
	return []scenario{
		{"kept-stop", "state directory: server stopped (SIGTERM) under load and started again", true, func(r *rig) {
			r.keptCars(1000, 20)
			r.forgetWaits()
			if code := r.server.Stop(); code != 0 {
				r.Errorf("exit code %d", code)
			}
			r.nextLife()
			r.kept()
			r.finishKept()
		}},
		{"kept-upgrade", "state directory: server replaced by another build under load and back", false, func(r *rig) {
			build := servertest.Build
			if r.full {
				build = servertest.PlainBuild
			}
			old, fresh := build(r, "old"), build(r, "new")
			r.opts.Binary = old
			r.keptCars(1000, 20)
			r.forgetWaits()
			for _, binary := range []string{fresh, old} {
				if code := r.server.Stop(); code != 0 {
					r.Errorf("exit code %d", code)
				}
				r.opts.Binary = binary
				r.nextLife()
				r.crew.served(time.Now(), testwait.Patience)
			}
			r.kept()
			r.finishKept()
		}},
		{"kept-kill", "state directory: server killed (SIGKILL) under load and started again 3 s later", true, func(r *rig) {
			r.keptCars(1000, 20)
			r.forgetWaits()
			r.server.Kill()
			pause(r.during(3*time.Second, time.Second))
			r.nextLife()
			r.kept()
			r.finishKept()
		}},
		{"kept-kill-late", "state directory: server killed (SIGKILL) under load and started again 15 s later", false, func(r *rig) {
			r.keptCars(300, 20)
			r.forgetWaits()
			r.server.Kill()
			pause(15 * time.Second)
			r.nextLife()
			r.kept()
			r.finishKept()
		}},
		{"kept-kills", "state directory: server killed (SIGKILL) at random moments under load, 200 times", false, func(r *rig) {
			r.keptCars(1000, 20)
			r.forgetWaits()
			for range r.size(200, 5) {
				pause(300*time.Millisecond + rand.N(2*time.Second))
				r.crew.waitingLess(10 * time.Second) // a busy machine starts slowly
				r.server.Kill()
				r.nextLife()
				r.server.WaitLog("connected to the broker")
			}
			r.kept()
			r.finishKept()
		}},
		{"kept-reload", "state directory: reload that changes a module of every car under load", true, func(r *rig) {
			r.keptCars(1000, 20)
			r.forgetWaits()
			r.life++
			for name := range r.config["cars"].(obj) {
				r.config["cars"].(obj)[name] = obj{"specific_modules": obj{fmt.Sprint(recorder): r.module(recorder)}}
			}
			writeConfig(r, r.config)
			r.server.Signal(syscall.SIGHUP)
			r.server.WaitLog("configuration reloaded")
			r.kept()
			r.finishKept()
		}},
		{"kept-clock", "state directory: clock set an hour ahead and back while the server serves, while it is stopped, and after it was killed", true, func(r *rig) {
			clock, prefix := newClock(r)
			r.opts.Prefix, r.opts.Binary = prefix, askingBuild(r, servertest.Binary(r))
			r.keptCars(100, 10)
			for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
				clock.jump(ahead)
				r.crew.served(time.Now(), testwait.Patience)
				if code := r.server.Stop(); code != 0 {
					r.Errorf("exit code %d", code)
				}
				clock.jump(-ahead)
				r.nextLife()
				r.crew.served(time.Now(), testwait.Patience)
				r.server.Kill()
				clock.jump(ahead)
				r.nextLife()
				r.crew.served(time.Now(), testwait.Patience)
			}
			r.kept()
			r.finishKept()
		}},
		{"kept-embedded", "state directory, embedded broker: server stopped (SIGTERM) under load and started again", true, func(r *rig) {
			cars := fleetOf("car", r.size(1000, 20), recorder, nil)
			r.configure(cars)
			r.embedBroker()
			r.config["state_directory"] = filepath.Join(r.dir, "state")
			r.startServer()
			r.server.WaitLog("connected to the broker")
			r.startCars(cars, r.during(time.Second, 100*time.Millisecond))
			if code := r.server.Stop(); code != 0 {
				r.Errorf("exit code %d", code)
			}
			at := time.Now()
			r.nextLife()
			r.recovered(at)
			lost := 0
			for _, c := range r.crew.cars {
				lost += c.lostSessions()
			}
			r.row.Note = fmt.Sprintf("sessions lost %d: gateways publish into a closed connection", lost)
			r.finishKept()
		}},
	}
}
