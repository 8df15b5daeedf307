package observe

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"time"

	"external-server/internal/fleet"
)

// keptExpected is how many commands of operators may wait to be fetched, per car.
const keptExpected = 10

// Order is a command that an operator gives by the HTTP API, for a module to fetch.
type Order struct {
	By     string    // the operator
	At     time.Time // when it was given
	Device fleet.Device
	Data   []byte // as the module is going to hand it over
}

// Ordered is the order that a command is for. It does not change.
type Ordered struct {
	Number uint64 // among those of the car, from 1
	By     string
	At     time.Time
}

// orders are those of a car.
type orders struct {
	given    uint64
	expected []expected // that no module has fetched; newest last
}

type expected struct {
	command   Command
	data      []byte
	confirmed bool // the HTTP API has it
}

// Expect makes the command that a module is going to fetch for this order known as the
// operator's. It is called before the order is given, because the module may be quick;
// Accepted or Withdraw with the number follow.
func (c *Car) Expect(o Order) (number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.values.ordered == nil {
		c.values.ordered = &orders{}
	}
	all := c.values.ordered
	all.given++
	made := Command{Module: o.Device.Module, Device: o.Device, State: CommandAccepted, Order: &Ordered{all.given, o.By, o.At}}
	made.Payload.keep(o.Data, keptCommand)
	if len(all.expected) >= keptExpected { // no module fetches them
		all.expected = slices.Delete(all.expected, 0, len(all.expected)-keptExpected+1)
	}
	all.expected = append(all.expected, expected{command: made, data: bytes.Clone(o.Data)})
	return all.given
}

// Accepted says that the HTTP API has the order.
func (c *Car) Accepted(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if all := c.values.ordered; all != nil {
		if i := all.find(number); i >= 0 {
			all.expected[i].confirmed = true
		}
	}
}

// Withdraw says that the HTTP API has refused the order.
func (c *Car) Withdraw(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if all := c.values.ordered; all != nil {
		if i := all.find(number); i >= 0 {
			all.expected = slices.Delete(all.expected, i, i+1)
		}
	}
}

func (o *orders) find(number uint64) int {
	return slices.IndexFunc(o.expected, func(e expected) bool { return e.command.Order.Number == number })
}

// accepted are the commands that the HTTP API has and no module has fetched.
func (o *orders) accepted() (out []Command) {
	if o == nil {
		return nil
	}
	for _, e := range o.expected {
		if e.confirmed {
			out = append(out, e.command)
		}
	}
	return out
}

// claim gives a command that a module has fetched to the order that it is for. The HTTP API
// hands commands out in the order in which they were given, so those for the same device
// that were given before it are not going to be fetched any more.
func (o *orders) claim(c *Command, data []byte) (gone []Command) {
	if o == nil {
		return nil
	}
	same := func(e expected) bool { return e.command.Device.ID() == c.Device.ID() }
	at := slices.IndexFunc(o.expected, func(e expected) bool { return same(e) && sameData(e.data, data) })
	if at < 0 {
		return nil
	}
	c.Order = o.expected[at].command.Order
	rest := o.expected[:0]
	for i, e := range o.expected {
		switch {
		case i == at:
		case i < at && e.confirmed && same(e):
			e.command.State, e.command.Ended = CommandDeleted, c.Fetched
			gone = append(gone, e.command)
		default:
			rest = append(rest, e)
		}
	}
	clear(o.expected[len(rest):])
	o.expected = rest
	return gone
}

// sameData tells whether two texts are the same JSON: libraries write it anew.
func sameData(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
