package web

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

var panel = fleet.Device{Module: 2, Type: 4, Role: "panel", Name: strings.Repeat("a long name of a panel ", 8)}

// write puts a value into the field of that label, of the nth group of fields.
func (b *tab) write(label, value string, group int) {
	b.t.Helper()
	field := fmt.Sprintf(`[...document.querySelectorAll(".send label")].filter((l) => l.innerText === %q)[%d].control`, label, group)
	b.until(field)
	eval[any](b, fmt.Sprintf(`void (() => { const f = %s; f.value = %q; f.dispatchEvent(new Event("change", { bubbles: true })); })()`, field, value))
}

// newest waits until the newest command of the page has these words in its life.
func (b *tab) newest(words ...string) {
	b.t.Helper()
	for _, w := range words {
		b.until(fmt.Sprintf(`document.querySelector(".commands > li")?.innerText.includes(%q)`, w))
	}
}

func (b *tab) send() {
	b.t.Helper()
	b.press(button("Send …"))
	b.press(`document.querySelector("dialog button.danger")`)
	b.says("#toasts", "the HTTP API has accepted the command")
	b.until(`!document.querySelector("dialog")`)
}

// An operator sends commands from the page of a car, with fields for the mission and the
// I/O module and as JSON, at a desk and on a phone, and sees what becomes of each.
func TestSendCommand(t *testing.T) {
	t.Parallel()
	config := prepare(t, names(2), true, nil)
	config["common_modules"] = servertest.Map{"1": servertest.Map{"builtin": "mission"}, "2": servertest.Map{"builtin": "io"}, "3": servertest.Map{"builtin": "transparent"}}
	s := launch(t, config, config["embedded_broker"].(servertest.Map)["listen"].(string))
	g := connect(t, s, names(1))["car_0000"]
	stand(g, 49.1951, 16.6068)
	g.Status(panel, []byte(`[[],[],{"butPr":0}]`), time.Time{})
	g.Status(fleet.Device{Module: 3, Type: 7, Role: "teleop", Name: "Teleop"}, []byte(`{}`), time.Time{})
	testwait.Until(t, "the devices in the HTTP API", func() bool {
		type targets struct{ Devices []any }
		return len(get[targets](t, s, "api/v1/cars/car_0000/commands", "").Devices) == 3
	})
	b := newTab(t, 1360, 860)
	b.expect("422")
	b.open(s.url + "#/car/car_0000")
	b.press(`document.querySelector(".sender summary")`)

	// A fault is said at its field, which has the focus, and nothing is sent.
	b.press(button("Send …"))
	b.says(".send", "START needs a stop or a route.")
	b.press(button("Add stop"))
	b.write("Name", "Hlavní", 0)
	b.write("Latitude", "49,2", 0)
	b.write("Longitude", "216", 0)
	b.press(button("Send …"))
	b.until(`document.activeElement.ariaInvalid === "true" && document.querySelector("#" + document.activeElement.getAttribute("aria-describedby")).innerText === "Expected a number from -180 to 180, not “216”."`)
	b.picture("send-fault")
	b.write("Longitude", "16.6", 0)
	b.press(button("Send …"))
	b.says("dialog", "Send START to autonomy of car_0000?")
	b.says("dialog pre", `{"action":"START","route":"","stops":[{"name":"Hlavní","position":{"latitude":49.2,"longitude":16.6,"altitude":0}}]}`)
	b.picture("send-confirm")
	b.press(`[...document.querySelectorAll("dialog button")].find((b) => b.innerText === "Cancel")`)
	b.until(`!document.querySelector("dialog")`)
	b.send()
	b.newest("accepted, sent by somebody on this machine", "fetched by the module after", "sent as", "acknowledged")
	b.picture("send-acknowledged")

	// The same as JSON; the module's own rules are told at the field.
	b.until(`document.querySelector(".send [type=checkbox]")`)
	b.press(`document.querySelector(".send [type=checkbox]")`)
	b.until(`document.querySelector(".send textarea").value.includes("Hlavní")`)
	b.write("Data, as JSON", `{"action": "START"`, 0)
	b.press(button("Send …"))
	b.says(".send", "This is not JSON")
	b.write("Data, as JSON", `{"action": "START"}`, 0)
	b.press(button("Send …"))
	b.press(`document.querySelector("dialog button.danger")`)
	b.says(".send", "the module mission refuses it: member stops is missing; expected an array of stations")
	b.until(`!document.querySelector("dialog") && document.activeElement.tagName === "TEXTAREA"`)

	// On a phone: outputs of the panel, whose name is long.
	b.resize(390, 800)
	b.fits()
	b.write("Device", "2/4/panel", 0)
	b.write("outNum", "256", 0)
	b.press(button("Send …"))
	b.says(".send", "Expected a whole number from 0 to 255, not “256”.")
	b.write("outNum", "3", 0)
	b.press(button("Add output"))
	b.write("outNum", "4", 1)
	b.write("actType", "2", 1)
	b.fits()
	b.picture("send-phone")
	b.send()
	b.newest(`[{"actType":1,"outNum":3},{"actType":2,"outNum":4}]`, "acknowledged")

	// Any other module gets JSON, whose numbers keep their digits.
	b.write("Device", "3/7/teleop", 0)
	b.write("Data, as JSON", `{"id": 12345678901234567890, "text": "`+strings.Repeat("long ", 200)+`"}`, 0)
	b.send()
	b.newest(`{"id":12345678901234567890,`, "acknowledged")
	b.fits()

	// Of a car whose devices no module has told the HTTP API about, the page says so.
	b.open(s.url + "#/car/car_0001")
	b.press(`document.querySelector(".sender summary")`)
	b.says(".sender", "The HTTP API knows no device of this car")
	b.until(`document.querySelector(".sender form").hidden`)
}

// Without an HTTP API there is nothing to send by; a reader is told what is missing, and the
// server refuses it too.
func TestSendCommandWithoutAPI(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(1), false, nil)
	b := newTab(t, 390, 800)
	b.open(s.url + "#/car/car_0000")
	b.press(`document.querySelector(".sender summary")`)
	b.says(".sender", "This server has no HTTP API of its own (the block http_api of the configuration)")
	b.fits()
}

func TestSendCommandOfReader(t *testing.T) {
	t.Parallel()
	const reader = "token-of-the-wall-display"
	s := startServer(t, names(1), true, servertest.Map{"tokens": []servertest.Map{{"name": "wall", "role": "read", "token": reader}}})
	stand(connect(t, s, names(1))["car_0000"], 49, 16)
	testwait.Until(t, "the device in the HTTP API", func() bool {
		type targets struct{ Devices []any }
		return len(get[targets](t, s, "api/v1/cars/car_0000/commands", reader).Devices) == 1
	})
	b := newTab(t, 390, 800)
	b.expect("401")
	b.expect("403")
	b.open(s.url + "#/car/car_0000")
	b.says("dialog", "Bearer token")
	b.keys(reader + "\r")
	b.says("#access", "wall · read")
	b.until(`!document.querySelector("dialog")`)
	b.press(`document.querySelector(".sender summary")`)
	b.write("Route", "night", 0)
	b.press(button("Send …"))
	b.says("dialog", `You have the role “read” by the token “wall”; this needs the role “operate”.`)
	b.press(`document.querySelector("dialog button.danger")`)
	b.says("dialog [role=alert]", "Refused: this needs the role operate; this request has the role read.")
	b.fits()
}
