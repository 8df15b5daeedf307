package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
)

func message(d fleet.Device, data string) string {
	return fmt.Sprintf(`{"device_id":{"module_id":%d,"type":%d,"role":%q,"name":%q},"payload":{"data":%s}}`, d.Module, d.Type, d.Role, d.Name, data)
}

type sentCommand struct {
	State, By, Response string
	Order               uint64
	Accepted, Queued    *time.Time
	Sent, Ended         *time.Time
	Payload             struct{ Data any }
}

// commands are those of a car, newest first.
func (r *rig) commands(car string) []sentCommand {
	r.t.Helper()
	var detail struct {
		Commands []sentCommand `json:"recent_commands"`
	}
	r.get("/api/v1/cars/"+car, &detail)
	return detail.Commands
}

// A command that an operator sends goes the way of POST /command: the HTTP API stores it,
// the module fetches it, the car answers; the car's page has all of it.
func TestSendCommand(t *testing.T) {
	r := newRig(t, nil, "car1", "car2")
	var targets struct {
		Available bool
		Reason    string
		Devices   []struct{ Role string }
	}
	r.get("/api/v1/cars/car1/commands", &targets)
	if targets.Available || !strings.Contains(targets.Reason, "knows no device of this car") {
		t.Errorf("before the first status: %+v", targets)
	}
	r.car("car1")
	r.wait("the device in the HTTP API", func() bool {
		r.get("/api/v1/cars/car1/commands", &targets)
		return targets.Available && len(targets.Devices) == 1 && targets.Devices[0].Role == "teleop"
	})
	var v any
	r.get("/api/v1/cars/car1/commands", &v)
	doc := openAPI(t)
	doc.check("CommandTargets", v)

	events := r.stream("/api/v1/events?after=0")
	a := r.operate("POST", "/api/v1/cars/car1/commands", message(teleop, ` {"go": 12345678901234567890, "a":1.50}`))
	if a.status != http.StatusAccepted {
		t.Fatalf("%d %s", a.status, a.text())
	}
	doc.check("SentCommand", decode(t, a.body))
	r.wait("the answer of the car", func() bool {
		c := r.commands("car1")
		return len(c) == 1 && c[0].State == "acknowledged"
	})
	c := r.commands("car1")[0]
	if c.By != "somebody on this machine" || c.Order != 1 || c.Accepted == nil || c.Queued == nil || c.Sent == nil || c.Ended == nil || c.Accepted.After(*c.Queued) || c.Sent.Before(*c.Queued) {
		t.Errorf("its life is %+v", c)
	}
	r.get("/api/v1/cars/car1", &v)
	doc.check("Car", v)
	told := events.next(kind("operator", "car1"))
	if text := told.data["text"].(string); !strings.Contains(text, `a command for module 3, role teleop: {"go": 12345678901234567890`) {
		t.Errorf("the event says %q", text)
	}
	if raw := r.do("GET", "/api/v1/cars/car1", "").text(); !strings.Contains(raw, `"go":12345678901234567890`) {
		t.Errorf("the number has changed on its way: %s", raw)
	}

	// What the HTTP API refuses is refused with its words, and the member is named.
	stranger, nobody := teleop, teleop
	stranger.Role, nobody.Role = "unknown", ""
	for _, bad := range []struct {
		car, body    string
		status       int
		field, words string
	}{
		{"car9", message(teleop, `{}`), 404, "", "car9 is not served"},
		{"car2", message(teleop, `{}`), 404, "", "car2"},
		{"car1", message(stranger, `{}`), 404, "", "unknown"},
		{"car1", message(nobody, `{}`), 400, "device_id.role", "role"},
		{"car1", message(teleop, `7`), 400, "payload.data", "data"},
		{"car1", strings.Replace(message(teleop, `{}`), `"data"`, `"encoding":"HEX","data"`, 1), 400, "payload.encoding", "HEX"},
		{"car1", strings.Replace(message(teleop, `{}`), `"data"`, `"message_type":"STATUS","data"`, 1), 400, "payload.message_type", "COMMAND"},
		{"car1", strings.Replace(message(teleop, `{}`), `"module_id":3`, `"module_id":4294967299`, 1), 404, "", ""},
		{"car1", ``, 400, "", "the body cannot be read"},
		{"car1", `[]`, 400, "", "expected one message such as"},
		{"car1", `{"device_id":{}}`, 400, "", "payload.data is missing"},
		{"car1", message(teleop, `{}`) + `{}`, 400, "", "after the message"},
		{"car1", strings.Replace(message(teleop, `{}`), `"data"`, `"date"`, 1), 400, "", `unknown field "date"`},
		{"car1", message(teleop, `"`+strings.Repeat("x", 70_000)+`"`), 400, "", "larger than"},
	} {
		a := r.operate("POST", "/api/v1/cars/"+bad.car+"/commands", bad.body)
		var p struct{ Detail, Field string }
		if err := json.Unmarshal(a.body, &p); err != nil || a.status != bad.status || p.Field != bad.field || !strings.Contains(p.Detail, bad.words) {
			t.Errorf("%s %.80s: %d %s", bad.car, bad.body, a.status, a.text())
		}
		doc.check("Problem", decode(t, a.body))
	}
	if n := len(r.commands("car1")); n != 1 {
		t.Errorf("%d commands are known after the refusals", n)
	}
}

// A built-in module's own rules are told before the command is stored, which the module
// would drop.
func TestSendCommandToMission(t *testing.T) {
	r := newRig(t, func(s settings) { s["common_modules"] = settings{"1": settings{"builtin": "mission"}} }, "car1")
	autonomy := fleet.Device{Module: 1, Type: 1, Role: "driving", Name: "Autonomy"}
	g := r.gateway("car1", gateway.Broker{})
	status := []byte(`{"state":"IDLE","telemetry":{"speed":0},"nextStop":null}`)
	g.Status(autonomy, status, time.Time{})
	r.wait("the device in the HTTP API", func() bool { return strings.Contains(r.do("GET", "/api/v1/cars/car1/commands", "").text(), "driving") })
	a := r.operate("POST", "/api/v1/cars/car1/commands", message(autonomy, `{"action":"START"}`))
	if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text(), `"field":"payload.data"`) || !strings.Contains(a.text(), "the module mission refuses it: member stops is missing") {
		t.Errorf("%d %s", a.status, a.text())
	}
	// Two orders, the same words in another order of members: each has its own life.
	for range 2 {
		if a := r.operate("POST", "/api/v1/cars/car1/commands", message(autonomy, `{"stops":[],"route":"r","action":"START"}`)); a.status != http.StatusAccepted {
			t.Fatalf("%d %s", a.status, a.text())
		}
	}
	r.wait("both answers", func() bool {
		c := r.commands("car1")
		return len(c) == 2 && c[0].State == "acknowledged" && c[1].State == "acknowledged" && c[0].Order == 2 && c[1].Order == 1
	})
}

func TestSendCommandWithoutAPIOrRight(t *testing.T) {
	r := newRig(t, func(s settings) {
		delete(s, "http_api")
		s["common_modules"] = settings{"3": settings{"builtin": "transparent", "config": settings{"api_url": "http://127.0.0.1:9", "api_key": "k"}}}
		s["admin"].(settings)["tokens"] = tokens("r:read:reader", "o:operate:operator")
	}, "car1")
	a := r.do("GET", "/api/v1/cars/car1/commands", "", "Authorization", "Bearer reader")
	if a.status != 200 || !strings.Contains(a.text(), `"available":false`) || !strings.Contains(a.text(), "block http_api of the configuration") {
		t.Errorf("%d %s", a.status, a.text())
	}
	for token, status := range map[string]int{"reader": 403, "operator": 409, "nobody": 401} {
		if a := r.do("POST", "/api/v1/cars/car1/commands", message(teleop, `{}`), "Authorization", "Bearer "+token); a.status != status {
			t.Errorf("%s: %d %s", token, a.status, a.text())
		}
	}
}
