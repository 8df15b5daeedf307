package mqtt_test

import (
	"fmt"
	"slices"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

func TestMessagesFlowBothWays(t *testing.T) {
	brokers(t, func(t *testing.T, address string) {
		l := newLink(t, mqtt.Options{Address: address})
		car := id("company", "car_a")
		r, p := attach(t, l, car) // before Run
		if p.Publish([]byte("too early"), link.Ack{}) {
			t.Error("Publish reports success without a broker")
		}
		runLink(t, l)
		waitUp(t, r)
		g := gateway(t, address, car)
		say(t, g, car, "hello")
		testwait.Until(t, "the message arrives", func() bool { return slices.Equal(r.received(), []string{"hello"}) })

		if !p.Publish([]byte("answer"), link.Ack{}) || !p.NotifyDisconnect() {
			t.Error("Publish or NotifyDisconnect failed on an open link")
		}
		m := hear(t, g)
		if m.Topic != "company/car_a/external_server" || string(m.Payload) != "answer" || m.QoS != 1 || m.Retain {
			t.Errorf("CONN-1, CONN-5: %+v", m)
		}
		m = hear(t, g)
		if m.Topic != "company/car_a/external_server_disconnect" || len(m.Payload) != 0 || m.QoS != 1 || m.Retain {
			t.Errorf("CONN-3: %+v", m)
		}
		late, _ := attach(t, l, id("company", "car_b")) // while running
		waitUp(t, late)
		say(t, g, id("company", "car_b"), "late")
		testwait.Until(t, "a car attached later is served", func() bool { return len(late.received()) == 1 })
		if n := len(r.received()); n != 1 {
			t.Errorf("car_a got %d messages, the second one was not for it", n)
		}
	})
}

func TestOrderPerCarUnderLoad(t *testing.T) {
	const cars, messages = 20, 500
	brokers(t, func(t *testing.T, address string) {
		l := startLink(t, mqtt.Options{Address: address, Connections: 2, QueueMessages: messages})
		var gateways []*brokertest.Peer
		var recorders []*recorder
		var ports []link.Port
		for i := range cars {
			car := id("company", fmt.Sprintf("car_%d", i))
			r, p := attach(t, l, car)
			recorders, ports = append(recorders, r), append(ports, p)
			gateways = append(gateways, gateway(t, address, car))
		}
		waitUp(t, recorders...)
		done := make(chan error, cars)
		for i, p := range ports {
			go func() {
				for _, s := range numbers(messages) {
					if !p.Publish([]byte(s), link.Ack{}) {
						done <- fmt.Errorf("car %d: queue of %d is full", i, messages)
						return
					}
				}
				done <- nil
			}()
		}
		for range ports {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		for i, g := range gateways {
			go func() {
				for _, want := range numbers(messages) {
					m, err := g.Receive(testwait.Patience)
					if err == nil && string(m.Payload) != want {
						err = fmt.Errorf("car %d got %s instead of %s", i, m.Payload, want)
					}
					if err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range gateways {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		for i, g := range gateways {
			go func() {
				for _, s := range numbers(messages) {
					if err := g.Publish(fmt.Sprintf("company/car_%d/module_gateway", i), []byte(s), false); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range gateways {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		for i, r := range recorders {
			testwait.Until(t, fmt.Sprintf("car %d has got everything", i), func() bool { return len(r.received()) >= messages })
			if !slices.Equal(r.received(), numbers(messages)) {
				t.Errorf("car %d: messages are not in order", i)
			}
		}
	})
}

// A gateway never retains (CONN-5). What the broker kept of somebody who did is
// no message of a car, neither of an attached one nor of one to be found; sent
// while the server listens it is like any other.
func TestRetainedMessagesAreIgnored(t *testing.T) {
	brokers(t, func(t *testing.T, address string) {
		car, stranger := id("company", "car_a"), id("company", "stranger")
		g := gateway(t, address, car)
		for _, c := range []fleet.CarID{car, stranger} {
			if err := g.Retain(c.String()+"/module_gateway", []byte("old")); err != nil {
				t.Fatal(err)
			}
		}
		l := newLink(t, mqtt.Options{Address: address})
		r, _ := attach(t, l, car)
		if _, err := l.Watch("company", func(c fleet.CarID, _ []byte) { t.Errorf("a retained message found car %s", c) }); err != nil {
			t.Fatal(err)
		}
		runLink(t, l)
		testwait.Until(t, "both retained messages are counted", func() bool {
			return l.State().Connections[0].IgnoredRetained >= 2
		})
		waitUp(t, r)
		if err := g.Retain(car.String()+"/module_gateway", []byte("live")); err != nil {
			t.Fatal(err)
		}
		say(t, g, car, "new")
		testwait.Until(t, "what is sent now arrives", func() bool { return slices.Contains(r.received(), "new") })
		if got := r.received(); !slices.Equal(got, []string{"live", "new"}) {
			t.Errorf("car_a got %q", got)
		}
	})
}
