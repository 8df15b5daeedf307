//go:build nats

package e2e

import (
	"testing"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
)

// The same at NATS, which refuses what it does not allow. `make nats` runs it.
func TestAccessRulesForNATS(t *testing.T) {
	config := formatD("127.0.0.1:1883", exampleModule(t), "car_1", "car_2")
	config["presence"] = true
	rules := accessRules(t, config, "--broker", "nats")
	address := brokertest.StartNATS(t, rules, "EXTERNAL_SERVER_MQTT_PASSWORD=of-the-server", "PASSWORD_car_1=of-car-1", "PASSWORD_car_2=of-car-2")
	config["external_communication"] = formatD(address, nil)["external_communication"]
	config["external_communication"].(obj)["username"] = "external_server"
	config["external_communication"].(obj)["password"] = "of-the-server"
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	car := startCar(t, gateway.Broker{Address: address, Username: "acme/car_1", Password: "of-car-1"}, "car_1")
	car.report(`{"pressed": false}`, button)
	car.await(1, 1, 2)

	as2 := func() *brokertest.Peer {
		p, err := brokertest.Dial(brokertest.PeerOptions{Address: address, Username: "acme/car_2", Password: "of-car-2"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Conn.Close() })
		return p
	}
	spy := as2()
	for _, filter := range []string{"#", "acme/#", "+/+/external_server", "acme/car_1/external_server", "acme/car_1/module_gateway", "external_server/#", "$MQTT/sub/#", "$MQTT/sub/+"} {
		if err := spy.Subscribe(1, filter); err == nil {
			t.Errorf("car_2 may subscribe to %s", filter)
		}
	}
	if err := spy.Subscribe(1, "acme/car_2/external_server"); err != nil {
		t.Fatal(err)
	}
	if err := connectAs(t, spy, "car_2"); err != nil {
		t.Fatal(err)
	}
	got, err := spy.Receive(brokertest.Timeout)
	if err != nil || got.Topic != "acme/car_2/external_server" {
		t.Fatalf("car_2 reads %q: %v", got.Topic, err)
	}
	for _, topic := range []string{"acme/car_1/module_gateway", "acme/car_1/external_server", "acme/car_1/external_server_disconnect", "acme/car_2/external_server"} {
		if err := as2().Publish(topic, []byte("forged"), false); err != nil {
			t.Logf("%s: %v", topic, err) // NATS acknowledges what it denies
		}
	}
	for i := range 5 {
		car.report(`{"pressed": true}`, button)
		car.await(1, 2+i, 3)
	}
	// What the spy has received until the last message of the server's user is its own.
	own, err := brokertest.Dial(brokertest.PeerOptions{Address: address, Username: "external_server", Password: "of-the-server"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Conn.Close() })
	if err := own.Publish("acme/car_2/external_server", []byte("last"), false); err != nil {
		t.Fatal(err)
	}
	for string(got.Payload) != "last" {
		if got, err = spy.Receive(brokertest.Timeout); err != nil || got.Topic != "acme/car_2/external_server" || string(got.Payload) == "forged" {
			t.Fatalf("car_2 reads %q on %q: %v", got.Payload, got.Topic, err)
		}
	}
	car.undisturbed()
}
