package faults

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// model is what must be true of the whole process, whatever happened: a reference
// without protocol, brokers or processes. A car that is configured and switched on is
// served; what was answered is delivered, in order; no car sees the protocol broken.
type model struct {
	configured map[string]bool
	on         map[string]bool
}

func (m *model) served(name string) bool { return m.configured[name] && m.on[name] }

// process is the real thing that the model is compared with.
type process struct {
	*rig
	model model
	admin string
	cars  map[string]*car
	// excused are answered statuses that need not be delivered.
	excused map[string]bool
}

var modelCars = []string{"alpha", "beta", "gamma"}

// Random operators, cars, modules and faults against the real server over a real
// broker. make test plays a few short histories; -rapid.checks and -rapid.steps play
// more.
func TestModelOfTheProcess(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		p := startProcess(t)
		defer p.end()
		name := rapid.SampledFrom(modelCars)
		rt.Repeat(map[string]func(*rapid.T){
			"car reports": func(rt *rapid.T) {
				if c := p.cars[name.Draw(rt, "car")]; p.model.on[c.name] {
					for range rapid.IntRange(1, 20).Draw(rt, "statuses") {
						c.report()
					}
				}
			},
			"car restarts":    func(rt *rapid.T) { p.cars[name.Draw(rt, "car")].Restart() },
			"car reconnects":  func(rt *rapid.T) { p.cars[name.Draw(rt, "car")].Reconnect() },
			"car on or off":   func(rt *rapid.T) { p.toggle(name.Draw(rt, "car")) },
			"device leaves":   func(rt *rapid.T) { c := p.cars[name.Draw(rt, "car")]; c.Leave(c.device) },
			"broker dies":     func(*rapid.T) { p.broker.Kill(); p.broker.Restart() },
			"network cut":     func(*rapid.T) { p.way.Cut() },
			"server dies":     func(*rapid.T) { p.server.Kill(); p.excuse(); p.start() },
			"server restarts": func(rt *rapid.T) { p.restart(rt) },
			"module dies":     func(*rapid.T) { p.killModule() },
			"module aborts":   func(*rapid.T) { p.touch(p.trigger(recorder, "crash")) },
			"operator": func(rt *rapid.T) {
				p.operate(rt, name.Draw(rt, "car"), rapid.SampledFrom([]string{"disconnect", "reannounce"}).Draw(rt, "action"))
			},
			"operator reloads":   func(rt *rapid.T) { p.reconfigure(rt, name.Draw(rt, "car")) },
			"stranger":           func(rt *rapid.T) { p.stranger(rt, rapid.IntRange(0, 50).Draw(rt, "message")) },
			"everything settles": func(rt *rapid.T) { p.compare(rt) },
		})
		p.compare(rt)
	})
}

func startProcess(t *testing.T) *process {
	t.Helper()
	p := &process{rig: newRig(t), cars: make(map[string]*car), excused: make(map[string]bool), admin: brokertest.FreeAddress(t)}
	p.model = model{configured: make(map[string]bool), on: make(map[string]bool)}
	p.startBroker(true, brokertest.Options{})
	named := make(map[string]int32)
	for _, n := range modelCars {
		named[n] = recorder
		p.model.configured[n] = true
	}
	p.configure(named)
	p.config["admin"] = obj{"listen": p.admin}
	p.crew = &crew{t: t}
	for _, n := range modelCars {
		p.cars[n] = newCar(t, carOptions{name: n, module: recorder, timing: p.timing(), broker: gateway.Broker{Address: p.broker.Address()}})
		p.crew.cars = append(p.crew.cars, p.cars[n])
		p.model.on[n] = true
	}
	p.start()
	return p
}

func (p *process) end() {
	for _, c := range p.crew.cars {
		c.Close()
	}
	p.server.Kill()
	p.broker.Kill()
}

// toggle cuts the gateway off from the network, or ends that.
func (p *process) toggle(name string) {
	p.model.on[name] = !p.model.on[name]
	if err := p.cars[name].SetFaults(gateway.Faults{Silent: !p.model.on[name]}); err != nil {
		p.Fatal(err)
	}
}

func (p *process) restart(rt *rapid.T) {
	if code := p.server.Stop(); code != 0 {
		rt.Fatalf("exit code %d", code)
	}
	if strings.Contains(p.server.Log(), "could not be delivered") || strings.Contains(p.server.Log(), "not everything ended in time") {
		p.excuse() // said and counted: the module was away longer than the stop may take
	}
	p.start()
}

// start runs the server until it handles signals.
func (p *process) start() {
	p.startServer()
	p.server.WaitLog("serving company=")
}

func (p *process) killModule() {
	if pid := p.host(recorder); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (p *process) operate(rt *rapid.T, name, action string) {
	resp, err := http.Post("http://"+p.admin+"/api/v1/cars/"+name+"/"+action, "", nil)
	if err != nil {
		return // the server is just starting
	}
	_ = resp.Body.Close()
	if resp.StatusCode >= 500 {
		rt.Fatalf("%s of car %s: %s", action, name, resp.Status)
	}
}

// reconfigure adds or removes a car.
func (p *process) reconfigure(rt *rapid.T, name string) {
	cars := p.config["cars"].(obj)
	if p.model.configured[name] && len(cars) == 1 {
		return // one must be left
	}
	if p.model.configured[name] {
		delete(cars, name)
	} else {
		cars[name] = obj{"specific_modules": obj{fmt.Sprint(recorder): p.module(recorder)}}
	}
	p.model.configured[name] = !p.model.configured[name]
	writeConfig(p.rig, p.config)
	deadline := time.Now().Add(testwait.Patience)
	for !slices.Equal(p.listed(), sorted(cars)) {
		if time.Now().After(deadline) {
			rt.Fatalf("the server has the cars %v after a reload, expected %v\n%s", p.listed(), sorted(cars), p.server.Log())
		}
		if len(p.listed()) > 0 { // else it is only starting
			p.reload()
		}
		pause(50 * time.Millisecond)
	}
}

func sorted(cars obj) []string {
	var out []string
	for n := range cars {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// listed returns the cars that the admin endpoint knows.
func (p *process) listed() []string {
	resp, err := http.Get("http://" + p.admin + "/api/v1/cars")
	if err != nil {
		return nil // the server is just starting
	}
	defer resp.Body.Close()
	var answer struct {
		Cars []struct {
			Name string `json:"name"`
		} `json:"cars"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		p.Fatal(err)
	}
	var out []string
	for _, c := range answer.Cars {
		out = append(out, c.Name)
	}
	slices.Sort(out)
	return out
}

func (p *process) stranger(rt *rapid.T, n int) {
	if err := brokertest.PublishOnce(brokertest.PeerOptions{Address: p.broker.Address()}, company+"/nobody/module_gateway", hostile(n)); err != nil {
		rt.Fatal(err)
	}
}

// compare lets everything settle and compares with the model.
func (p *process) compare(rt *rapid.T) {
	begin := time.Now()
	for _, c := range p.crew.cars {
		for last := (time.Time{}); p.model.served(c.name) && !c.servedSince(begin); pause(5 * time.Millisecond) {
			if time.Since(last) > 100*time.Millisecond { // a device has always something to say
				last = time.Now()
				c.report()
			}
			if time.Since(begin) > 2*testwait.Patience {
				rt.Fatalf("car %s is on and configured and not served: phase %v, ends %s, violations %s\n%s",
					c.name, c.Phase(), c.reasons(c.ends), c.reasons(c.wrong), p.server.Log())
			}
		}
		c.mu.Lock()
		for reason, n := range c.wrong {
			if !fromSilence(reason) {
				rt.Errorf("car %s saw the server break the protocol %d times: %v", c.name, n, reason)
			}
		}
		c.mu.Unlock()
		if p.model.on[c.name] && !p.model.configured[c.name] && c.servedSince(begin) {
			rt.Errorf("car %s is not configured and was served", c.name)
		}
	}
	_ = os.Remove(p.trigger(recorder, "crash"))
	if strings.Contains(p.server.Log(), "DATA RACE") {
		rt.Fatal("data race")
	}
	for delivered := p.recorded(); ; delivered = p.recorded() {
		lost := p.undelivered(delivered)
		if len(lost) == 0 {
			return
		}
		if time.Since(begin) > 2*testwait.Patience {
			rt.Fatalf("answered and not delivered: %v\n%s", lost, p.server.Log())
		}
		pause(20 * time.Millisecond)
	}
}

// undelivered names the answered statuses that are missing and not excused.
func (p *process) undelivered(delivered map[string]int) []string {
	var out []string
	for _, c := range p.crew.cars {
		c.mu.Lock()
		for n := range c.answered {
			if s := fmt.Sprintf("%s %d", c.name, n); delivered[s] == 0 && !p.excused[s] {
				out = append(out, s)
			}
		}
		c.mu.Unlock()
	}
	return out
}

// excuse forgives what the process that has ended leaves undelivered: the queues of libraries are in
// memory and go with it. Its last answers may still be on the way to the cars, so all that no
// car has an answer to is forgiven, too.
func (p *process) excuse() {
	for _, c := range p.crew.cars {
		c.mu.Lock()
		for _, n := range c.onWay {
			p.excused[fmt.Sprintf("%s %d", c.name, n)] = true
		}
		c.mu.Unlock()
	}
	for _, s := range p.undelivered(p.recorded()) {
		p.excused[s] = true
	}
}
