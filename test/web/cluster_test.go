package web

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// startCluster starts two replicas that share the cars, and gateways for these. The cars of
// one are taken over so long after its last sign of life.
func startCluster(t *testing.T, lease time.Duration, cars ...string) (replicas []*server) {
	t.Helper()
	broker, etcd, dir := brokertest.Start(t, brokertest.Options{}), etcdtest.Start(t, etcdtest.Options{}), t.TempDir()
	served := servertest.Map{}
	for _, name := range cars {
		served[name] = servertest.Map{}
	}
	for _, name := range []string{"east", "west"} {
		s := launch(t, servertest.Map{
			"company_name":           company,
			"external_communication": servertest.Map{"protocol": "MQTT", "server_address": "127.0.0.1", "server_port": broker.Port(), "timeout_ms": 30000},
			"admin":                  servertest.Map{"listen": "127.0.0.1:0"},
			"timeout":                30,
			"state_directory":        filepath.Join(dir, name),
			"cluster": servertest.Map{"etcd": []string{etcd.URL()}, "name": "fleet", "replica": name, "shards": 4, "lease_ms": lease.Milliseconds(),
				"peer_listen": brokertest.FreeAddress(t), "peer_token": "0123456789abcdef"},
			"common_modules": servertest.Map{"1000": servertest.Map{"lib_path": servertest.Example(t), "config": servertest.Map{"command_interval_ms": "2000"}}},
			"cars":           served,
			"logging": servertest.Map{
				"console": servertest.Map{"level": "INFO", "use": true}, "file": servertest.Map{"level": "INFO", "use": false},
			},
		}, broker.Address())
		replicas = append(replicas, s)
	}
	connect(t, &server{Server: replicas[0].Server, url: replicas[0].url, broker: gateway.Broker{Address: broker.Address()}}, cars)
	return replicas
}

// The page of any replica shows the cars of all, who serves them, the replicas and the
// shards; when a replica ends, its cars are at the other one.
func TestCluster(t *testing.T) {
	replicas := startCluster(t, 3*time.Second, "car_1", "car_2", "car_3", "car_4", "car_5", "car_6")
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

// The overview of any replica is that of all, and names the one that does not answer.
func TestOverviewOfACluster(t *testing.T) {
	replicas := startCluster(t, 20*time.Second, "car_1", "car_2", "car_3")
	b := newTab(t, 390, 844)
	b.open(replicas[1].url + "#/overview")
	b.says("h1", "All 3 cars are served.")
	b.says("[aria-labelledby=h-answers]", "of the slowest replica")
	type points struct {
		Points  []struct{ Replicas int }
		Missing []struct{ Replica, Reason string }
	}
	testwait.Until(t, "a point of both replicas", func() bool {
		p := get[points](t, replicas[1], "api/v1/history", "")
		return len(p.Points) > 0 && p.Points[len(p.Points)-1].Replicas == 2 && len(p.Missing) == 0
	})
	b.open(replicas[1].url + "#/log")
	b.until(`new Set([...document.querySelectorAll(".log .rows .c-name .muted")].map((e) => e.textContent)).size === 2`)
	b.fits()

	replicas[0].Signal(syscall.SIGSTOP) // it gives no answer, and its lease runs on for a while
	b.open(replicas[1].url + "#/overview")
	b.says(".bad:not([hidden])", "without replica east: no answer within 2s")
	b.fits()
	b.picture("overview-missing-phone")
	replicas[0].Kill()
	b.says("h1", "All 3 cars are served.")
	b.until(`document.querySelector(".page-overview > .bad").hidden`)
}
