package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// transparent is the number of the built-in module that posts to the HTTP API.
const transparent = 3

// api is a second server, run for its HTTP API.
type api struct {
	server *servertest.Server
	disk   string
	url    string
	config obj
	prefix []string
}

// startAPI starts it; with kilobytes, its store is on a file system of that size.
func (r *rig) startAPI(kilobytes int) *api {
	r.Helper()
	a := &api{disk: r.dir, prefix: r.opts.Prefix}
	if kilobytes > 0 {
		a.disk = r.smallDisk(kilobytes)
		a.prefix, r.opts.Prefix = r.opts.Prefix, nil
	}
	listen := brokertest.FreeAddress(r)
	a.url = "http://" + listen + "/v2/protocol"
	a.config = obj{
		"company_name":    company,
		"embedded_broker": obj{"listen": "127.0.0.1:0"},
		"http_api":        obj{"listen": listen, "store": "sqlite:" + a.disk + "/api.db"},
		"common_modules":  obj{"3": obj{"builtin": "transparent"}},
		"cars":            obj{"nobody": obj{}},
	}
	a.start(r)
	return a
}

func (a *api) start(r *rig) {
	r.Helper()
	a.server = servertest.Start(r, servertest.Options{Binary: r.opts.Binary, Config: a.config, Prefix: a.prefix})
	a.server.WaitLog("serving")
}

// fleetOnAPI starts cars that use the API and others that do not.
func (r *rig) fleetOnAPI(a *api) {
	r.Helper()
	r.startBroker(false, brokertest.Options{})
	cars := fleetOf("other", r.size(20, 5), spare, nil)
	r.configure(cars)
	for name := range fleetOf("car", r.size(20, 5), transparent, nil) {
		cars[name] = transparent
		r.config["cars"].(obj)[name] = obj{"specific_modules": obj{"3": obj{
			"builtin": "transparent", "config": obj{"api_url": a.url},
		}}}
	}
	r.startServer()
	r.server.WaitLog("connected to the broker")
	r.startCars(cars, r.during(500*time.Millisecond, 200*time.Millisecond))
}

// finishOnAPI asks the API what was delivered.
func (r *rig) finishOnAPI(a *api) {
	r.Helper()
	r.crew.halt()
	r.crew.settle(35 * time.Second)
	r.awaitDelivery(func() bool { return !r.backlog(a) })
	if code := r.server.Stop(); code != 0 {
		r.Errorf("exit code %d", code)
	}
	delivered, last := make(map[string]int), make(map[string]int)
	client, err := httpapi.NewClient(httpapi.ClientOptions{URL: a.url})
	if err != nil {
		r.Fatal(err)
	}
	defer client.Close()
	for _, c := range r.group("car") {
		ctx, cancel := context.WithTimeout(context.Background(), testwait.Patience)
		messages, err := client.Statuses(ctx, fleet.CarID{Company: company, Car: c.name}, httpapi.Query{})
		cancel()
		if err != nil {
			r.Fatal(err)
		}
		for _, m := range messages {
			if n, ok := sequence(m.Payload.Data); ok && m.Payload.MessageType == "STATUS" {
				r.arrived(delivered, last, c.name, n)
			}
		}
	}
	for line := range strings.Lines(string(r.read(r.record(spare)))) {
		n, _ := sequence([]byte(line))
		name, _, _ := strings.Cut(strings.Trim(line, `"`), " ")
		r.arrived(delivered, last, name, n)
	}
	r.count(delivered, "")
}

func apiFaults() []scenario {
	return []scenario{
		// DEF-22, MM-60, HTTP-16: the protocol does not wait for the API.
		{"api-down", "HTTP API killed (SIGKILL), back after 60 s", true, func(r *rig) {
			a := r.startAPI(0)
			r.fleetOnAPI(a)
			a.server.Kill()
			down := r.during(60*time.Second, 4*time.Second)
			pause(down)
			a.start(r)
			at := time.Now()
			for r.backlog(a) {
				pause(50 * time.Millisecond)
			}
			r.row.Note = fmt.Sprintf("backlog delivered %v after its return", time.Since(at).Round(100*time.Millisecond))
			r.recovered(at)
			r.unaffected(r.crew.cars) // not even those of the module
			r.finishOnAPI(a)
		}},
	}
}

// backlog tells whether a status answered so far is missing in the API.
func (r *rig) backlog(a *api) bool {
	r.Helper()
	client, err := httpapi.NewClient(httpapi.ClientOptions{URL: a.url})
	if err != nil {
		r.Fatal(err)
	}
	defer client.Close()
	for _, c := range r.group("car") {
		c.mu.Lock()
		answered := len(c.answered)
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), testwait.Patience)
		messages, err := client.Statuses(ctx, fleet.CarID{Company: company, Car: c.name}, httpapi.Query{})
		cancel()
		if err != nil || len(messages) < answered {
			return true
		}
	}
	return false
}
