package e2e

import (
	"crypto/tls"
	"fmt"
	"testing"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// place is a kind of broker with what server and cars need to reach it.
type place struct {
	name    string
	prepare func(t *testing.T, config obj) gateway.Broker // completes the configuration
}

func places() []place {
	return []place{
		{"embedded broker", func(t *testing.T, config obj) gateway.Broker {
			address := brokertest.FreeAddress(t)
			delete(config, "external_communication")
			config["embedded_broker"] = obj{"listen": address}
			return gateway.Broker{Address: address}
		}},
		{"embedded broker with TLS and users", func(t *testing.T, config obj) gateway.Broker {
			certs := brokertest.NewCerts(t)
			address := brokertest.FreeAddress(t)
			delete(config, "external_communication")
			config["embedded_broker"] = obj{
				"listen": address,
				"tls":    obj{"cert_file": certs.Server.CertFile, "key_file": certs.Server.KeyFile},
				"users":  []obj{{"name": "server", "password": "s3cret-server"}, {"name": "cars", "password": "s3cret-cars"}},
			}
			return gateway.Broker{Address: address, TLS: &tls.Config{RootCAs: certs.Pool, ServerName: "localhost"}, Username: "cars", Password: "s3cret-cars"}
		}},
		{"mosquitto", func(t *testing.T, config obj) gateway.Broker {
			m := brokertest.Start(t, brokertest.Options{})
			setBroker(config, m, nil)
			return open(m)
		}},
		{"mosquitto with user and password", func(t *testing.T, config obj) gateway.Broker {
			m := brokertest.Start(t, brokertest.Options{Username: "fleet", Password: "s3cret-fleet"})
			setBroker(config, m, obj{"username": "fleet", "password": "s3cret-fleet"})
			return gateway.Broker{Address: m.Address(), Username: "fleet", Password: "s3cret-fleet"}
		}},
		{"mosquitto with mutual TLS", func(t *testing.T, config obj) gateway.Broker {
			certs := brokertest.NewCerts(t)
			m := brokertest.Start(t, brokertest.Options{Certs: certs})
			setBroker(config, m, obj{"ca_certs_file": certs.CAFile, "cert_file": certs.Client.CertFile, "key_file": certs.Client.KeyFile})
			return gateway.Broker{Address: m.Address(), TLS: certs.ClientConfig(&certs.Client)}
		}},
	}
}

func setBroker(config obj, m *brokertest.Mosquitto, more obj) {
	c := obj{"protocol": "MQTT", "server_address": "127.0.0.1", "server_port": m.Port(), "timeout_ms": 30000}
	for k, v := range more {
		c[k] = v
	}
	config["external_communication"] = c
}

// Every configured car is served at once: connect sequence, statuses, commands,
// and at the stop a notification for each (CLI-24).
func TestServesCarsOnEveryBroker(t *testing.T) {
	const cars, statuses = 12, 5
	for _, p := range places() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			var names []string
			for i := range cars {
				names = append(names, fmt.Sprintf("car_%d", i))
			}
			record := t.TempDir() + "/record"
			modules := exampleModule(t)
			modules["77"] = obj{"lib_path": servertest.Probe(t), "config": obj{"record": record}}
			config := formatD("127.0.0.1:1", modules, names...)
			broker := p.prepare(t, config)
			s := servertest.Start(t, servertest.Options{Config: config})
			s.WaitLog("connected to the broker")
			var fleet []*testCar
			for _, name := range names {
				c := startCar(t, broker, name)
				c.report(`{"pressed": true}`, button, probe1)
				fleet = append(fleet, c)
			}
			for _, c := range fleet {
				c.await(1, 2, 2)
				for range statuses {
					c.report(`{"pressed": false}`, button, probe1)
				}
			}
			for _, c := range fleet {
				c.await(1, 2+2*statuses, 4)
			}
			if code := s.Stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			for _, c := range fleet {
				testwait.Until(t, "the car is notified", func() bool { // it may have failed to come back since
					c.watch.mu.Lock()
					defer c.watch.mu.Unlock()
					return len(c.watch.ends) > 0
				})
				c.watch.mu.Lock()
				if first := c.watch.ends[0]; first != "disconnect notification" {
					t.Errorf("the session of car %v ended by %q, expected the notification", c.Car(), first)
				}
				c.watch.mu.Unlock()
			}
		})
	}
}
