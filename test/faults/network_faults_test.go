package faults

import (
	"fmt"
	"os"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

func networkFaults() []scenario {
	return []scenario{
		// CONN-7, CONN-25, DEF-20: a clean session each time, nothing of the old one is sent.
		{"tcp-cut", "connection to the broker cut every 2 s for 20 s", true, func(r *rig) {
			r.manyCars(300, 20, true)
			for range r.size(10, 2) {
				r.way.Cut()
				pause(2 * time.Second)
			}
			r.recovered(time.Now())
			r.finish("")
		}},
		// SESS-7, GW-42: slow is not lost.
		{"tcp-slow", "connection to the broker at 20 kB/s and 100 ms for 30 s", false, func(r *rig) {
			r.manyCars(100, 10, true)
			r.way.Set(badnetwork.Faults{Rate: 20_000, Latency: 100 * time.Millisecond})
			pause(30 * time.Second)
			r.way.Set(badnetwork.Faults{})
			r.recovered(time.Now())
			r.finish("")
		}},
		// CONN-6, DEF-20.
		{"tcp-half-open", "connection to the broker silent for 60 s without being closed", false, func(r *rig) {
			r.manyCars(300, 10, true)
			r.way.Set(badnetwork.Faults{Silent: true})
			pause(60 * time.Second)
			r.way.Set(badnetwork.Faults{})
			r.recovered(time.Now())
			r.finish("")
		}},
		{"tcp-trickle", "connection to the broker at 1 byte/s for 40 s", false, func(r *rig) {
			r.manyCars(100, 10, true)
			r.way.Set(badnetwork.Faults{Rate: 1})
			pause(40 * time.Second)
			r.way.Set(badnetwork.Faults{})
			r.recovered(time.Now())
			r.finish("")
		}},
		// REC-14, DEF-21: on a shared connection no car waits for another one.
		{"car-trickle", "one car at 1 byte/s, half-open and cut", true, func(r *rig) {
			r.startBroker(false, brokertest.Options{})
			cars := fleetOf("other", r.size(300, 10), recorder, nil)
			all := fleetOf("poor", 1, recorder, fleetOf("other", len(cars), recorder, nil))
			r.configure(all)
			r.startServer()
			r.server.WaitLog("connected to the broker")
			r.startCars(cars, r.period())
			air := badnetwork.New(r, r.broker.Address())
			poor := newCar(r, carOptions{name: "poor_0000", module: recorder, broker: gateway.Broker{Address: air.Address()}, timing: r.timing()})
			r.Cleanup(poor.Close)
			r.crew.halt()
			r.crew.cars = append(r.crew.cars, poor)
			r.crew.start(r.period())
			r.crew.served(time.Now(), testwait.Patience)
			for _, n := range []badnetwork.Faults{{Rate: 1}, {Silent: true}} {
				air.Set(n)
				pause(r.during(20*time.Second, time.Second))
				air.Cut()
			}
			air.Set(badnetwork.Faults{})
			r.recovered(time.Now())
			r.unaffected(r.group("other"))
			r.finish("")
		}},
		{"dns-failure", "name of the broker does not resolve for 15 s", false, func(r *rig) {
			r.startBroker(true, brokertest.Options{})
			cars := fleetOf("car", r.size(100, 10), recorder, nil)
			r.configure(cars)
			r.config["external_communication"].(obj)["server_address"] = "broker.fleet.test"
			hosts, resolver := r.dir+"/hosts", r.dir+"/resolv.conf"
			r.write(hosts, []byte("127.0.0.1 localhost broker.fleet.test\n"))
			r.write(resolver, []byte("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"))
			r.opts.Prefix = r.inMountNamespace(fmt.Sprintf("mount --bind %s /etc/hosts && mount --bind %s /etc/resolv.conf", hosts, resolver))
			r.startServer()
			r.server.WaitLog("connected to the broker")
			r.startCars(cars, r.period())
			r.write(hosts, []byte("127.0.0.1 localhost\n"))
			pause(6 * time.Second) // the resolver remembers the file for 5 s
			r.way.Cut()
			r.server.WaitLog("broker.fleet.test")
			pause(15 * time.Second)
			r.write(hosts, []byte("127.0.0.1 localhost broker.fleet.test\n"))
			r.recovered(time.Now())
			r.finish("")
		}},
	}
}

// inMountNamespace returns a prefix that runs the server after a shell command that
// changes mounts, which no other process sees.
func (r *rig) inMountNamespace(command string) []string {
	r.Helper()
	if os.Geteuid() != 0 {
		r.Fatal("this fault needs root: it changes mounts in a name space of the server's own")
	}
	return []string{"unshare", "--mount", "sh", "-c", command + ` && exec "$@"`, "sh"}
}
