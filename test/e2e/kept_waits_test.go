package e2e

import (
	"strings"
	"testing"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// A session that waits for the broker after a restart of the server is not taken for one
// that is served: the list of the cars says what it waits for.
func TestKeptSessionWaitsForTheBroker(t *testing.T) {
	t.Parallel()
	k := keep(t, 2, exampleModule(t))
	admin := brokertest.FreeAddress(t)
	k.config["admin"] = obj{"listen": admin}
	k.run()
	k.halt()
	k.terminate()
	k.broker.End()
	k.start()
	k.server.WaitLog("no connection to the broker")
	const waits = "no connection to the broker: "
	testwait.Until(t, "both cars wait for the broker", func() bool {
		list := get(t, "http://"+admin+"/api/v1/cars")
		return strings.Count(list, `"why":"`+waits) == 2 && (strings.Count(list, "its session waits for the connection") == 2 || !strings.Contains(list, `"state":"running"`))
	})
	if one := get(t, "http://"+admin+"/api/v1/cars/c_0"); !strings.Contains(one, waits) {
		t.Errorf("the details do not say so: %s", one)
	}
	k.terminate()
}
