package broker_test

import (
	"testing"

	"external-server/internal/broker"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
)

// carUsers are two cars, each restricted to its room, a user without limits and one
// of some topics.
func carUsers() []broker.User {
	return []broker.User{
		{Name: "server", Password: "secret-1"},
		{Name: "one", Password: "secret-2", Car: "company/car_1"},
		{Name: "two", Password: "secret-3", Car: "company/car_2"},
		{Name: "topics", Password: "secret-4", Prefix: "company/car_1"},
	}
}

// A will is published by the broker itself, without asking whether the client
// may. So a client that may not publish to its topic may not connect with it.
func TestWillOfACarStaysInItsRoom(t *testing.T) {
	b, _ := start(t, broker.Options{Users: carUsers()})
	server := dial(t, b, brokertest.PeerOptions{Username: "server", Password: "secret-1"})
	subscribe(t, server, "company/+/module_gateway")
	will := func(topic string) brokertest.PeerOptions {
		return brokertest.PeerOptions{Address: b.Addr().String(), Username: "one", Password: "secret-2",
			ClientID: "company/car_1", Will: &wire.Will{Topic: topic, Payload: []byte("will")}}
	}
	if p, err := brokertest.Dial(will("company/car_2/module_gateway")); err == nil {
		p.Conn.Close() // without a word: the will is published
		t.Error("a car may leave a will to another one's topic")
	}
	topics := will("company/car_2/module_gateway")
	topics.Username, topics.Password, topics.ClientID = "topics", "secret-4", "some"
	if p, err := brokertest.Dial(topics); err == nil {
		p.Conn.Close()
		t.Error("a user of some topics may leave a will to another one")
	}
	own, err := brokertest.Dial(will("company/car_1/module_gateway"))
	if err != nil {
		t.Fatal(err)
	}
	own.Conn.Close()
	expect(t, server, "company/car_1/module_gateway", "will")
}

// The identifier of a client decides whose connection it takes over, so a car has
// exactly its own (CONN-9).
func TestACarCannotTakeOverAnotherOne(t *testing.T) {
	b, _ := start(t, broker.Options{Users: carUsers()})
	two := dial(t, b, brokertest.PeerOptions{Username: "two", Password: "secret-3", ClientID: "company/car_2"})
	for _, id := range []string{"company/car_2", "company/car_1x", "dashboard"} {
		if p, err := brokertest.Dial(brokertest.PeerOptions{Address: b.Addr().String(), Username: "one", Password: "secret-2", ClientID: id}); err == nil {
			p.Conn.Close()
			t.Errorf("a car may connect as %s", id)
		}
	}
	if err := two.Ping(); err != nil {
		t.Errorf("the other car lost its connection: %v", err)
	}
}

// Retained messages are few and for all; cars leave none.
func TestACarLeavesNoRetainedMessages(t *testing.T) {
	b, _ := start(t, broker.Options{Users: carUsers()})
	one := dial(t, b, brokertest.PeerOptions{Username: "one", Password: "secret-2", ClientID: "company/car_1",
		Will: &wire.Will{Topic: "company/car_1/will", Payload: []byte("will"), Retain: true}})
	if _, err := one.Conn.Write(wire.AppendPublish(nil, "company/car_1/kept", []byte("x"), 1, 7, true, false)); err != nil {
		t.Fatal(err)
	}
	if err := one.Ping(); err != nil {
		t.Fatal(err)
	}
	server := dial(t, b, brokertest.PeerOptions{Username: "server", Password: "secret-1"})
	subscribe(t, server, "company/car_1/will")
	one.Conn.Close()
	expect(t, server, "company/car_1/will", "will")
	subscribe(t, server, "company/car_1/kept", "company/car_1/will", "end")
	publish(t, server, "end", "of what was retained")
	expect(t, server, "end", "of what was retained")
}

// A will may be for the topics that a message may be published to.
func TestWillForWildcard(t *testing.T) {
	b, _ := start(t, broker.Options{})
	watch := dial(t, b, brokertest.PeerOptions{})
	subscribe(t, watch, "#", "$SYS/#")
	for _, topic := range []string{"company/#", "company/+/external_server", "#", "+", "$SYS/broker/version", ""} {
		p, err := brokertest.Dial(brokertest.PeerOptions{Address: b.Addr().String(), Will: &wire.Will{Topic: topic, Payload: []byte("will"), Retain: true}})
		if err == nil {
			p.Conn.Close()
			t.Errorf("a client may leave a will for %q", topic)
		}
	}
	publish(t, watch, "end", "of all wills")
	expect(t, watch, "end", "of all wills")
}
