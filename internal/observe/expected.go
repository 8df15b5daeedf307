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

// ordered is an Order that no module has fetched yet.
type ordered struct {
	command Command
	data    []byte
}

// Expect makes the command that a module is going to fetch for this order known as the
// operator's. It is called before the order is given, because the module may be quick;
// Accepted or Withdraw with the number follow.
func (c *Car) Expect(o Order) (number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := &c.values
	v.orders++
	made := Command{Module: o.Device.Module, Device: o.Device, State: CommandAccepted, Order: v.orders, By: o.By, Accepted: o.At}
	made.Payload.keep(o.Data, keptCommand)
	if len(v.expected) >= keptExpected { // no module fetches them
		v.expected = slices.Delete(v.expected, 0, len(v.expected)-keptExpected+1)
	}
	v.expected = append(v.expected, ordered{made, bytes.Clone(o.Data)})
	return v.orders
}

// Accepted says that the HTTP API has the order.
func (c *Car) Accepted(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.values.expects(number); i >= 0 {
		c.values.expected[i].command.confirmed = true
	}
}

// Withdraw says that the HTTP API has refused the order.
func (c *Car) Withdraw(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.values.expects(number); i >= 0 {
		c.values.expected = slices.Delete(c.values.expected, i, i+1)
	}
}

func (v *values) expects(number uint64) int {
	return slices.IndexFunc(v.expected, func(o ordered) bool { return o.command.Order == number })
}

// claim gives a command that a module has fetched to the order that it is for. The HTTP API
// hands commands out in the order in which they were given, so orders for the same device
// that were given before it are not going to be fetched any more.
func (v *values) claim(c *Command, data []byte) (gone []Command) {
	at := slices.IndexFunc(v.expected, func(o ordered) bool { return o.command.Device.ID() == c.Device.ID() && sameData(o.data, data) })
	if at < 0 {
		return nil
	}
	c.Order, c.By, c.Accepted = v.expected[at].command.Order, v.expected[at].command.By, v.expected[at].command.Accepted
	rest := v.expected[:0]
	for i, o := range v.expected {
		switch {
		case i == at:
		case i < at && o.command.confirmed && o.command.Device.ID() == c.Device.ID():
			o.command.State, o.command.Ended = CommandDeleted, c.Fetched
			gone = append(gone, o.command)
		default:
			rest = append(rest, o)
		}
	}
	clear(v.expected[len(rest):])
	v.expected = rest
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
