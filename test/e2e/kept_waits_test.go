package e2e

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// A queue of the broker that was too short is told with what to look at, and the car is
// served again.
func TestBrokersQueueOverflows(t *testing.T) {
	t.Parallel()
	k := keep(t, 1, exampleModule(t))
	k.broker = brokertest.Start(t, defaults(t, "max_queued_messages 5\n"))
	setBroker(k.config, k.broker, obj{})
	k.run()
	k.cars[0].lostIsExpected() // what the broker drops is not answered
	k.terminate()
	testwait.Until(t, "the broker drops messages", func() bool { return strings.Contains(k.broker.Log(), "being dropped") })
	k.start()
	k.server.WaitLog("was its queue full?")
	k.connectedAnew(2, k.cars...)
	k.served(5)
	k.finish()
}

// Sessions that go on are counted, with the time for which they were out of reach, and are
// events.
func TestResumedIsCounted(t *testing.T) {
	t.Parallel()
	k := keep(t, 3, exampleModule(t))
	admin := brokertest.FreeAddress(t)
	k.config["admin"] = obj{"listen": admin}
	k.run()
	k.terminate()
	k.again()
	metrics := get(t, "http://"+admin+"/metrics")
	for _, line := range []string{"external_server_sessions_resumed_total 3", "external_server_session_silence_seconds_count 3", "external_server_link_sessions_declined 0"} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("the metrics have no line %q", line)
		}
	}
	stream, err := http.Get("http://" + admin + "/api/v1/events?after=0")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	resumed := 0
	for lines := bufio.NewScanner(stream.Body); resumed < 3 && lines.Scan(); {
		if strings.Contains(lines.Text(), `"kind":"resumed"`) {
			resumed++
		}
	}
	if resumed != 3 {
		t.Errorf("%d events of resumed sessions", resumed)
	}
	k.finishUnnoticed()
}

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
		return strings.Count(list, `"why":"`+waits) == 2 && strings.Count(list, "its session waits for the connection") == 2
	})
	if one := get(t, "http://"+admin+"/api/v1/cars/c_0"); !strings.Contains(one, waits) {
		t.Errorf("the details do not say so: %s", one)
	}
	const counts = "2 cars: 2 running (2 of these wait for the broker), 0 connecting, 0 waiting"
	if out, errs, _ := servertest.Run(t, t.TempDir(), "cars", "--admin", "http://"+admin); !strings.Contains(out, counts) {
		t.Errorf("cars prints\n%s%s\nexpected %q", out, errs, counts)
	}
	k.terminate()
}
