package faults

import (
	"os"
	"time"

	"external-server/internal/support/brokertest"
)

// manyCars starts broker, server and a fleet of one module.
func (r *rig) manyCars(full, short int, withProxy bool) {
	r.Helper()
	r.startBroker(withProxy, brokertest.Options{})
	cars := fleetOf("car", r.size(full, short), recorder, nil)
	r.configure(cars)
	r.startServer()
	r.server.WaitLog("connected to the broker")
	r.startCars(cars, r.period())
}

// period is how often a car reports: such that a large fleet sends 200 statuses a
// second.
func (r *rig) period() time.Duration { return r.during(5*time.Second, 200*time.Millisecond) }

func brokerFaults() []scenario {
	return []scenario{
		// CONN-23, CONN-25, CONN-26, SM-4: sessions end, topics are subscribed again.
		{"broker-kill", "mosquitto killed, back after 3 s", true, func(r *rig) {
			r.manyCars(1000, 20, false)
			r.broker.Kill()
			pause(r.during(3*time.Second, time.Second))
			r.broker.Restart()
			r.recovered(time.Now())
			r.finish("")
		}},
		{"broker-restart", "mosquitto killed and restarted at once, three times", false, func(r *rig) {
			r.manyCars(1000, 20, false)
			for range 3 {
				r.broker.Kill()
				r.broker.Restart()
				pause(10 * time.Second)
			}
			r.recovered(time.Now())
			r.finish("")
		}},
		// CONN-6: the silence is noticed by the keepalive.
		{"broker-halt", "mosquitto halted (SIGSTOP) for 40 s", false, func(r *rig) {
			r.manyCars(1000, 20, false)
			r.broker.Stop()
			pause(40 * time.Second)
			r.broker.Continue()
			r.recovered(time.Now())
			r.finish("")
		}},
		// CONN-24, REC-5: tried for ever.
		{"broker-down-at-start", "no broker at the start, then one", false, func(r *rig) {
			r.startBroker(false, brokertest.Options{})
			r.broker.Kill()
			cars := fleetOf("car", r.size(100, 10), recorder, nil)
			r.configure(cars)
			r.startServer()
			r.server.WaitLog("connection refused")
			pause(10 * time.Second)
			at := time.Now()
			r.broker.Restart()
			r.startCars(cars, r.period())
			r.recovered(at)
			r.finish("")
		}},
		// CONN-31: what cannot be verified is not used.
		{"certificate-expired", "certificate of the broker expires, renewed after 10 s", true, func(r *rig) {
			certs := brokertest.NewCerts(r)
			r.startBroker(false, brokertest.Options{Certs: certs})
			cars := fleetOf("car", r.size(50, 5), recorder, nil)
			r.configure(cars)
			r.config["external_communication"].(obj)["server_address"] = "localhost"
			for k, v := range map[string]string{"ca_certs_file": certs.CAFile, "cert_file": certs.Client.CertFile, "key_file": certs.Client.KeyFile} {
				r.config["external_communication"].(obj)[k] = v
			}
			r.startServer()
			r.server.WaitLog("connected to the broker")
			r.tls = certs.ClientConfig(&certs.Client)
			r.tls.ServerName = "localhost"
			r.startCars(cars, r.period())
			good := r.read(certs.Server.CertFile)
			goodKey := r.read(certs.Server.KeyFile)
			r.broker.Kill()
			r.write(certs.Server.CertFile, r.read(certs.ServerExpired.CertFile))
			r.write(certs.Server.KeyFile, r.read(certs.ServerExpired.KeyFile))
			r.broker.Restart()
			r.server.WaitLog("expired")
			pause(r.during(10*time.Second, time.Second))
			r.broker.Kill()
			r.write(certs.Server.CertFile, good)
			r.write(certs.Server.KeyFile, goodKey)
			r.broker.Restart()
			r.recovered(time.Now())
			r.finish("")
		}},
	}
}

func (r *rig) read(path string) []byte {
	r.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		r.Fatal(err)
	}
	return b
}

func (r *rig) write(path string, content []byte) {
	r.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		r.Fatal(err)
	}
}
