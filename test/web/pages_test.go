package web

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// widths are those of a screen on a desk and of a phone, in CSS pixels.
var widths = []int64{1360, 390}

// back goes back in the history of the tab, as the button of the browser does.
func (b *tab) back() {
	b.t.Helper()
	eval[any](b, "void history.back()")
}

// slash presses the key that leads to the filter, in one event: a page that takes the key
// for itself keeps its character out of the filter.
func (b *tab) slash() {
	b.t.Helper()
	const key = "/"
	call(b, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: key, Text: key, Code: "Slash"})
	call(b, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyUp, Key: key, Code: "Slash"})
	b.until(`document.activeElement.type === "search"`)
}

// Every page has a title of its own, which the history of the browser shows.
func TestTitles(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(2), false, nil)
	b := newTab(t, 390, 844)
	b.expect("404")
	b.open(s.url)
	for _, p := range [][2]string{
		{"#/", "Fleet"}, {"#/car/car_0001", "car_0001"}, {"#/car/nobody", "No car nobody"}, {"#/map", "Map"}, {"#/modules", "Modules"},
		{"#/events", "Events"}, {"#/server", "Server"},
	} {
		eval[any](b, fmt.Sprintf("void (location.hash = %q)", p[0]))
		b.until(fmt.Sprintf("document.title === %q", p[1]+" · External Server"))
		b.fits()
	}
}

// A dialog belongs to the page that it was opened on.
func TestDialogEndsWithItsPage(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(2), false, nil)
	for _, width := range widths {
		b := newTab(t, width, 844)
		b.open(s.url + "#/modules")
		b.says("h1", "Modules")
		b.press(`document.querySelector("nav [data-page=server]")`)
		b.press(button("Reload configuration"))
		b.says("dialog", "Reload the configuration?")
		b.back()
		b.says("h1", "Modules")
		b.until(`!document.querySelector("dialog")`)
		b.until(`document.activeElement.id === "main"`)
		// The one about the access too, as long as it is not needed.
		b.press(`document.querySelector("#access")`)
		b.says("dialog", "You have the role operate")
		b.press(`document.querySelector("nav [data-page=events]")`)
		b.says("h1", "Events")
		b.until(`!document.querySelector("dialog")`)
		b.press(`document.querySelector("#access")`)
		b.says("dialog", "You have the role operate")
	}
}

// Without the token that is needed, its dialog stays whatever page is opened.
func TestNeededDialogStays(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(1), false, servertest.Map{"tokens": []servertest.Map{{"name": "wall", "role": "read", "token": "token-of-the-wall"}}})
	b := newTab(t, 390, 844)
	b.expect("401")
	b.open(s.url + "#/events")
	b.says("dialog", "a bearer token of the block admin")
	b.keys("token-of-the")
	eval[any](b, `void (location.hash = "#/modules")`)
	b.says("h1", "Modules")
	b.keys("-wall\r")
	b.says("#access", "wall · read")
	b.until(`!document.querySelector("dialog")`)
}

// With the keyboard alone: the filter, a car, and back to its row.
func TestFilterAndBack(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(120), false, nil)
	for _, width := range widths {
		b := newTab(t, width, 844)
		b.open(s.url + "#/?sort=name")
		b.says(".rows", "car_0003")
		b.slash()
		b.keys("car_010\r") // Enter does not wait for the list
		b.says("h1", "car_0100")
		b.back()
		b.says("#matched", "10 cars shown")
		b.until(`document.activeElement.textContent === "car_0100"`)

		b.slash()
		b.keys("car_011")
		b.keys(kb.ArrowDown)
		b.until(`document.activeElement.textContent === "car_0110"`)
		b.keys(kb.ArrowDown)
		b.keys(kb.ArrowDown)
		b.until(`document.activeElement.textContent === "car_0112"`)
		b.keys("\r")
		b.says("h1", "car_0112")
		b.press(`document.querySelector(".crumb a")`)
		b.says("#matched", "10 cars shown")
		b.until(`document.activeElement.textContent === "car_0112"`)

		// A long way down the list, also after a reload on the car's page.
		b.press(button("Clear filter"))
		b.until(`document.querySelector(".cars").getAttribute("aria-rowcount") === "121"`)
		eval[any](b, `void document.querySelector(".rows a[tabindex='0']").focus()`)
		b.keys(kb.End)
		b.until(`document.activeElement.textContent === "car_0119"`)
		b.keys(kb.ArrowUp)
		b.until(`document.activeElement.textContent === "car_0118"`)
		b.keys("\r")
		b.says("h1", "car_0118")
		b.do("reload", chromedp.Reload())
		b.says("h1", "car_0118")
		b.back()
		b.until(`document.activeElement.textContent === "car_0118"`)
		b.until(`(() => { const r = document.activeElement.getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight; })()`)
		b.fits()
	}
}

// A car that is not served is said, and asked for once; when there is one of that name its
// page begins by itself.
func TestUnknownCar(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(1), false, nil)
	b := newTab(t, 390, 844)
	b.expect("404")
	b.open(s.url + "#/car/latecomer")
	b.says(".empty", "does not serve a car named “latecomer”")
	b.says("#said", "does not serve a car")
	b.until(`[...document.querySelectorAll("[data-operate]")].every((e) => e.disabled)`)
	const asked = `performance.getEntriesByType("resource").filter((e) => /latecomer/.test(e.name)).length`
	b.polls(1)
	before := eval[int](b, "(performance.clearResourceTimings(), "+asked+")")
	b.polls(3)
	if n := eval[int](b, asked); n != before {
		t.Errorf("the server was asked %d times more for a car that it does not have", n-before)
	}
	b.fits()

	s.config["cars"].(servertest.Map)["latecomer"] = servertest.Map{}
	s.reload(t)
	b.says(".why", "has not been heard")
	b.until(`document.title === "latecomer · External Server"`)
	b.says("[aria-labelledby=h-tail]", "live")
	b.until(`[...document.querySelectorAll("[data-operate]")].every((e) => !e.disabled)`)
}

// The buttons at the top say what they are about, also where no pointer hovers.
func TestToolsExplainThemselves(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(1), false, nil)
	for _, width := range widths {
		b := newTab(t, width, 844)
		b.open(s.url)
		b.says("#stream", "live")
		b.says("#stream", "Events")
		b.says("#access", "Access")
		b.says("#access", "operate")
		b.says("#theme", "Colours")
		b.until(`document.querySelector("#access").title.includes("You see everything, and may disconnect cars")`)
		b.until(`document.querySelector("#stream").title.includes("as they happen")`)
		b.until(`document.querySelector("#theme").title.includes("light or dark as the system is")`)
		b.press(`document.querySelector("#theme")`)
		b.says("#theme", "light")
		b.until(`[...document.querySelectorAll(".tools button")].every((e) => { const r = e.getBoundingClientRect(); return r.left >= 0 && r.right <= innerWidth && r.bottom <= 52; })`)
		b.fits()
	}
}

// Devices that join together are one line of the events, with date and time.
func TestEventsAreFolded(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(1), false, nil)
	pool, err := gateway.NewPool(s.broker, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	g, err := gateway.Start(gateway.Settings{Car: fleet.CarID{Company: company, Car: "car_0000"}, Pool: pool, Core: gateway.Options{Timing: timing, Steady: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	send := func(from, to int) {
		for i := from; i < to; i++ {
			d := button1
			d.Role, d.Name = fmt.Sprintf("button_%d", i), fmt.Sprintf("button %d", i)
			g.Status(d, []byte(`{"pressed": false}`), time.Time{})
		}
	}
	send(0, 12)
	testwait.Until(t, "the session runs", func() bool { return states(t, s, "")["running"] == 1 })
	for _, width := range widths {
		b := newTab(t, width, 844)
		b.open(s.url + "#/events")
		b.until(`[...document.querySelectorAll(".rows [role=row]")].some((r) => /^[0-9]+ devices? joined/.test(r.querySelector(".kind").textContent) || r.querySelector(".kind").textContent === "device joined")`)
		// Those that come one by one while the session runs are folded by the page.
		send(12*int(width), 12*int(width)+5)
		b.until(fmt.Sprintf(`[...document.querySelectorAll(".rows [role=row]")].some((r) => /devices joined/.test(r.querySelector(".kind").textContent) && r.querySelector(".c-text").title.includes("button %d"))`, 12*width))
		if n := eval[int](b, `[...document.querySelectorAll(".rows .kind")].filter((k) => /joined/.test(k.textContent)).length`); n > 6 {
			t.Errorf("%d lines tell of devices that joined", n)
		}
		b.until(`[...document.querySelectorAll(".rows .c-time")].every((e) => /^[0-9]{1,2} [A-Z][a-z]+ [0-9:]{8}\.[0-9]{3}$/.test(e.textContent))`)
		b.fits()
		b.picture(fmt.Sprintf("events-folded-%d", width))
	}
	if n := len(get[struct{ Cars []any }](t, s, "api/v1/cars", "").Cars); n != 1 {
		t.Errorf("%d cars", n)
	}
}

// reload puts the changed configuration of a server in force.
func (s *server) reload(t testing.TB) {
	t.Helper()
	servertest.WriteConfig(t, s.ConfigPath, s.config)
	s.Signal(syscall.SIGHUP)
}
