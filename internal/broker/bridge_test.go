package broker_test

import (
	"fmt"
	"testing"

	"external-server/internal/broker"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// A stock mosquitto bridges to the broker, in both directions and without echo: its
// bridges say what they are by a bit of the protocol's level.
func TestMosquittoBridge(t *testing.T) {
	b, _ := start(t, broker.Options{})
	near := dial(t, b, brokertest.PeerOptions{})
	subscribe(t, near, "#")
	m := brokertest.Start(t, brokertest.Options{Extra: fmt.Sprintf("connection fleet\naddress %s\ntopic # both 1\nnotifications false\n", b.Addr())})
	far, err := brokertest.Dial(brokertest.PeerOptions{Address: m.Address()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Conn.Close() })
	subscribe(t, far, "#")
	testwait.Until(t, "the bridge stands", func() bool { return b.Stats().Subscriptions == 2 })
	for i := range 3 {
		publish(t, far, "from/far", fmt.Sprint(i))
		expect(t, far, "from/far", fmt.Sprint(i))
		expect(t, near, "from/far", fmt.Sprint(i))
		publish(t, near, "from/near", fmt.Sprint(i)) // behind an echo, if there is one
		expect(t, near, "from/near", fmt.Sprint(i))
		expect(t, far, "from/near", fmt.Sprint(i))
	}
}
