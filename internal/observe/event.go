package observe

import (
	"strconv"
	"strings"
	"time"

	"external-server/internal/fleet"
)

// Event is one entry of the event stream.
type Event struct {
	ID      string    `json:"id"` // grows within one run of the server
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"`
	Car     string    `json:"car,omitempty"`
	Replica string    `json:"replica,omitempty"` // in the stream of a cluster: where it happened
	Session string    `json:"session,omitempty"`
	// Reason says why, for a kind that has reasons.
	Reason string `json:"reason,omitempty"`
	Device string `json:"device,omitempty"` // module/type/role/name
	Module int32  `json:"module,omitempty"`
	// Text is for people.
	Text  string `json:"text,omitempty"`
	Count int    `json:"count,omitempty"`
	// Seconds is how long what has ended took.
	Seconds float64 `json:"seconds,omitempty"`
}

// Kinds of events. They are part of the admin interface.
const (
	KindConnect      = "connect"       // a gateway began its connect sequence
	KindRunning      = "running"       // and completed it
	KindResumed      = "resumed"       // its session goes on, which was out of reach for Seconds
	KindDisconnect   = "disconnect"    // a session or connect sequence ended
	KindDeviceJoined = "device_joined" // a device was connected
	KindDeviceLeft   = "device_left"
	KindFault        = "fault"  // something an operator should look at
	KindLink         = "link"   // the broker was reached or lost
	KindModule       = "module" // a module's process ended, came back or went out of service
	KindConfig       = "config" // the configuration was reloaded, or not; its file has an error
	KindOperator     = "operator"
)

// faultPause is the shortest time between two faults of one car and reason.
const faultPause = time.Second

// Events is the event stream.
type Events struct {
	epoch string
	ring  *Ring[Event]
}

// newEvents returns a stream of the newest limit events. Its ids begin with the
// time of the start, so that those of an earlier run are recognised.
func newEvents(limit int, start time.Time) *Events {
	return &Events{epoch: strconv.FormatInt(start.UnixMilli(), 36), ring: NewRing[Event](limit)}
}

// Put appends an event and gives it its id.
func (e *Events) Put(ev Event) {
	if ev.At.IsZero() {
		ev.At = time.Now()
	}
	e.ring.Put(func(n uint64) Event {
		ev.ID = e.epoch + "-" + strconv.FormatUint(n, 10)
		return ev
	})
}

// After returns where to read on after the event with that id. An empty id means
// only what is to come. known is false for the id of another run or none at all:
// then reading starts at the oldest event there is.
func (e *Events) After(id string) (from uint64, known bool) {
	if id == "" {
		return e.ring.Next(), true
	}
	epoch, number, ok := strings.Cut(id, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || epoch != e.epoch || n >= e.ring.Next() {
		return 1, false
	}
	return n + 1, true
}

// Oldest returns where to read everything there is.
func (e *Events) Oldest() uint64 {
	_, _, lost := e.ring.Read(1, 0, nil)
	return 1 + lost
}

// Read and Wait are those of Ring.
func (e *Events) Read(from uint64, max int, buf []Event) ([]Event, uint64, uint64) {
	return e.ring.Read(from, max, buf)
}

// Wait returns a channel that is closed when there is an event to read at from.
func (e *Events) Wait(from uint64) <-chan struct{} { return e.ring.Wait(from) }

func deviceText(d fleet.Device) string {
	if d == (fleet.Device{}) {
		return ""
	}
	return d.String()
}
