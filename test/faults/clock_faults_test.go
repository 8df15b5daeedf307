package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

func clockFaults() []scenario {
	const year = 365 * 24 * time.Hour
	return []scenario{
		// HTTP-10: limits are measured by the monotonic clock, and the API's
		// timestamps never go back.
		{"clock-jump", "clock of the server and of the HTTP API jumps a year ahead, ten years back and to the right time, 10 s each", true, func(r *rig) {
			clock, prefix := newClock(r)
			r.opts.Prefix = prefix
			r.opts.Binary = askingBuild(r, servertest.Binary(r))
			a := r.startAPI(0)
			r.fleetOnAPI(a)
			for n, ahead := range []time.Duration{year, -10 * year, 0} {
				clock.jump(ahead)
				r.recovered(time.Now())
				r.clockOfTheLog(n+1, ahead)
				r.commandAll(a)
				pause(r.during(10*time.Second, time.Second))
			}
			r.unaffected(r.crew.cars)
			r.row.Note = "a command for every car after each jump"
			r.finishOnAPI(a)
		}},
	}
}

// clockOfTheLog makes the server log its nth reload and demands that the line has
// the time of the clock: that the clock did jump.
func (r *rig) clockOfTheLog(nth int, ahead time.Duration) {
	r.Helper()
	const text = "configuration reloaded"
	before := time.Now()
	r.reload()
	testwait.Until(r, fmt.Sprintf("the server logs %q the %dth time", text, nth), func() bool {
		return strings.Count(r.server.Log(), text) == nth
	})
	log := r.server.Log()
	log = log[:strings.LastIndex(log, text)]
	line := log[strings.LastIndexByte(log, '\n')+1:]
	const layout = "2006-01-02 15:04:05.000"
	_, rest, _ := strings.Cut(line, "[")
	at, err := time.ParseInLocation(layout, rest[:min(len(rest), len(layout))], time.Local)
	if want := before.Add(ahead); err != nil || at.Sub(want).Abs() > testwait.Patience {
		r.Errorf("the clock of the server is not at %s: %v: %s", want.Format(layout), err, line)
	}
}

// commandAll posts a command for every car of the API and waits until it is there.
func (r *rig) commandAll(a *api) {
	r.Helper()
	client, err := httpapi.NewClient(httpapi.ClientOptions{URL: a.url})
	if err != nil {
		r.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), testwait.Patience)
	defer cancel()
	cars := r.group("car")
	before := make([]int, len(cars))
	for n, c := range cars {
		testwait.Until(r, "the API knows car "+c.name, func() bool { // a status is answered before the module has posted it
			known, err := client.Statuses(ctx, fleet.CarID{Company: company, Car: c.name}, httpapi.Query{})
			return err == nil && len(known) > 0
		})
		before[n] = c.commandCount()
		err := client.PostCommands(ctx, fleet.CarID{Company: company, Car: c.name}, []httpapi.Message{{
			DeviceID: httpapi.DeviceID{ModuleID: transparent, Type: int64(c.device.Type), Role: c.device.Role, Name: c.device.Name},
			Payload:  httpapi.Payload{MessageType: "COMMAND", Encoding: httpapi.EncodingJSON, Data: json.RawMessage(`{"go":1}`)},
		}})
		if err != nil {
			r.Fatal(err)
		}
	}
	for n, c := range cars {
		testwait.Until(r, "car "+c.name+" gets the command", func() bool { return c.commandCount() > before[n] })
	}
}

func (c *car) commandCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.commands
}
