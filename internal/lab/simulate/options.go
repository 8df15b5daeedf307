// Package simulate lets a fleet of faithful gateways (package gateway) drive any
// External Server through any broker and measures what the cars see: latencies,
// dropped sessions, violations of the protocol. `external-server simulate` and
// `bench` are made of it.
//
// It may import gateway and fleet, nothing of the server proper.
package simulate

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
)

// Options of New.
type Options struct {
	Broker  gateway.Broker
	Company string
	Prefix  string // of the names of the cars, which end in a number
	First   int    // number of the first car; 0: 1
	Cars    int
	Devices int // per car
	Module  int32
	// DeviceType of all devices; negative: one that the known modules take.
	DeviceType int64
	// Payload is the length of a status in bytes, unless its module needs more.
	Payload int
	// Statuses, if there are any, are what the devices send instead, each device one
	// after the other and then from the start; Payload means nothing then.
	Statuses [][]byte
	// Rate is the number of statuses each car sends per second, at planned moments
	// whatever the answers do. Closed instead sends the next status of a car when
	// the last one is answered.
	Rate   float64
	Closed bool
	// Connections to the broker that the gateways share; 0: one per car, at most
	// 100; negative: each gateway has one of its own as in a car, made by the client
	// library, with the client id of the protocol (CONN-9). That costs much more.
	Connections int
	// Ramp is the time over which the cars start.
	Ramp time.Duration
	// ConnectTimeout bounds the wait for the last car to be connected; zero: 60 s.
	ConnectTimeout time.Duration
	// Seed of everything random: who starts when, session ids, faults.
	Seed   uint64
	Faults Faults
	// OnCommand is told the data of every command that is not empty, and when it
	// came; it must return soon. Nil: it is not called.
	OnCommand func(data []byte, at time.Time)
}

// Faults are what goes wrong, on purpose, while the cars report; their first
// connect sequence is without. Their zero value is a faultless fleet.
type Faults struct {
	// Share of the cars, 0 to 1, that have faults; the seed chooses them.
	Share float64
	// Messages holds probabilities per message.
	Messages gateway.Faults
	// Silence, Restart and Flap are events per car and minute: the gateway falls
	// silent for SilenceFor, it dies and starts again, a device leaves and returns
	// a second later.
	Silence, Restart, Flap float64
	SilenceFor             time.Duration
	// Storm is the interval at which all these gateways restart at once; 0: never.
	Storm time.Duration
}

func (f Faults) any() bool {
	return f.Share > 0 && (f.Messages != gateway.Faults{} || f.Silence > 0 || f.Restart > 0 || f.Flap > 0 || f.Storm > 0)
}

// limits of what a process can simulate
const (
	maxCars    = 200_000
	maxDevices = 100
	maxPayload = gateway.MaxPayload
)

func (o *Options) complete() error {
	if o.Prefix == "" {
		o.Prefix = "car_"
	}
	if o.First == 0 {
		o.First = 1
	}
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = time.Minute
	}
	if o.DeviceType < 0 {
		o.DeviceType = 0
		if o.Module >= 1 && o.Module <= 3 {
			o.DeviceType = 1 // MM-20, MM-30, MM-40
		}
	}
	if o.Faults.SilenceFor <= 0 {
		o.Faults.SilenceFor = 45 * time.Second
	}
	f := o.Faults
	switch {
	case o.Cars < 1 || o.Cars > maxCars:
		return fmt.Errorf("%d cars: expected 1 to %d", o.Cars, maxCars)
	case o.First < 0:
		return fmt.Errorf("number %d of the first car: expected 1 or more", o.First)
	case o.Devices < 1 || o.Devices > maxDevices:
		return fmt.Errorf("%d devices per car: expected 1 to %d", o.Devices, maxDevices)
	case o.DeviceType > 1<<32-1:
		return fmt.Errorf("device type %d: expected 0 to %d", o.DeviceType, uint32(1<<32-1))
	case o.Payload < 0 || o.Payload > maxPayload:
		return fmt.Errorf("payload of %d bytes: expected 0 to %d", o.Payload, maxPayload)
	case slices.ContainsFunc(o.Statuses, func(s []byte) bool { return len(s) > maxPayload }):
		return fmt.Errorf("a status of more than %d bytes", maxPayload)
	case o.Closed && o.Rate != 0:
		return errors.New("a rate and a closed loop exclude each other")
	case !(o.Rate >= 0) || o.Rate > 1e6:
		return fmt.Errorf("%v statuses per second and car: expected 0 to 1000000", o.Rate)
	case o.Connections > 1000:
		return fmt.Errorf("%d shared connections: expected at most 1000", o.Connections)
	case o.Ramp < 0:
		return fmt.Errorf("ramp of %v: expected none or a positive time", o.Ramp)
	case !(f.Share >= 0 && f.Share <= 1):
		return fmt.Errorf("share %v of the cars with faults: expected 0 to 1", f.Share)
	case !(f.Silence >= 0) || !(f.Restart >= 0) || !(f.Flap >= 0) || max(f.Silence, f.Restart, f.Flap) > 6000:
		return errors.New("silence, restart and flap are events per car and minute: expected 0 to 6000")
	case f.Storm < 0:
		return fmt.Errorf("restart storm every %v: expected a positive time", f.Storm)
	}
	for _, p := range []struct {
		name  string
		value float64
	}{{"lost", f.Messages.Lose}, {"duplicated", f.Messages.Duplicate}, {"reordered", f.Messages.Reorder}, {"preceded by garbage", f.Messages.Garbage}} {
		if !(p.value >= 0 && p.value <= 1) {
			return fmt.Errorf("probability %v of a message to be %s: expected 0 to 1", p.value, p.name)
		}
	}
	return gateway.CheckCar(fleet.CarID{Company: o.Company, Car: o.carName(0)})
}

func (o *Options) carName(i int) string { return fmt.Sprintf("%s%d", o.Prefix, o.First+i) }

// connections returns how many shared ones there are; 0: each gateway has its own.
func (o *Options) connections() int {
	switch {
	case o.Connections < 0:
		return 0
	case o.Connections == 0:
		return min(o.Cars, 100)
	}
	return min(o.Connections, o.Cars)
}
