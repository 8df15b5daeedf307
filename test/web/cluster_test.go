package web

import (
	"path/filepath"
	"testing"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/servertest"
)

// The page of any replica shows the cars of all, who serves them, the replicas and the
// shards; when a replica ends, its cars are at the other one.
func TestCluster(t *testing.T) {
	broker, etcd := brokertest.Start(t, brokertest.Options{}), etcdtest.Start(t, etcdtest.Options{})
	cars, dir := []string{"car_1", "car_2", "car_3", "car_4", "car_5", "car_6"}, t.TempDir()
	served := servertest.Map{}
	for _, name := range cars {
		served[name] = servertest.Map{}
	}
	var replicas []*server
	for _, name := range []string{"east", "west"} {
		s := launch(t, servertest.Map{
			"company_name":           company,
			"external_communication": servertest.Map{"protocol": "MQTT", "server_address": "127.0.0.1", "server_port": broker.Port(), "timeout_ms": 30000},
			"admin":                  servertest.Map{"listen": "127.0.0.1:0"},
			"timeout":                10,
			"state_directory":        filepath.Join(dir, name),
			"cluster": servertest.Map{"etcd": []string{etcd.URL()}, "name": "fleet", "replica": name, "shards": 4,
				"peer_listen": freeAddress(t), "peer_token": "0123456789abcdef"},
			"common_modules": servertest.Map{"1000": servertest.Map{"lib_path": servertest.Example(t), "config": servertest.Map{"command_interval_ms": "2000"}}},
			"cars":           served,
			"logging": servertest.Map{
				"console": servertest.Map{"level": "INFO", "use": true}, "file": servertest.Map{"level": "INFO", "use": false},
			},
		}, broker.Address())
		replicas = append(replicas, s)
	}
	connect(t, &server{Server: replicas[0].Server, url: replicas[0].url, broker: gateway.Broker{Address: broker.Address()}}, cars)
	b := newTab(t, 1280, 900)
	b.open(replicas[0].url + "#/")
	const rows = `[...document.querySelectorAll(".cars .rows [role=row]")]`
	b.until(rows + `.length === 6`)
	// Shards move to who joined last only after a while, so one replica may have all.
	b.until(rows + `.every((row) => /^(east|west) · [0-9]+$/.test(row.querySelector(".c-replica").textContent))`)
	b.fits()
	b.open(replicas[0].url + "#/server")
	const lines = `[...document.querySelectorAll("#h-replicas ~ .scroll tbody tr")]`
	b.until(lines + `.map((tr) => tr.cells[0].textContent + " " + tr.cells[1].textContent).sort().join() === "east (this one) ready,west ready"`)
	b.until(`document.querySelectorAll("#h-shards ~ .scroll tbody tr").length === 4`)
	b.until(`[...document.querySelectorAll("#h-shards ~ .scroll tbody tr")].every((tr) => /^(east|west)$/.test(tr.cells[1].textContent))`)
	b.fits()
	// The one that serves most ends; the page of the other shows all cars there.
	b.open(replicas[1].url + "#/")
	b.until(rows + `.length === 6`)
	replicas[0].Stop()
	b.until(rows + `.length === 6 && ` + rows + `.every((row) => /^west · [0-9]+$/.test(row.querySelector(".c-replica").textContent))`)
}
