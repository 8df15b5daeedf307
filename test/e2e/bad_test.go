package e2e

import (
	"crypto/tls"
	"strings"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/protocol"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
)

// A broker that cannot be used is a clear warning with the reason and what to
// do; the server goes on trying and stops in an orderly way.
func TestUnusableBrokers(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, config obj)
		want    []string
	}{
		{"nobody listens", func(t *testing.T, config obj) {
			config["external_communication"].(obj)["server_port"] = 1
		}, []string{"no connection to the broker", "connection refused"}},
		{"unknown host", func(t *testing.T, config obj) {
			config["external_communication"].(obj)["server_address"] = "broker.invalid"
		}, []string{"no connection to the broker", "broker.invalid"}},
		{"refused credentials", func(t *testing.T, config obj) {
			m := brokertest.Start(t, brokertest.Options{Username: "fleet", Password: "right"})
			setBroker(config, m, obj{"username": "fleet", "password": "s3cret-wrong"})
		}, []string{"no connection to the broker", "user name"}},
		{"wrong CA", func(t *testing.T, config obj) {
			certs, others := brokertest.NewCerts(t), brokertest.NewCerts(t)
			m := brokertest.Start(t, brokertest.Options{Certs: certs})
			setBroker(config, m, obj{"ca_certs_file": others.CAFile, "cert_file": certs.Client.CertFile, "key_file": certs.Client.KeyFile})
		}, []string{"no connection to the broker", "certificate"}},
		{"expired certificate", func(t *testing.T, config obj) {
			certs := brokertest.NewCerts(t)
			m := brokertest.Start(t, brokertest.Options{Certs: certs, Expired: true})
			setBroker(config, m, obj{"ca_certs_file": certs.CAFile, "cert_file": certs.Client.CertFile, "key_file": certs.Client.KeyFile})
		}, []string{"no connection to the broker", "expired"}},
		{"TLS to a plain port", func(t *testing.T, config obj) {
			certs := brokertest.NewCerts(t)
			m := brokertest.Start(t, brokertest.Options{})
			setBroker(config, m, obj{"ca_certs_file": certs.CAFile, "cert_file": certs.Client.CertFile, "key_file": certs.Client.KeyFile})
		}, []string{"no connection to the broker"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := formatD("127.0.0.1:1", exampleModule(t), "car_a")
			c.prepare(t, config)
			s := servertest.Start(t, servertest.Options{Config: config})
			for _, want := range c.want {
				s.WaitLog(want)
			}
			if code := s.Stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if strings.Contains(s.Log(), "s3cret") {
				t.Error("the log contains the password")
			}
		})
	}
}

// Garbage of one car, or of a stranger in its name, is dropped without harm:
// the car's own session goes on, and so do the others (CONN-32, CONN-33, SESS-1,
// STAT-3, STAT-8).
func TestBadMessages(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	config := formatD(m.Address(), exampleModule(t), "car_a", "car_b")
	config["limits"] = obj{"payload_bytes": 100000}
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	a, b := startCar(t, open(m), "car_a"), startCar(t, open(m), "car_b")
	for _, c := range []*testCar{a, b} {
		c.report(`{"pressed": true}`, button)
		c.await(1, 1, 1)
	}
	peer, err := brokertest.Dial(brokertest.PeerOptions{Address: m.Address()})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	send := func(topic string, payload []byte, duplicate bool) {
		t.Helper()
		if err := peer.Publish(company+"/"+topic, payload, duplicate); err != nil {
			t.Fatal(err)
		}
	}
	encode := func(msg fleet.ClientMessage) []byte {
		t.Helper()
		payload, err := protocol.EncodeClient(msg, fleet.CarID{Company: company, Car: "car_a"})
		if err != nil {
			t.Fatal(err)
		}
		return payload
	}
	send("car_a/module_gateway", []byte("garbage"), false)
	send("car_a/module_gateway", []byte{0x12, 0xff, 0xff, 0xff, 0xff, 0x0f}, false)
	send("car_a/module_gateway", nil, false)
	send("car_a/module_gateway", make([]byte, 200000), false)
	send("car_x/module_gateway", []byte("unknown car"), false)
	for _, dup := range []bool{false, true} {
		send("car_a/module_gateway", encode(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "elsewhere", State: fleet.StateRunning, Counter: 7, Device: button}), dup)
		send("car_a/module_gateway", encode(fleet.ClientMessage{Kind: fleet.ClientCommandResponse, SessionID: "elsewhere", Counter: 99}), dup)
		send("car_a/module_gateway", encode(fleet.ClientMessage{Kind: fleet.ClientCommandResponse, Counter: 4000000000}), dup)
	}
	for _, c := range []*testCar{a, b} {
		_, before, _ := c.watch.get()
		for range 3 {
			c.report(`{"pressed": false}`, button)
		}
		c.await(1, before+3, 2)
		if n, _, _ := c.watch.get(); n != 1 {
			t.Errorf("car %v had %d sessions, expected its first one to go on", c.Car(), n)
		}
	}
	s.WaitLog("message of the gateway cannot be read")
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A library that returns an error for everything costs its own devices, which
// are then served without a module (REC-6); other modules work.
func TestLibraryThatRefusesEverything(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	modules := exampleModule(t)
	modules["77"] = obj{"lib_path": servertest.Probe(t), "config": obj{"rc": "-1", "wait": "-1", "destroy": "-1"}}
	s := servertest.Start(t, servertest.Options{Config: formatD(m.Address(), modules, "car_a")})
	s.WaitLog("connected to the broker")
	c := startCar(t, open(m), "car_a")
	c.report(`{"pressed": true}`, button, probe1)
	c.await(1, 2, 2)
	c.report(`{"pressed": false}`, button, probe1)
	c.await(1, 4, 3)
	s.WaitLog("device refused by its module")
	s.WaitLog("module failed to wait for commands")
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A certificate of the client that the broker does not accept is a clear reason.
func TestClientWithoutCertificate(t *testing.T) {
	t.Parallel()
	certs := brokertest.NewCerts(t)
	m := brokertest.Start(t, brokertest.Options{Certs: certs})
	config := formatD("127.0.0.1:1", exampleModule(t), "car_a")
	setBroker(config, m, obj{"ca_certs_file": certs.CAFile})
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("no connection to the broker")
	if _, err := tls.Dial("tcp", m.Address(), certs.ClientConfig(&certs.Client)); err != nil {
		t.Errorf("the broker itself: %v", err)
	}
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
