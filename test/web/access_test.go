package web

import (
	"slices"
	"testing"

	"external-server/internal/lab/gateway"
	"external-server/internal/support/testwait"
)

// audit returns what a page lacks for people who see little, see no colours, or
// do not see at all.
const audit = `(() => {
	const out = [];
	// Colours in the middle of an animation are not those that are read.
	for (const a of document.getAnimations()) if (a.effect.getComputedTiming().endTime !== Infinity) a.finish();
	const count = (s) => document.querySelectorAll(s).length;
	for (const s of ["main", "body > header", "nav", "h1"]) if (count(s) !== 1) out.push(count(s) + " of " + s);
	if (document.documentElement.lang !== "en") out.push("no language");
	const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
	for (const id of new Set(ids)) if (ids.filter((i) => i === id).length > 1) out.push("id twice: " + id);
	for (const a of ["aria-labelledby", "aria-describedby"]) for (const e of document.querySelectorAll("[" + a + "]")) if (!document.getElementById(e.getAttribute(a))) out.push(a + " leads nowhere: " + e.getAttribute(a));
	const name = (e) => e.getAttribute("aria-label") || e.innerText?.trim() || e.textContent.trim() || [...(e.labels ?? [])].map((l) => l.innerText).join("");
	for (const e of document.querySelectorAll("button, a, input, select, canvas, svg[role], section, nav, [role=table], [role=log], [role=group]")) {
		if (e.checkVisibility() && !name(e) && !e.getAttribute("aria-labelledby")) out.push("no name: " + e.outerHTML.slice(0, 90));
	}
	for (const e of document.querySelectorAll("img:not([alt])")) out.push("no alt: " + e.outerHTML);
	for (const e of document.querySelectorAll("[role=row]")) if (!e.closest("[role=table]")) out.push("a row outside a table");
	for (const e of document.querySelectorAll("[tabindex]")) if (e.tabIndex > 0) out.push("a tab order of its own: " + e.outerHTML.slice(0, 90));
	const parse = (c) => {
		const n = c.match(/[\d.]+/g).map(Number);
		return c.startsWith("color(") ? [n[0] * 255, n[1] * 255, n[2] * 255, n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1];
	};
	const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
	const luminance = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const behind = (e) => { const stack = []; for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); stack.push(c); if (c[3] === 1) break; } return stack.reverse().reduce((below, c) => over(c, below), [255, 255, 255, 1]); };
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	const seen = new Set();
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement;
		if (seen.has(e) || !walk.currentNode.data.trim() || !e.checkVisibility() || e.closest(".unseen, .skip, noscript, svg, :disabled")) continue;
		seen.add(e);
		const bottom = behind(e);
		const [x, y] = [luminance(over(parse(getComputedStyle(e).color), bottom)), luminance(bottom)].sort((a, b) => b - a);
		const ratio = (x + 0.05) / (y + 0.05);
		if (ratio < 4.5) out.push("contrast " + ratio.toFixed(2) + ": " + e.tagName + "." + e.className + " " + e.innerText.slice(0, 40));
	}
	return [...new Set(out)];
})()`

func TestAccessibility(t *testing.T) {
	t.Parallel()
	cars := names(4)
	s := startServer(t, cars, true, nil)
	gateways := connect(t, s, cars[1:])
	testwait.Until(t, "all gateways are connected", func() bool { return states(t, s, "")["running"] == 3 })
	drive(t, []*gateway.Gateway{gateways["car_0001"], gateways["car_0002"]})
	b := newTab(t, 1360, 860)
	for _, theme := range []string{"light", "dark"} {
		b.media("prefers-color-scheme", theme)
		for _, p := range []struct{ address, heading, ready, words string }{
			{"", "1 of 4 cars is not connected.", ".rows", "car_0003"},
			{"car/car_0001", "car_0001", ".devices", "autonomy"},
			{"car/car_0000", "car_0000", ".why", "has not been heard"},
			{"car/nobody", "nobody", ".empty", "does not serve a car named"},
			{"modules", "Modules", "[data-module='1000']", "Process id"},
			{"events", "Events", ".rows", "car_0003"},
			{"map", "Map", ".maplist", "car_0002"},
			{"server", "Server", "[aria-labelledby=h-log]", "broker"},
		} {
			b.expect("404")
			b.open(s.url + "#/" + p.address)
			b.says("h1", p.heading)
			b.says(p.ready, p.words)
			for _, lack := range eval[[]string](b, audit) {
				t.Errorf("%s, page %q: %s", theme, p.address, lack)
			}
			if p.address == "server" {
				b.picture("server-" + theme)
			}
		}
	}

	// Every control of a page is reached by the Tab key, in the order of the page,
	// and its focus is seen.
	b.open(s.url + "?again#/") // the focus begins at the top of a page that is loaded
	b.says(".rows", "car_0003")
	var reached []string
	for range 40 {
		b.keys("\t")
		at := eval[[]string](b, `(() => { const e = document.activeElement; return [e.innerText || e.getAttribute("aria-label") || "", getComputedStyle(e).outlineStyle]; })()`)
		if eval[bool](b, "document.activeElement === document.body") || slices.Contains(reached, at[0]) {
			break
		}
		if reached = append(reached, at[0]); at[1] == "none" {
			t.Errorf("the focus of %q is not seen", at[0])
		}
	}
	if n := len(reached); n < 18 || reached[0] != "Skip to the content" {
		t.Errorf("the Tab key reaches %q", reached)
	}

	// A page that is opened says its name and has the focus.
	eval[any](b, `void document.querySelector("nav a[data-page=modules]").click()`)
	b.says("h1", "Modules")
	b.says("#said", "Modules")
	b.until(`document.activeElement.id === "main"`)

	// Nothing moves for who wants nothing to move.
	b.media("prefers-reduced-motion", "reduce")
	b.open(s.url + "#/car/car_0001")
	b.says(".devices", "autonomy")
	b.until(`document.querySelector(".fresh")`)
	if n := eval[int](b, "document.getAnimations().length"); n != 0 {
		t.Errorf("%d animations run", n)
	}
}
