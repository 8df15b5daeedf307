package observe

import (
	"fmt"
	"testing"
	"time"

	"external-server/internal/car"
	"external-server/internal/fleet"
)

// An order has its own life, whichever way the library writes its JSON; one that the HTTP
// API has deleted is found out when a later one comes; what nothing fetches is bounded.
func TestOrders(t *testing.T) {
	h := newHub(t, Options{})
	id := fleet.CarID{Company: "acme", Car: "car1"}
	c := h.Car(id)
	button, other := fleet.Device{Module: 7, Type: 1, Role: "a"}, fleet.Device{Module: 7, Type: 1, Role: "b"}
	at := time.Unix(1000, 0)
	give := func(d fleet.Device, data string) uint64 {
		n := c.Expect(Order{By: "shift", At: at, Device: d, Data: []byte(data)})
		c.Accepted(n)
		return n
	}
	fetch := func(d fleet.Device, data string) {
		at = at.Add(time.Second)
		c.Observe(&car.Event{Kind: car.CommandFetched, At: at, Module: 7, Command: fleet.Command{Device: d, Data: []byte(data), Fetched: at}})
	}
	life := func() (out string) {
		for _, cmd := range c.View().Commands {
			out += string(cmd.State)
			if cmd.Order != nil {
				out += fmt.Sprint(" ", cmd.Order.Number)
			}
			out += "; "
		}
		return out
	}
	expect := func(want string) {
		t.Helper()
		if got := life(); got != want {
			t.Errorf("%s, expected %s", got, want)
		}
	}
	expect("")
	refused := c.Expect(Order{By: "shift", Device: button, Data: []byte(`{}`)})
	expect("") // nothing is said of what is not accepted
	c.Withdraw(refused)
	c.Withdraw(refused)
	c.Accepted(refused)
	give(button, `{"x":1,"y":"é"}`)
	expect("accepted 2; ")
	fetch(other, `{"x":1,"y":"é"}`)
	fetch(button, `{"x":2}`)
	expect("accepted 2; queued; queued; ")
	fetch(button, `{"y": "\u00e9", "x": 1.0}`)
	expect("queued 2; queued; queued; ")
	if cmd := c.View().Commands[0]; cmd.Order.By != "shift" || !cmd.Order.At.Equal(time.Unix(1000, 0)) {
		t.Errorf("%+v", cmd)
	}
	give(button, `1`)
	give(other, `2`)
	give(button, `3`)
	fetch(button, `3`)
	expect("accepted 4; queued 5; deleted 3; queued 2; queued; queued; ")
	// The same twice: the first is fetched first.
	give(button, `6`)
	give(button, `6`)
	fetch(button, `6`)
	expect("accepted 7; accepted 4; queued 6; queued 5; deleted 3; queued 2; queued; queued; ")
	for range 3 * keptExpected {
		give(button, `{}`)
	}
	if n := len(c.values.ordered.expected); n != keptExpected {
		t.Errorf("%d orders wait, the bound is %d", n, keptExpected)
	}
	if n := len(c.View().Commands); n > keptExpected+keptCommands {
		t.Errorf("%d commands are shown", n)
	}
}
