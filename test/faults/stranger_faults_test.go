package faults

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/protocol"
	"external-server/internal/support/brokertest"
)

func strangerFaults() []scenario {
	return []scenario{
		// CONN-2, CONN-32, CONN-33, REC-14, REC-25, SESS-5, STAT-3.
		{"flood", "a stranger floods the topics of one car for 20 s: malformed, oversized, foreign, replayed", true, func(r *rig) {
			r.startBroker(false, brokertest.Options{})
			cars := fleetOf("other", r.size(100, 10), recorder, nil)
			r.configure(fleetOf("victim", 1, recorder, fleetOf("other", len(cars), recorder, nil)))
			r.startServer()
			r.server.WaitLog("connected to the broker")
			r.startCars(cars, r.during(time.Second, 200*time.Millisecond))
			peer, err := brokertest.Dial(brokertest.PeerOptions{Address: r.broker.Address()})
			if err != nil {
				r.Fatal(err)
			}
			victim := company + "/victim_0000/module_gateway"
			sent := 0
			for end := time.Now().Add(r.during(20*time.Second, 3*time.Second)); time.Now().Before(end); sent++ {
				topic, payload := victim, hostile(sent)
				if sent%7 == 0 {
					topic = fmt.Sprintf("%s/nobody_%d/module_gateway", company, sent)
				}
				if err := peer.Send(topic, payload); err != nil {
					r.Fatal(err)
				}
				if sent%100 == 0 { // as fast as the broker takes it
					if err := peer.Ping(); err != nil {
						r.Fatal(err)
					}
				}
			}
			_ = peer.Close()
			r.recovered(time.Now())
			r.unaffected(r.crew.cars)
			r.row.Note = fmt.Sprintf("%d messages", sent)
			if n := strings.Count(r.server.Log(), "victim_0000"); n > 500 {
				r.Errorf("the stranger caused %d log lines", n)
			}
			r.finish("")
		}},
		// CLI-25, REC-14.
		{"bad-reload", "reload of a broken configuration, then of a good one with another car", true, func(r *rig) {
			r.manyCars(50, 5, false)
			good := r.config
			r.write(r.server.ConfigPath, []byte(`{"company_name": 7`))
			r.reload()
			r.server.WaitLog("config.json:1:")
			broken := obj{}
			for k, v := range good {
				broken[k] = v
			}
			broken["cars"] = obj{"car_0000": obj{"specific_modules": obj{"78": obj{"lib_path": r.dir + "/missing.so"}}}}
			writeConfig(r, broken)
			r.reload()
			r.server.WaitLog("missing.so")
			good["cars"].(obj)["added"] = obj{"specific_modules": obj{fmt.Sprint(recorder): r.module(recorder)}}
			writeConfig(r, good)
			r.reload()
			r.server.WaitLog("1 cars added")
			r.recovered(time.Now())
			r.unaffected(r.crew.cars)
			r.finish("")
		}},
	}
}

// hostile returns the nth message of a stranger.
func hostile(n int) []byte {
	encode := func(m fleet.ClientMessage) []byte {
		b, err := protocol.EncodeClient(m, fleet.CarID{Company: company, Car: "victim_0000"})
		if err != nil {
			return nil
		}
		return b
	}
	device := fleet.Device{Module: recorder, Type: 1, Role: "device", Name: "Device"}
	switch n % 10 {
	case 0:
		return bytes.Repeat([]byte{0xff}, n%512)
	case 1:
		return nil
	case 2:
		if n%50 == 2 {
			return make([]byte, 2<<20) // beyond limits.payload_bytes
		}
		return []byte("\x0a\xff\xff\xff\xff\x0f")
	case 3:
		return encode(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "foreign", Counter: uint32(n), State: fleet.StateRunning, Device: device, Data: []byte("x")})
	case 4:
		return encode(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: fmt.Sprint("s", n), Devices: []fleet.Device{device}})
	case 5:
		return encode(fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "replayed", Devices: []fleet.Device{device}})
	case 6:
		return encode(fleet.ClientMessage{Kind: fleet.ClientCommandResponse, SessionID: "replayed", Counter: uint32(n)})
	default:
		return encode(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "replayed", Counter: uint32(n % 5), State: fleet.StateRunning, Device: device, Data: []byte(os.DevNull)})
	}
}
