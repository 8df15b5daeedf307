package web

import (
	"path/filepath"
	"testing"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// Cars whose sessions wait for a broker that is away are not called served or connected.
func TestSessionsWaitForTheBroker(t *testing.T) {
	t.Parallel()
	broker := brokertest.Start(t, brokertest.Options{})
	config := prepare(t, names(2), false, nil)
	delete(config, "embedded_broker")
	config["mqtt_address"], config["mqtt_port"] = "127.0.0.1", broker.Port()
	config["state_directory"] = filepath.Join(t.TempDir(), "state")
	s := launch(t, servertest.Map(config), broker.Address())
	connect(t, s, names(2))
	testwait.Until(t, "all gateways are connected", func() bool { return states(t, s, "")["running"] == 2 })
	b := newTab(t, 1360, 860)
	b.open(s.url + "#/overview")
	b.says("h1", "All 2 cars are served.")
	fleet := newTab(t, 1360, 860)
	fleet.open(s.url + "#/")
	fleet.says("h1", "All 2 cars are connected.")
	broker.Kill() // the sessions wait 25 s for it
	b.says("h1", "0 of 2 cars are served.")
	b.says(".figures", "2 wait for the broker")
	fleet.says("h1", "2 of 2 cars wait for the broker.")
}
