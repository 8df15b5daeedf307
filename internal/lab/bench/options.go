// Package bench measures the server beside an echo: the cheapest responder there
// can be, on the same broker, in the same run, under the same load. What it prints
// are mostly ratios, because they say more about the server than figures of a
// machine.
//
// Server, echo and broker are processes of their own, started from the same
// program; the simulated cars are in the measuring process. It may import what the
// server consists of, and simulate; nothing imports it but the command.
package bench

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Options of Run.
type Options struct {
	// Self is the command line that runs RunChild; its last argument is added.
	Self []string
	// Broker is the address of an MQTT broker; Mosquitto starts one instead. Neither:
	// the embedded one, in a process of its own.
	Broker    string
	Mosquitto bool
	// Runs is how often server and echo are measured, in turns; Seconds is the length
	// of one measurement.
	Runs    int
	Seconds float64
	// Rows chooses measurements by name; nil: all of the table.
	Rows *regexp.Regexp
	// Big is the number of cars of the large measurements. BigRate is the sum of
	// their statuses per second, BigSeconds the length.
	Big        int
	BigRate    float64
	BigSeconds float64
	// Profiles is a directory for CPU, heap and goroutine profiles of the measured
	// processes; "": none. They cost something themselves.
	Profiles string
	// Progress gets a line now and then.
	Progress func(format string, args ...any)
}

func (o *Options) complete() error {
	switch {
	case len(o.Self) == 0:
		return errors.New("the command of the child processes is missing")
	case o.Broker != "" && o.Mosquitto:
		return errors.New("an external broker and a started one exclude each other")
	case o.Runs < 1 || o.Runs > 1000:
		return fmt.Errorf("%d runs: expected 1 to 1000", o.Runs)
	case !(o.Seconds >= 0.1) || !(o.BigSeconds >= 0.1):
		return errors.New("a measurement must last 0.1 s at least")
	case o.Big < 1 || o.Big > 100_000:
		return fmt.Errorf("%d cars: expected 1 to 100000", o.Big)
	case !(o.BigRate > 0):
		return fmt.Errorf("%v statuses per second: expected a positive number", o.BigRate)
	}
	if o.Broker != "" {
		if _, _, err := splitAddress(o.Broker); err != nil {
			return err
		}
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	return nil
}

// place is the broker of a run.
type place struct {
	name    string
	address string
	own     *mosquitto // nil: not ours to restart
	child   *process
}

func openPlace(ctx context.Context, o *Options) (*place, error) {
	switch {
	case o.Broker != "":
		return &place{name: "external, " + o.Broker, address: o.Broker}, nil
	case o.Mosquitto:
		m, err := startMosquitto()
		if err != nil {
			return nil, err
		}
		return &place{name: "mosquitto", address: m.address, own: m}, nil
	}
	p, err := spawn(ctx, o.Self, Child{Role: RoleBroker})
	if err != nil {
		return nil, err
	}
	return &place{name: "embedded", address: p.rest, child: p}, nil
}

func (p *place) close() {
	if p.own != nil {
		p.own.stop()
	}
	if p.child != nil {
		p.child.stop()
	}
}

func (o *Options) seconds() time.Duration { return time.Duration(o.Seconds * float64(time.Second)) }
