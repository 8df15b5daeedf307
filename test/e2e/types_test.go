package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/protocol"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// A car may list a thousand device types that its library takes long to judge: the
// other cars of the same connection to the broker do not wait. Here the library
// answers the first question only when the other car has had a hundred answers.
func TestSlowTypesDelayNoOtherCar(t *testing.T) {
	for _, isolation := range []string{"none", "process"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			m := brokertest.Start(t, brokertest.Options{})
			dir := t.TempDir()
			asked, released := filepath.Join(dir, "asked"), filepath.Join(dir, "released")
			library := servertest.Library(t, "test/e2e/testdata/slow_types.c")
			modules := obj{"77": obj{"lib_path": library, "isolation": isolation}}
			s := servertest.Start(t, servertest.Options{
				Config: formatD(m.Address(), modules, "car_a", "car_b"),
				Env:    []string{"TYPES_ASKED=" + asked, "TYPES_RELEASED=" + released},
			})
			s.WaitLog("connected to the broker")
			b := startCar(t, open(m), "car_b")
			b.report("first", probe1)
			b.await(1, 1, 1)

			connect := fleet.ClientMessage{Kind: fleet.ClientConnect, SessionID: "many"}
			for i := range uint32(1000) {
				connect.Devices = append(connect.Devices, fleet.Device{Module: 77, Type: 1000 + i, Role: fmt.Sprintf("r%d", i), Name: "n"})
			}
			payload, err := protocol.EncodeClient(connect, fleet.CarID{Company: company, Car: "car_a"})
			if err != nil {
				t.Fatal(err)
			}
			peer, err := brokertest.Dial(brokertest.PeerOptions{Address: m.Address()})
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			if err := peer.Subscribe(1, company+"/car_a/external_server"); err != nil {
				t.Fatal(err)
			}
			if err := peer.Publish(company+"/car_a/module_gateway", payload, false); err != nil {
				t.Fatal(err)
			}
			exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
			testwait.Until(t, "the library is asked", func() bool { return exists(asked) })
			for n := range 100 {
				b.report(fmt.Sprint(n), probe1)
				b.await(1, n+2, 1)
			}
			if err := os.WriteFile(released, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			answer, err := peer.Receive(testwait.Patience)
			if err != nil {
				t.Fatalf("car_a gets no answer: %v", err)
			}
			if got, err := protocol.DecodeServer(answer.Payload); err != nil || got.Kind != fleet.ServerConnectResponse || got.SessionID != "many" {
				t.Errorf("car_a gets %+v, %v; expected the response to its Connect", got, err)
			}
			if connected, _, _ := b.watch.get(); connected != 1 {
				t.Errorf("car_b had %d sessions, expected its first one to go on", connected)
			}
			if code := s.Stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
