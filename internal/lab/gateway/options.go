package gateway

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"external-server/internal/fleet"
)

// Timing holds the time limits of a gateway. A zero value stands for the real
// gateway's, a negative one for none at all.
type Timing struct {
	MessageTimeout time.Duration // GW-1: wait for one message of the connect sequence, 5 s
	StatusTimeout  time.Duration // GW-2: a status is overdue, 30 s
	RetryPause     time.Duration // GW-3: pause after a failed connect sequence, 10 s
	QueuePoll      time.Duration // GW-4: longest delay of a reaction, 3 s
	ForcedStatus   time.Duration // GW-5: longest time between two statuses of a device, 15 s
	LeaveStall     time.Duration // GW-7: nothing is sent this long after DISCONNECT, 10 s
	LinkTimeout    time.Duration // GW-8: limit for reaching the broker, 600 ms
}

func (t Timing) withDefaults() Timing {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.MessageTimeout, 5*time.Second)
	def(&t.StatusTimeout, 30*time.Second)
	def(&t.RetryPause, 10*time.Second)
	def(&t.QueuePoll, 3*time.Second)
	def(&t.ForcedStatus, 15*time.Second)
	def(&t.LeaveStall, 10*time.Second)
	def(&t.LinkTimeout, 600*time.Millisecond)
	return t
}

// Module is one module of the gateway's configuration.
type Module struct {
	Number    int32
	Types     []uint32 // supported device types (GW-38); nil: all
	Immediate bool     // commands are given to the device at once (GW-54)
}

// Options are the settings of a Core.
type Options struct {
	Timing Timing
	// Modules are the configured modules in order (GW-12, GW-35). Nil: every
	// module is configured and supports every type; devices are then listed in the
	// order in which their modules appeared.
	Modules []Module
	// Steady says that devices are never silent: GW-6 is off, and their owner need
	// not report EventAlive.
	Steady bool
	// Aggregate merges a status that could not be delivered into the error of its
	// device and returns the new error (GW-53). previous and status are nil when the
	// device has none; the result for a nil status is sent with a CONNECTING status
	// of an outage without lost statuses (GW-14), nil meaning nothing. Nil: what the
	// modules of the real gateway produce for unremarkable devices.
	Aggregate func(d fleet.Device, previous, status []byte) []byte
	// Rand draws session ids and reaction times; nil: a random seed. The Core owns it.
	Rand *rand.Rand
}

func (o Options) withDefaults() Options {
	o.Timing = o.Timing.withDefaults()
	if o.Aggregate == nil {
		o.Aggregate = defaultAggregate
	}
	if o.Rand == nil {
		o.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return o
}

var (
	missionError     = []byte(`{"finishedStops":[]}`)
	ioError          = []byte(`{"aggregatedButtonPresses":0}`)
	transparentError = []byte{0}
	exampleError     = []byte("Default error")
)

// defaultAggregate is the error of a mission device without finished stops
// (MM-23), of an IO device without pressed buttons (MM-33), one byte for module 3
// (MM-43), and the text of the example module for all others.
func defaultAggregate(d fleet.Device, previous, status []byte) []byte {
	switch d.Module {
	case 1:
		return missionError
	case 2:
		return ioError
	}
	if status == nil {
		return previous
	}
	if d.Module == 3 {
		return transparentError
	}
	return exampleError
}

// support tells whether the gateway has the module and whether it takes the type.
func (o *Options) support(module int32, deviceType uint32) (configured, supported bool) {
	if o.Modules == nil {
		return true, true
	}
	for i := range o.Modules {
		if m := &o.Modules[i]; m.Number == module {
			return true, m.Types == nil || slices.Contains(m.Types, deviceType)
		}
	}
	return false, false
}

func (o *Options) immediate(module int32) bool {
	for i := range o.Modules {
		if o.Modules[i].Number == module {
			return o.Modules[i].Immediate
		}
	}
	return false
}

// CheckCar returns an error when the company or the name of a car is not one that
// a gateway accepts (GW-56).
func CheckCar(car fleet.CarID) error {
	if !fleet.ValidName(car.Company) {
		return fmt.Errorf("company %q of a gateway: expected lower-case letters, digits and underscores, at least one", car.Company)
	}
	if !fleet.ValidName(car.Car) {
		return fmt.Errorf("car %q of a gateway: expected lower-case letters, digits and underscores, at least one", car.Car)
	}
	return nil
}
