package web

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// After a restart that no car has noticed, the page says which sessions go on and since
// when: in the list, on the page of the car and among the events.
func TestResumedSessions(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	config := servertest.Map{
		"company_name":           company,
		"external_communication": servertest.Map{"protocol": "MQTT", "server_address": "127.0.0.1", "server_port": m.Port()},
		"state_directory":        filepath.Join(t.TempDir(), "state"),
		"admin":                  servertest.Map{"listen": brokertest.FreeAddress(t)}, // one that no connection gets meanwhile
		"timeout":                30,
		"common_modules":         servertest.Map{"1000": servertest.Map{"lib_path": servertest.Example(t), "config": servertest.Map{"command_interval_ms": "2000"}}},
		"cars":                   servertest.Map{"car_0000": servertest.Map{}, "car_0001": servertest.Map{}},
		"logging": servertest.Map{
			"console": servertest.Map{"level": "INFO", "use": true}, "file": servertest.Map{"level": "INFO", "use": false},
		},
	}
	s := launch(t, config, m.Address())
	b := newTab(t, 1200, 800)
	for _, gone := range []string{"ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"} {
		b.expect(gone)
	}
	b.open(s.url)
	gateways := connect(t, s, names(2))
	testwait.Until(t, "both sessions run", func() bool { return states(t, s, "")["running"] == 2 })
	b.says("h1", "All 2 cars are connected.")
	if eval[bool](b, `document.body.innerText.includes("resumed")`) {
		t.Error("a session is said to be resumed before the restart")
	}

	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s = launch(t, config, m.Address())
	for _, g := range gateways {
		g.Status(button1, []byte(`{"pressed": true}`), time.Time{})
	}
	resumed := func(car string) string {
		return fmt.Sprintf(`[...document.querySelectorAll("[role=row]")].some((r) => r.innerText.includes(%q) && /resumed \d.* ago/.test(r.innerText))`, car)
	}
	b.until(resumed("car_0000"))
	b.until(resumed("car_0001"))
	b.says("h1", "All 2 cars are connected.")
	b.picture("resumed")
	b.open(s.url + "#/car/car_0001")
	b.until(`/Resumed\s+\d.* ago/.test(document.querySelector("main").innerText)`)
	b.open(s.url + "#/events")
	b.until(`document.querySelector("main").innerText.includes("its session goes on after")`)
}
