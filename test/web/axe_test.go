package web

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// axe is the script of axe-core, which `make axe` fetches.
func axe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(servertest.Root(), "build", "axe", "node_modules", "axe-core", "axe.min.js")
	script, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("axe-core is not there and this test needs it: `make axe` fetches it, with npm")
	}
	return string(script)
}

// violations are what axe-core finds on the page, each with the elements that it is about.
const violations = `(async () => {
	// Colours in the middle of an animation are not those that are read.
	for (const a of document.getAnimations()) if (a.effect.getComputedTiming().endTime !== Infinity) a.finish();
	const found = await axe.run(document, { resultTypes: ["violations"] });
	return found.violations.map((v) => v.impact + " " + v.id + ": " + v.help + ": " + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " " + n.failureSummary.replaceAll("\n", " ").slice(0, 200)).join(" | "));
})()`

// Every page, in both colours, at a desk and on a phone, has nothing that axe-core would
// call an obstacle, with forms and dialogs open too.
func TestAxe(t *testing.T) {
	t.Parallel()
	script := axe(t)
	tiles := startTiles(t, 19)
	config := prepare(t, names(4), true, servertest.Map{"map_tiles": tiles.URL + "/t/{z}/{x}/{y}.png", "map_attribution": "© the owners of the tiles"})
	config["cars"].(servertest.Map)["car_0001"] = servertest.Map{"labels": servertest.Map{"depot": "Brno střed", "model": strings.Repeat("W", 64)}}
	s := launch(t, config, config["embedded_broker"].(servertest.Map)["listen"].(string))
	gateways := connect(t, s, names(4)[1:])
	testwait.Until(t, "all gateways are connected", func() bool { return states(t, s, "")["running"] == 3 })
	drive(t, []*gateway.Gateway{gateways["car_0001"], gateways["car_0002"]})
	testwait.Until(t, "the device in the HTTP API", func() bool {
		type targets struct{ Devices []any }
		return len(get[targets](t, s, "api/v1/cars/car_0001/commands", "").Devices) == 1
	})
	b := newTab(t, 1360, 860)
	b.expect("404")
	told := map[string]bool{}
	none := func(page string) {
		t.Helper()
		if !eval[bool](b, "Boolean(window.axe)") {
			eval[any](b, script+"\nvoid 0")
		}
		found, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](violations, chromedp.EvalAwaitPromise))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range found {
			if !told[v] { // most are on every page
				told[v] = true
				t.Errorf("%s: %s", page, v)
			}
		}
	}
	pages := []struct{ address, ready, words string }{
		{"", ".rows", "car_0003"},
		{"?label=depot%3DBrno+st%C5%99ed", ".rows", "car_0001"},
		{"car/car_0001", ".devices", "autonomy"},
		{"car/car_0000", ".why", "has not been heard"},
		{"car/nobody", ".empty", "does not serve a car named"},
		{"overview", ".page-overview", "Alerts"},
		{"log", ".page-log", "WARNING and above"},
		{"modules", "[data-module='1000']", "Process id"},
		{"events", ".rows", "car_0003"},
		{"map", ".maplist", "car_0002"},
		{"server", "[aria-labelledby=h-log]", "broker"},
	}
	for _, theme := range []string{"light", "dark"} {
		b.media("prefers-color-scheme", theme)
		for _, width := range []int64{1360, 390} {
			b.resize(width, 860)
			for _, p := range pages {
				b.open(s.url + "#/" + p.address)
				b.says(p.ready, p.words)
				none(theme + " " + p.address)
				b.fits()
			}
			b.open(s.url + "#/car/car_0001")
			b.says(".devices", "autonomy")
			b.press(`document.querySelector(".sender summary")`)
			b.press(button("Add stop"))
			b.write("Name", "A", 0)
			b.press(button("Send …"))
			b.says(".send", "Expected a number")
			none(theme + " form")
			b.fits()
			b.press(button("Disconnect"))
			b.says("dialog", "Disconnect car_0001?")
			none(theme + " dialog")
			b.fits()
		}
	}
}
