//go:build nats

package mqtt_test

import (
	"slices"
	"testing"

	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// NATS speaks only MQTT 3.1.1: its cars are served with clean sessions, and this is said
// once. `make nats` builds the server and runs this test.
func TestNATS(t *testing.T) {
	address := brokertest.StartNATS(t, "")
	car := id("company", "car")
	for range 2 {
		log, logger := newTestLog(t)
		l := newLink(t, mqtt.Options{Address: address, Sessions: sessions(4, "one"), Logger: logger})
		k := attachKeeper(t, l, car, func(k *keeper, payload string, d link.Delivery) { k.port.Publish([]byte("re: "+payload), d.Ack) })
		end := runSuspendable(t, l)
		testwait.Until(t, "the link is up", func() bool { return l.State().Up })
		g := gateway(t, address, car)
		say(t, g, car, "hello")
		if got := hear(t, g); string(got.Payload) != "re: hello" {
			t.Errorf("answer %q", got.Payload)
		}
		if got := k.heard(); !slices.Equal(got, []string{"fresh", "hello"}) {
			t.Errorf("heard %q", got)
		}
		if s := l.State().Connections[0]; s.Kept || s.Version != "3.1.1" {
			t.Errorf("state: %+v", s)
		}
		if log.count("level=WARN", "MQTT 3.1.1") != 1 {
			t.Error("it was not said once")
		}
		end(link.ErrSuspend)
		say(t, g, car, "to nobody")
	}
}
