package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// A status that ends the process of the server whenever it is delivered is given up after
// a few deaths: the server serves again, with the sessions of all cars, and everything else
// that was answered is delivered (RES-17).
func TestPoisonedStatus(t *testing.T) {
	t.Parallel()
	record := filepath.Join(t.TempDir(), "record")
	library := servertest.Library(t, "test/faults/testdata/recorder.c")
	k := keep(t, 4, obj{"78": obj{"lib_path": library, "isolation": "none", "config": obj{"record": record, "poison": "poison"}}})
	admin := brokertest.FreeAddress(t)
	k.config["admin"] = obj{"listen": admin}
	k.device = fleet.Device{Module: 78, Type: 1, Role: "device", Name: "Device"}
	k.run()
	poisoned := k.cars[0]
	poisoned.report(`"poison"`, k.device)
	deaths := 0
	for {
		alive := k.server
		testwait.Until(t, "the server dies, or gives the status up and serves", func() bool {
			return !alive.Running() || k.said("it is not delivered any more") && k.said("connected to the broker")
		})
		if alive.Running() {
			break
		}
		if deaths++; deaths > 5 {
			t.Fatal("the server dies again and again")
		}
		k.start()
	}
	if deaths != 3 { // by the status itself, and twice soon after a resume
		t.Errorf("%d deaths", deaths)
	}
	k.served(5)
	k.halt()
	k.unnoticed()
	// What a car says last is delivered last.
	for _, c := range k.cars {
		c.report(fmt.Sprintf(`"last of %s"`, c.Car().Car), k.device)
	}
	testwait.Until(t, "the last statuses are delivered", func() bool {
		text, err := os.ReadFile(record)
		return err == nil && strings.Count(string(text), "last of") == len(k.cars)
	})
	if n := strings.Count(k.server.Log(), "it is not delivered any more"); n != 1 {
		t.Errorf("%d statuses were given up", n)
	}
	for path, want := range map[string]string{
		"/metrics":                           `external_server_statuses_given_up_total{reason="ended the server again and again"} 1`,
		"/api/v1/cars/" + poisoned.Car().Car: `"lost":1`,
	} {
		if got := get(t, "http://"+admin+path); !strings.Contains(got, want) {
			t.Errorf("%s does not tell %q of the status that was given up:\n%.3000s", path, want, got)
		}
	}
	stream, err := http.Get("http://" + admin + "/api/v1/events?after=0")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	events := bufio.NewScanner(stream.Body)
	for events.Scan() && !strings.Contains(events.Text(), `"reason":"statuses given up"`) {
	}
	if !strings.Contains(events.Text(), `"car":"`+poisoned.Car().Car+`"`) {
		t.Errorf("the event is %q, %v", events.Text(), events.Err())
	}
	k.terminate()
}

// A server that dies again and again before it has dealt with what it resumes begins without
// the journals; metrics and events say so (RES-17).
func TestJournalsSetAside(t *testing.T) {
	t.Parallel()
	k := keep(t, 2, exampleModule(t))
	admin := brokertest.FreeAddress(t)
	k.config["admin"] = obj{"listen": admin}
	k.run()
	k.server.Kill()
	k.broker.Kill() // what it held cannot be read
	for deaths := 0; ; deaths++ {
		k.start()
		k.server.WaitLog("serving company=")
		if k.said("died again and again") {
			break
		}
		if k.server.Kill(); deaths > 200 {
			t.Fatal("the journals are used again and again")
		}
	}
	if got := get(t, "http://"+admin+"/metrics"); !strings.Contains(got, `external_server_journals_set_aside_total{reason="the server died again and again"} 32`) {
		t.Errorf("the metrics do not tell of the journals that were set aside:\n%.3000s", got)
	}
	stream, err := http.Get("http://" + admin + "/api/v1/events?after=0")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	events := bufio.NewScanner(stream.Body)
	for events.Scan() && !strings.Contains(events.Text(), `"reason":"journals set aside"`) {
	}
	if !strings.Contains(events.Text(), filepath.Join(k.state, "poisoned-1")) {
		t.Errorf("the event is %q, %v", events.Text(), events.Err())
	}
	k.finish()
}
