// Package fleet holds the words of the domain: cars, devices, statuses,
// commands and the reasons why sessions end. It imports nothing of the project
// and does no I/O; every other package may import it.
package fleet

import (
	"fmt"
	"log/slog"
	"strconv"
	"time"
)

// CarID names one car of one company (VOC-1, VOC-2). Both parts match
// ^[a-z0-9_]+$ once a configuration has been validated.
type CarID struct {
	Company string
	Car     string
}

// String returns "company/car", which is also the prefix of the car's topics.
func (c CarID) String() string { return c.Company + "/" + c.Car }

// DeviceID is the identity of a device (VOC-8): name and priority are not part
// of it.
type DeviceID struct {
	Module int32  // module number, VOC-7
	Type   uint32 // device type, its meaning belongs to the module
	Role   string
}

// String returns "module/type/role".
func (d DeviceID) String() string {
	return strconv.Itoa(int(d.Module)) + "/" + strconv.FormatUint(uint64(d.Type), 10) + "/" + d.Role
}

// Device is a device as announced by a gateway or named by a module.
type Device struct {
	Module   int32
	Type     uint32
	Role     string
	Name     string
	Priority uint32 // 0 is the highest
}

// ID returns the identity of the device (VOC-8).
func (d Device) ID() DeviceID { return DeviceID{Module: d.Module, Type: d.Type, Role: d.Role} }

// String returns the textual form used in logs (VOC-15): module/type/role/name.
func (d Device) String() string { return d.ID().String() + "/" + d.Name }

// LogValue gives loggers the textual form, made only when the line is written.
func (d Device) LogValue() slog.Value { return slog.StringValue(d.String()) }

// ForModule returns the device as modules see it: with priority 0 in every call
// (MOD-11, DEF-32).
func (d Device) ForModule() Device {
	d.Priority = 0
	return d
}

// Command is one command of a module for one device. The owner of the value
// owns Data, which must not be changed after the value was handed over.
type Command struct {
	Device Device
	Data   []byte
	// Fetched is when the module handed the command over; zero: unknown, or the
	// command is none of a module's.
	Fetched time.Time
	// Position is how far its module has fetched, this command included, for a module
	// that can go on there in another process; nil: unknown.
	Position []byte
}

// DisconnectType tells a module why a device left (VOC-14). The numbers are
// those of the module ABI.
type DisconnectType int

const (
	// DisconnectAnnounced: the device or its gateway said so.
	DisconnectAnnounced DisconnectType = 0
	// DisconnectTimeout: the session ended.
	DisconnectTimeout DisconnectType = 1
	// DisconnectError is reserved by the ABI.
	DisconnectError DisconnectType = 2
)

// String returns the term used in logs.
func (t DisconnectType) String() string {
	switch t {
	case DisconnectAnnounced:
		return "announced"
	case DisconnectTimeout:
		return "timeout"
	case DisconnectError:
		return "error"
	}
	return fmt.Sprintf("disconnect type %d", int(t))
}
