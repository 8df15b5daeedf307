package e2e

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"external-server/internal/session"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// contended starts a car whose gateway sees what it must not see.
func contended(t *testing.T, m *brokertest.Mosquitto, name string) *testCar {
	c := startCar(t, open(m), name)
	t.Cleanup(func() { // before that of startCar
		c.Close()
		c.watch.mu.Lock()
		defer c.watch.mu.Unlock()
		c.watch.violations = nil
	})
	return c
}

// withAdmin adds an admin endpoint to a configuration.
func withAdmin(t *testing.T, config obj) (with obj, address string) {
	with, address = maps.Clone(config), brokertest.FreeAddress(t)
	with["admin"] = obj{"listen": address}
	return with, address
}

// told waits until the server gives one of the warnings, in its log and as the reason that
// the admin endpoint shows, and fails if it gives one of the others.
func told(t *testing.T, s *servertest.Server, admin string, cars []*testCar, want ...session.Note) {
	t.Helper()
	said := func(n session.Note) bool { return strings.Contains(s.Log(), string(n)) }
	testwait.Until(t, "the warning", func() bool {
		for _, c := range cars {
			c.report(`{"pressed": true}`, button)
		}
		return slices.ContainsFunc(want, said)
	})
	for _, n := range session.ContentionNotes() {
		if said(n) && !slices.Contains(want, n) {
			t.Errorf("the server says %q, which is not so", n)
		}
	}
	testwait.Until(t, "the reason at the car", func() bool {
		return slices.ContainsFunc(want, func(n session.Note) bool { return strings.Contains(get(t, "http://"+admin+"/api/v1/cars"), string(n)) })
	})
}

func get(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Two gateways with the name of one car: a warning says so, or that it is one of the
// possible reasons, and no other party is blamed.
func TestTwoGatewaysWithOneName(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	config, admin := withAdmin(t, formatD(m.Address(), exampleModule(t), "car_a", "car_b"))
	s := servertest.Start(t, servertest.Options{Config: config})
	s.WaitLog("connected to the broker")
	cars := []*testCar{contended(t, m, "car_a"), contended(t, m, "car_a")}
	told(t, s, admin, cars, session.NoteTwoGateways, session.NoteSessionsShort)
	if code := s.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Two servers for one car: both say so, or that it is one of the possible reasons.
func TestTwoServersForOneCar(t *testing.T) {
	t.Parallel()
	m := brokertest.Start(t, brokertest.Options{})
	config := formatD(m.Address(), exampleModule(t), "car_a", "car_b")
	var servers []*servertest.Server
	var admins []string
	for range 2 {
		with, admin := withAdmin(t, config)
		s := servertest.Start(t, servertest.Options{Config: with})
		s.WaitLog("connected to the broker")
		servers, admins = append(servers, s), append(admins, admin)
	}
	cars := []*testCar{contended(t, m, "car_a")}
	for i, s := range servers {
		told(t, s, admins[i], cars, session.NoteTwoServers, session.NoteSessionsShort)
	}
	for _, s := range servers {
		if code := s.Stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}
