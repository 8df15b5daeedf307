package e2e

import (
	"bytes"
	"net"
	"os/exec"
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

// accessRules returns what `config acl` prints for a configuration.
func accessRules(t *testing.T, config obj, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	servertest.WriteConfig(t, path, config)
	cmd := exec.Command(servertest.Binary(t), append([]string{"config", "acl", path}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("config acl: %v\n%s", err, stderr.String())
	}
	return string(out)
}

// ownTopic is the broker's line about a message to the server on a topic of its own.
var ownTopic = regexp.MustCompile(`Sending PUBLISH to es-\S+ \(.*'external_server/es-`)

// With the rules of `config acl`, a car with valid credentials of its own cannot end, read
// or speak for another one at mosquitto, and the server has all rights that it needs.
func TestAccessRulesForMosquitto(t *testing.T) {
	for name, cars := range map[string]obj{"named cars": {"car_1": obj{}, "car_2": obj{}}, "any car": {"*": obj{}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rulesForMosquitto(t, cars)
		})
	}
}

func rulesForMosquitto(t *testing.T, named obj) {
	config := formatD("127.0.0.1:1883", exampleModule(t))
	config["cars"] = named
	config["state_directory"] = filepath.Join(t.TempDir(), "state")
	config["presence"] = true
	rules := accessRules(t, config, "--broker", "mosquitto")
	cars := brokertest.FreeAddress(t)
	_, port, err := net.SplitHostPort(cars)
	if err != nil {
		t.Fatal(err)
	}
	m := brokertest.Start(t, brokertest.Options{
		Username: "external_server", Password: "of-the-server",
		Others: map[string]string{"acme/car_1": "of-car-1", "acme/car_2": "of-car-2"},
		ACL:    rules,
		Extra:  "listener " + port + " 127.0.0.1\nuse_username_as_clientid true\n",
	})
	setBroker(config, m, obj{"username": "external_server", "password": "of-the-server"})
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
	// mosquitto grants every subscription and then sends nothing.
	spy := as2()
	if err := spy.Subscribe(1, "#", "acme/#", "+/+/external_server", "acme/car_1/external_server", "acme/car_2/external_server", "external_server/#"); err != nil {
		t.Fatal(err)
	}
	car.report(`{"pressed": true}`, button)
	car.await(1, 2, 3)
	if err := connectAs(t, spy, "car_2"); err != nil { // its own room is open to it
		t.Fatal(err)
	}
	for answered := false; !answered; {
		got, err := spy.Receive(testwait.Patience)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got.Topic, "acme/car_2/external_server") {
			t.Fatalf("car_2 reads %s", got.Topic)
		}
		answered = got.Topic == "acme/car_2/external_server"
	}
	// mosquitto acknowledges what it denies, and closes the connection.
	if err := connectAs(t, as2(), "car_1"); err != nil {
		t.Log(err)
	}
	for _, topic := range []string{"acme/car_1/external_server", "acme/car_1/external_server_disconnect", "acme/car_2/external_server", "external_server/es-x-0"} {
		if err := as2().Publish(topic, []byte("forged"), false); err != nil {
			t.Log(err)
		}
	}
	for i := range 5 {
		car.report(`{"pressed": false}`, button)
		car.await(1, 3+i, 3)
	}
	const denied = "Denied PUBLISH from acme/car_2"
	testwait.Until(t, "mosquitto tells of five messages that it has denied", func() bool { return strings.Count(m.Log(), denied) >= 5 })
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
	car.undisturbed()
	m.Kill() // its log is complete
	if n := strings.Count(m.Log(), denied); n != 5 {
		t.Errorf("mosquitto has denied %d messages, expected 5", n)
	}
	if denied := regexp.MustCompile(`Denied PUBLISH from [^a].*`).FindAllString(m.Log(), -1); denied != nil {
		t.Errorf("the rules deny the server what it needs: %q", denied)
	}
}

// connectAs begins a connect sequence as the gateway of a car.
func connectAs(t *testing.T, p *brokertest.Peer, name string) error {
	t.Helper()
	raw, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "hostile1", Devices: []fleet.Device{button}},
		fleet.CarID{Company: company, Car: name})
	if err != nil {
		t.Fatal(err)
	}
	return p.Publish(company+"/"+name+"/module_gateway", raw, false)
}

// undisturbed fails the test when the car has lost its session.
func (c *testCar) undisturbed() {
	c.t.Helper()
	c.watch.mu.Lock()
	defer c.watch.mu.Unlock()
	if c.watch.connected != 1 || len(c.watch.ends) > 0 {
		c.t.Errorf("the session of %v was disturbed: %d sessions, ends %q", c.Car(), c.watch.connected, c.watch.ends)
	}
}
