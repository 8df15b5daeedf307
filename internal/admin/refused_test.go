package admin_test

import (
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"

	"external-server/internal/broker"
)

// A broker that refuses a car's subscription: not ready, link_up 0, a reason at the car,
// an event, and all is well again without the car.
func TestRefusedSubscriptionIsSeen(t *testing.T) {
	b, err := broker.New(broker.Options{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
		Users: []broker.User{{Name: "server", Password: "x", Prefix: "acme/good"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	host, port, _ := net.SplitHostPort(b.Addr().String())
	number, _ := strconv.Atoi(port)
	edit := func(s settings) {
		delete(s, "embedded_broker")
		s["external_communication"] = settings{"server_address": host, "server_port": number, "username": "server", "password": "x", "timeout_ms": 30000}
	}
	r := newRig(t, edit, "bad", "good")
	refused := func() bool {
		return strings.Contains(r.do("GET", "/readyz", "").text(), "the broker refuses the subscription to acme/bad/module_gateway")
	}
	r.wait("readyz to name the topic", refused)
	if a := r.do("GET", "/readyz", ""); a.status != 503 {
		t.Errorf("readyz: %d", a.status)
	}
	var list struct {
		Cars []struct{ Name, Why string } `json:"cars"`
	}
	r.get("/api/v1/cars", &list)
	for _, c := range list.Cars {
		if says := strings.Contains(c.Why, "the broker refuses the subscription to acme/bad/module_gateway"); says != (c.Name == "bad") {
			t.Errorf("%s: %s", c.Name, c.Why)
		}
	}
	metrics := r.do("GET", "/metrics", "").text()
	for _, line := range []string{"external_server_link_up 0", "external_server_link_subscriptions_refused 1"} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	r.stream("/api/v1/events?after=0").next(func(ev sent) bool {
		return ev.kind == "link" && ev.data["reason"] == "subscription refused" && strings.Contains(ev.data["text"].(string), "acme/bad")
	})
	s := defaults(r.dir, "good")
	edit(s)
	r.write(s)
	if a := r.operate("POST", "/api/v1/reload", ""); a.status != 200 {
		t.Fatalf("reload: %d %s", a.status, a.text())
	}
	r.wait("the server to be ready without the car", func() bool { return r.do("GET", "/readyz", "").status == 200 })
}
