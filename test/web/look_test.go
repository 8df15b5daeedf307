package web

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// A thousand cars, a few of them away: which ones and why, the filter, one car,
// its statuses as they arrive, and its way back after a disconnect.
func TestThousandCars(t *testing.T) {
	t.Parallel()
	const away = 7
	cars := names(1000)
	config := prepare(t, cars, false, nil)
	// So rarely that no command is under way to a car that has not answered the one before.
	config["common_modules"].(servertest.Map)["1000"].(servertest.Map)["config"] = servertest.Map{"command_interval_ms": "5000"}
	config["timeout"] = 20 // with the interval less than the 30 s after which any silent session ends
	s := launch(t, config, config["embedded_broker"].(servertest.Map)["listen"].(string))
	gateways := connect(t, s, cars[away:])
	testwait.Until(t, "all gateways are connected", func() bool { return states(t, s, "")["running"] == len(cars)-away })
	b := newTab(t, 1360, 860)
	b.media("prefers-color-scheme", "dark")
	b.open(s.url)
	b.says("h1", "7 of 1,000 cars are not connected.")
	b.says(".reasons", "has not been heard since the start of the server")
	b.says("#stream", "live")
	b.until(`document.querySelector("[role=table]").getAttribute("aria-rowcount") === "1001"`)
	if n := eval[int](b, `document.querySelectorAll(".rows [role=row]").length`); n < 10 || n > 80 {
		t.Errorf("%d rows exist for 1000 cars, expected the visible ones only", n)
	}

	// Some go away in other ways: silently for a reason that the server finds out,
	// and announced by their devices.
	if err := gateways["car_0100"].SetFaults(gateway.Faults{Silent: true}); err != nil {
		t.Fatal(err)
	}
	gateways["car_0200"].Leave(button1)
	b.says(".reasons", "no connected device left")
	b.says("h1", "8 of 1,000")
	b.says(".reasons", "gateway silent since a command")
	b.says("h1", "9 of 1,000")
	b.picture("fleet-1000-dark")
	b.media("prefers-color-scheme", "light")
	b.picture("fleet-1000-light")

	// The filter by words, by state, by reason; sorting.
	b.press(`document.querySelector("#filter")`)
	b.keys("/")
	eval[any](b, `void (document.querySelector("#filter").focus())`)
	eval[any](b, `void (document.querySelector("#filter").value = "")`)
	b.keys("car_020")
	b.says("#matched", "10 cars shown")
	b.says("#said", "10 cars shown")
	if hash := eval[string](b, "location.hash"); hash != "#/?q=car_020" {
		t.Errorf("the address is %s, expected the filter in it", hash)
	}
	b.press(button("not connected"))
	b.says("#matched", "1 car shown")
	b.press(button("Clear filter"))
	b.press(`[...document.querySelectorAll(".reasons button")].find((b) => b.innerText.includes("silent since"))`)
	b.says("#matched", "1 car shown")
	b.says(".rows", "car_0100")
	b.press(button("Clear filter"))
	b.press(`document.querySelector("[data-sort=name]")`)
	b.until(`document.querySelector(".c-name[role=columnheader]").getAttribute("aria-sort") === "ascending"`)
	b.press(`document.querySelector("[data-sort=name]")`)
	b.until(`document.querySelector(".rows [role=row]").innerText.includes("car_0999")`)

	// With the keyboard alone: to the end of the list and into the last car.
	eval[any](b, `void (document.querySelector(".rows a[tabindex='0']").focus())`)
	b.keys(kb.End)
	b.until(`document.activeElement.innerText === "car_0000"`)
	b.until(`(() => { const r = document.activeElement.getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight; })()`)
	b.keys(kb.Home)
	b.until(`document.activeElement.innerText === "car_0999"`)
	b.keys("\r")
	b.says("h1", "car_0999")

	// A status arrives on the page of its car.
	b.says(".devices", "green_button")
	b.says("[aria-labelledby=h-tail]", "live")
	gateways["car_0999"].Status(button1, []byte(`{"pressed": true, "serial": 12345678901234567890}`), time.Time{})
	b.says(".devices pre", `"serial": 12345678901234567890`)
	b.says(".tail", "status")
	gateways["car_0999"].Status(button1, []byte{0xff, 0x00, 'a'}, time.Time{})
	b.says(".devices pre", "0000  ff 00 61")

	// An operator ends the session; the gateway connects anew by itself.
	b.press(button("Disconnect"))
	b.says("dialog", "Disconnect car_0999?")
	b.press(`document.querySelector("dialog button.danger")`)
	b.says("#toasts", "connects anew")
	b.says("[aria-labelledby=h-ends]", "disconnected by an operator")
	gateways["car_0999"].Status(button1, []byte(`{"pressed": false}`), time.Time{})
	b.until(`document.querySelector(".title .state").dataset.state === "running"`)
	b.picture("car-light")
	b.resize(380, 800)
	b.fits()
	b.picture("car-phone")
	b.open(s.url + "#/")
	b.says("h1", "9 of 1,000")
	b.fits()
	b.picture("fleet-phone")
}

// A process of a module dies: the page says so, and that it is back.
func TestModuleCrash(t *testing.T) {
	t.Parallel()
	cars := names(20)
	s := startServer(t, cars, true, nil)
	connect(t, s, cars)
	testwait.Until(t, "all gateways are connected", func() bool { return states(t, s, "")["running"] == len(cars) })
	b := newTab(t, 1360, 860)
	b.media("prefers-color-scheme", "dark")
	b.open(s.url + "#/modules")
	b.says("[data-module='1000']", "ready")
	b.says("[data-module='1000'] .process", "Restarts\n0")
	if err := syscall.Kill(processOf(t, s, 1000), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.says("[data-module='1000'] .process", "Restarts\n1")
	b.says("[data-module='1000'] .process", "SIGKILL")
	b.until(`document.querySelector("[data-module='1000'] .tag").innerText === "ready"`)
	b.until(`document.querySelector("[data-module='1000'] svg .restart")`)
	b.picture("modules-dark")
	b.resize(380, 800)
	b.fits()
	b.picture("modules-phone")
	b.resize(1360, 860)
	b.open(s.url + "#/events")
	b.says(".rows", "process ended")
	b.says(".rows", "process ready")
	b.picture("events-dark")
	b.press(button("server"))
	b.until(`![...document.querySelectorAll(".rows .kind")].some((k) => k.innerText === "connected")`)
	b.resize(380, 800)
	b.fits()
	b.picture("events-phone")
}

// processOf returns the process id of a module.
func processOf(t testing.TB, s *server, number int) int {
	t.Helper()
	type list struct {
		Modules []struct {
			Number  int `json:"number"`
			Process *struct {
				PID int `json:"pid"`
			} `json:"process"`
		} `json:"modules"`
	}
	for _, m := range get[list](t, s, "api/v1/modules", "").Modules {
		if m.Number == number && m.Process != nil {
			return m.Process.PID
		}
	}
	t.Fatalf("module %d has no process", number)
	return 0
}

// Who may only read sees everything, and a clear refusal when it tries more.
func TestRoles(t *testing.T) {
	t.Parallel()
	const reader, operator = "token-of-the-wall-display", "token-of-the-night-shift"
	admin := servertest.Map{"tokens": []servertest.Map{
		{"name": "wall", "role": "read", "token": reader}, {"name": "shift", "role": "operate", "token": operator},
	}}
	s := startServer(t, names(3), false, admin)
	gateways := connect(t, s, names(3))
	testwait.Until(t, "all gateways are connected", func() bool { return states(t, s, reader)["running"] == 3 })
	session := func() string {
		type car struct {
			Session string `json:"session"`
		}
		return get[car](t, s, "api/v1/cars/car_0001", reader).Session
	}
	b := newTab(t, 1360, 860)
	b.expect("401")
	b.expect("403")
	b.open(s.url + "#/car/car_0001")
	b.says("dialog", "a bearer token of the block admin of the configuration is needed")
	b.picture("token")
	b.keys("wrong\r")
	b.says("dialog", "the token is not one of the configuration")
	eval[any](b, `void (document.querySelector("#token").value = "")`)
	b.keys(reader + "\r")
	b.until(`!document.querySelector("dialog")`)
	b.says("#access", "wall · read")
	b.says(".title", "connected for")

	before := session()
	b.press(button("Disconnect"))
	b.says("dialog", `You have the role “read” by the token “wall”; this needs the role “operate”.`)
	b.press(`document.querySelector("dialog button.danger")`)
	b.says("dialog [role=alert]", "Refused: this needs the role operate; this request has the role read.")
	b.picture("refused")
	if after := session(); after != before || after == "" {
		t.Fatalf("the session was %q and is %q: a reader has ended it", before, after)
	}
	b.press(button("Use another token"))
	b.says("dialog", "Bearer token")
	// A slow typist: the page asks the server with the old token meanwhile.
	b.keys(operator[:10])
	b.polls(2)
	if eval[bool](b, `document.querySelector("#token") === null`) {
		t.Fatal("the dialog is gone before the token was typed")
	}
	b.keys(operator[10:] + "\r")
	b.says("#access", "shift · operate")
	b.until(`!document.querySelector("dialog")`)
	b.press(button("Disconnect"))
	b.press(`document.querySelector("dialog button.danger")`)
	b.says("#toasts", "connects anew")
	b.until(`!document.querySelector("dialog")`)
	b.says("[aria-labelledby=h-ends]", "disconnected by an operator")
	gateways["car_0001"].Status(button1, []byte(`{"pressed": true}`), time.Time{})
	b.until(`document.querySelector(".title .state").dataset.state === "running"`)
	if after := session(); after == before {
		t.Fatal("the session is the same after the disconnect")
	}
	b.open(s.url + "#/events")
	b.says(".rows", "shift: the session ends")

	// A level of the log is changed and given back.
	b.open(s.url + "#/server")
	b.until(`document.querySelector("select[data-level=INFO]")`)
	choose := func(value string) {
		t.Helper()
		eval[any](b, fmt.Sprintf(`void (() => { const s = document.querySelector("[aria-label='Level of car']"); s.value = %q; s.dispatchEvent(new Event("change")); })()`, value))
		b.press(`document.querySelector("dialog button.danger")`)
	}
	choose("DEBUG")
	b.says("[aria-labelledby=h-log]", "an operator; configured is INFO")
	choose("")
	b.until(`!document.querySelector("[aria-labelledby=h-log]").innerText.includes("an operator")`)

	// The token lives in this tab only, and can be forgotten.
	if n := eval[int](b, "localStorage.length"); n != 0 {
		t.Error("something of the access is kept beyond the tab")
	}
	if text := eval[string](b, "document.cookie + location.href"); text != s.url+"#/server" {
		t.Errorf("the token shows in %q", text)
	}
	b.press(`document.querySelector("#access")`)
	b.press(button("Forget token"))
	b.says("dialog", "a bearer token of the block admin of the configuration is needed")
}

// The server goes away and comes back: the page says so and goes on.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(2), false, servertest.Map{"listen": brokertest.FreeAddress(t)}) // one that no connection gets meanwhile
	b := newTab(t, 1000, 700)
	b.expect("ERR_CONNECTION_REFUSED")
	b.expect("ERR_INCOMPLETE_CHUNKED_ENCODING")
	b.expect("ERR_CONNECTION_RESET")
	b.expect("ERR_EMPTY_RESPONSE")
	b.open(s.url)
	b.says("h1", "2 of 2 cars are not connected.")
	b.says("#stream", "live")
	s.Kill()
	b.says("#stream", "reconnecting")
	b.says("#alarm", "does not reach the server")
	b.says("#said", "reconnecting")
	b.picture("gone")
	again := launch(t, s.config, s.broker.Address)
	b.says("#stream", "live")
	b.until(`document.querySelector("#alarm").hidden`)
	connect(t, again, names(2))
	b.says("h1", "All 2 cars are connected.")
}

// What cars send is shown and never becomes part of the page.
func TestHostileCar(t *testing.T) {
	t.Parallel()
	const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`
	s := startServer(t, names(1), false, nil)
	gateways := connect(t, s, names(1))
	testwait.Until(t, "connected", func() bool { return states(t, s, "")["running"] == 1 })
	bad := button1
	bad.Role, bad.Name = "evil", evil
	sly := button1
	sly.Role, sly.Name = strings.Repeat("r", 2000), "abc\u202edef\u009b31m"
	g := gateways["car_0000"]
	b := newTab(t, 1000, 700)
	b.open(s.url + "#/car/car_0000")
	b.says("[aria-labelledby=h-tail]", "live")
	g.Status(bad, fmt.Appendf(nil, `{"__proto__": {"polluted": 1}, %q: %q}`, evil, evil), time.Time{})
	b.says(".devices", "<img src=x")
	b.says(".devices", `"polluted": 1`)
	b.says(".tail", "<img src=x")
	// What has no shape is written as an escape, and a long name is cut.
	g.Status(sly, []byte("{\"text\": \"\u202e\u0085\"}"), time.Time{})
	b.says(".devices", `abc\u202edef\u009b31m`)
	b.says(".devices", `"\u202e\u0085"`)
	b.until(`!/[\u202e\u0085\u009b]/.test(document.body.innerText)`)
	b.fits()
	b.resize(380, 800)
	b.fits()
	b.resize(1000, 700)
	b.open(s.url + "#/events")
	b.fits()
	b.says(".rows", "<img src=x")
	b.until(`document.querySelectorAll("main img, main script").length === 0 && document.title === "Events · External Server" && ({}).polluted === undefined`)
}

// Cars that drive are drawn on the map.
func TestMap(t *testing.T) {
	t.Parallel()
	const n = 12
	cars := names(n)
	s := startServer(t, cars, true, nil)
	var all []*gateway.Gateway
	for _, name := range cars {
		all = append(all, connect(t, s, []string{name})[name])
	}
	b := newTab(t, 1360, 860)
	b.media("prefers-color-scheme", "dark")
	b.open(s.url + "#/map")
	b.says(".empty", "No car has reported a position yet")
	drive(t, all)
	b.says(".maplist", "car_0011")
	b.says(".maplist", "DRIVE")
	b.until(`document.querySelector("canvas").getAttribute("aria-label").includes("12 positions")`)
	b.until(`document.querySelector("canvas").getAttribute("aria-label").includes("12 positions: 12 DRIVE") || document.querySelector("canvas").getAttribute("aria-label").includes("IN_STOP")`)
	painted := `(() => { const c = document.querySelector("canvas"); const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 0; i < d.length; i += 4) if (d[i + 1] > 150 && d[i] < 110 && d[i + 3] > 200) n++; return n; })()`
	b.until(painted + " > 300") // in the colour of DRIVE
	before := eval[int](b, painted)
	b.until(fmt.Sprintf("%s > %d * 1.1", painted, before)) // trails grow
	b.press(`document.querySelector(".maplist button")`)
	b.until(`document.querySelector(".maplist [aria-pressed=true]")`)
	b.press(`document.querySelector("[aria-label='Show all']")`)
	b.picture("map-dark")
	b.media("prefers-color-scheme", "light")
	b.open(s.url + "#/car/car_0003")
	b.says("[aria-labelledby=h-map]", "Position")
	b.until(`!document.querySelector("[aria-labelledby=h-map]").hidden`)
	b.press(button("2 min"))
	b.says(".commands", "acknowledged")
	b.until(`document.querySelectorAll(".timeline .in").length > 8`)
	b.picture("car-map-light")
	b.open(s.url + "#/map")
	b.resize(380, 800)
	b.fits()
	b.picture("map-phone")
}
