package e2e

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/protocol"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// guideACL returns the access rules for mosquitto that docs/security.md gives.
func guideACL(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := regexp.MustCompile(`(?m)^    (user external_server\n(?:    .*\n)+)`).FindSubmatch(text)
	if rules == nil {
		t.Fatal("docs/security.md has no access rules for mosquitto")
	}
	return strings.ReplaceAll(string(rules[1]), "\n    ", "\n")
}

// ownTopic is the broker's line about a message to the server on a topic of its own.
var ownTopic = regexp.MustCompile(`Sending PUBLISH to es-\S+ \(.*'external_server/es-`)

// With the access rules of docs/security.md, a car with valid credentials of its own
// cannot end, read or speak for another one at mosquitto.
func TestTheAccessRulesOfTheGuide(t *testing.T) {
	cars := brokertest.FreeAddress(t)
	_, port, err := net.SplitHostPort(cars)
	if err != nil {
		t.Fatal(err)
	}
	m := brokertest.Start(t, brokertest.Options{
		Username: "external_server", Password: "of-the-server",
		Others: map[string]string{"acme/car_1": "of-car-1", "acme/car_2": "of-car-2"},
		ACL:    guideACL(t),
		Extra:  "listener " + port + " 127.0.0.1\nuse_username_as_clientid true\n",
	})
	config := formatD(m.Address(), exampleModule(t), "car_1", "car_2")
	setBroker(config, m, obj{"username": "external_server", "password": "of-the-server"})
	config["state_directory"] = filepath.Join(t.TempDir(), "state")
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	car := startCar(t, gateway.Broker{Address: cars, Username: "acme/car_1", Password: "of-car-1"}, "car_1")
	car.report(`{"pressed": false}`, button)
	car.await(1, 1, 2)

	// Each connection of car_2 takes over its own earlier one, whatever it calls itself.
	as2 := func() *brokertest.Peer {
		p, err := brokertest.Dial(brokertest.PeerOptions{Address: cars, Username: "acme/car_2", Password: "of-car-2", ClientID: "acme/car_1"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Conn.Close() })
		return p
	}
	connect := func(p *brokertest.Peer, name string) error {
		raw, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "hostile1", Devices: []fleet.Device{button}},
			fleet.CarID{Company: company, Car: name})
		if err != nil {
			t.Fatal(err)
		}
		return p.Publish(company+"/"+name+"/module_gateway", raw, false)
	}
	// mosquitto grants every subscription and then sends nothing.
	spy := as2()
	if err := spy.Subscribe(1, "acme/#", "acme/car_1/external_server", "acme/car_2/external_server"); err != nil {
		t.Fatal(err)
	}
	car.report(`{"pressed": true}`, button)
	car.await(1, 2, 3)
	if err := connect(spy, "car_2"); err != nil { // its own room is open to it
		t.Fatal(err)
	}
	for answered := false; !answered; {
		got, err := spy.Receive(brokertest.Timeout)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got.Topic, "acme/car_2/") {
			t.Fatalf("car_2 reads %s", got.Topic)
		}
		answered = got.Topic == "acme/car_2/external_server"
	}
	if err := connect(as2(), "car_1"); err == nil {
		t.Log("mosquitto acknowledges what it denies")
	}
	for i := range 5 {
		car.report(`{"pressed": false}`, button)
		car.await(1, 3+i, 3)
	}
	if n := strings.Count(m.Log(), "Denied PUBLISH from acme/car_2"); n != 1 {
		t.Errorf("mosquitto has denied %d messages, expected 1", n)
	}
	// The next process reads what the broker has kept, and may use the topics for that.
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	servertest.Start(t, servertest.Options{Config: config})
	testwait.Until(t, "the server reads what it wrote to a topic of its own", func() bool {
		return ownTopic.MatchString(m.Log())
	})
	_, before, _ := car.watch.get()
	car.report(`{"pressed": false}`, button)
	car.await(1, before+1, 3)
	if strings.Contains(m.Log(), "Denied PUBLISH from es-") {
		t.Errorf("the rules deny the server its own topics:\n%s", m.Log())
	}
	car.watch.mu.Lock()
	defer car.watch.mu.Unlock()
	if car.watch.connected != 1 || len(car.watch.ends) > 0 {
		t.Errorf("the session of car_1 was disturbed: %d sessions, ends %q", car.watch.connected, car.watch.ends)
	}
}
