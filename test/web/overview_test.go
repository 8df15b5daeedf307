package web

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// The overview of a fleet that is well says so, with figures; its history is the server's
// and survives a reload of the page; charts are read by words and by the keyboard.
func TestOverview(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(3), false, nil)
	gateways := connect(t, s, names(3))
	testwait.Until(t, "all gateways are connected", func() bool { return states(t, s, "")["running"] == 3 })
	gateways["car_0001"].Status(button1, []byte(`{"pressed": true}`), time.Time{})
	b := newTab(t, 1360, 860)
	b.open(s.url)
	b.press(`document.querySelector("nav [data-page=overview]")`)
	b.says("h1", "All 3 cars are served.")
	b.says("[aria-labelledby=h-alerts]", "No alert is on")
	b.says("[aria-labelledby=h-alerts]", "all 3 cars are served")
	b.says("[aria-labelledby=h-faults]", "No fault has been told")
	const label = `document.querySelector("[aria-labelledby=h-statuses] svg").getAttribute("aria-label")`
	b.until(label + `.includes("accepted: ")`)
	b.until(`document.querySelectorAll("[aria-labelledby=h-statuses] path.curve").length === 1`)
	b.says("[aria-labelledby=h-answers]", "99 of 100")
	b.says("[aria-labelledby=h-cars]", "connected")
	b.says("[aria-labelledby=h-waits]", "module 1000")
	b.says(".figures", "nothing waits for a module")
	b.until(`/at most [0-9.]+\/s/.test(` + label + `)`)
	const most = `Number(` + label + `.match(/at most ([0-9.]+)/)[1])`
	accepted := eval[float64](b, most)

	// One car ends its session on the server's word: a bar with its reason.
	b.press(`document.querySelector(".figures a[href='#/modules']")`)
	b.says("h1", "Modules")
	eval[any](b, `void (location.hash = "#/car/car_0002")`)
	b.press(button("Disconnect"))
	b.press(`document.querySelector("dialog button.danger")`)
	b.says("#toasts", "connects anew")
	eval[any](b, `void (location.hash = "#/overview")`)
	b.says("[aria-labelledby=h-ended]", "disconnected by an operator")
	b.until(`document.querySelector("[aria-labelledby=h-ended] rect.bar")`)

	b.do("reload", chromedp.Reload())
	b.until(fmt.Sprintf("%s >= %v", most, accepted)) // more may have come since
	for _, theme := range []string{"light", "dark"} {
		b.media("prefers-color-scheme", theme)
		b.picture("overview-" + theme)
		for _, lack := range eval[[]string](b, audit) {
			t.Errorf("%s: %s", theme, lack)
		}
	}
	// The keyboard reads single points, aloud too.
	eval[any](b, `void document.querySelector("[aria-labelledby=h-cars] svg").focus()`)
	b.keys(kb.End)
	b.until(`/: connected [0-9]/.test(document.querySelector("[aria-labelledby=h-cars] .chart-at").textContent)`)
	b.says("#said", "connected")
	b.keys(kb.Escape)
	b.until(`document.querySelector("[aria-labelledby=h-cars] .chart-at").textContent === ""`)
	b.resize(390, 844)
	b.fits()
	b.until(`[...document.querySelectorAll("nav a")].every((a) => { const r = a.getBoundingClientRect(); return r.left >= 0 && r.right <= innerWidth && a.scrollWidth <= a.clientWidth + 1; })`)
	b.picture("overview-phone")
}

// An alert says what is on, links to its cars and its module, and is told on other pages;
// faults link to where they are from.
func TestAlerts(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(2), false, nil)
	gateways := connect(t, s, names(2))
	testwait.Until(t, "all gateways are connected", func() bool { return states(t, s, "")["running"] == 2 })
	testwait.Until(t, "the first reading", func() bool {
		return len(get[struct{ Points []any }](t, s, "api/v1/history", "").Points) > 0
	})
	b := newTab(t, 390, 844)
	b.open(s.url + "#/overview")
	b.says("h1", "All 2 cars are served.")
	b.until(`document.querySelector("#on").hidden`)

	// A message that is too large, and a module's process that dies.
	gateways["car_0001"].Status(button1, []byte(`"`+strings.Repeat("x", 1<<20)+`"`), time.Time{})
	if err := syscall.Kill(processOf(t, s, 1000), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.says(".alerts", "ExternalServerMessagesDropped")
	b.says(".alerts", "message too large")
	b.says("#on", "1")
	b.fits()
	b.picture("alerts-phone")
	b.until(`[...document.querySelectorAll(".faults a")].some((a) => a.getAttribute("href") === "#/modules?module=1000")`)
	for _, lack := range eval[[]string](b, audit) {
		t.Errorf("%s", lack)
	}
	b.press(`[...document.querySelectorAll(".faults a")].find((a) => a.getAttribute("href") === "#/modules?module=1000")`)
	b.says("h1", "Modules")
	b.until(`document.activeElement.dataset.module === "1000"`)
	eval[any](b, `void (location.hash = "#/")`)
	b.says(".alerts-on", "1 alert is on")
	b.press(`document.querySelector(".alerts-on")`)
	b.press(`[...document.querySelectorAll(".alert a")].find((a) => a.textContent === "car_0001")`)
	b.says("h1", "car_0001")
}

// The last lines of the log, with a filter of levels and words, and links to their cars.
func TestLog(t *testing.T) {
	t.Parallel()
	const reader = "token-of-the-wall-display"
	s := startServer(t, names(2), false, servertest.Map{"tokens": []servertest.Map{{"name": "wall", "role": "read", "token": reader}}})
	gateways := connect(t, s, names(2))
	testwait.Until(t, "all gateways are connected", func() bool { return states(t, s, reader)["running"] == 2 })
	gateways["car_0001"].Status(button1, []byte(`"`+strings.Repeat("x", 1<<20)+`"`), time.Time{})
	s.WaitLog("too large")
	b := newTab(t, 1360, 860)
	b.expect("401")
	b.open(s.url + "#/log")
	b.says("dialog", "bearer token")
	b.keys(reader + "\r")
	b.says(".rows", "connected to the broker")
	b.says(".rows", "too large")
	for _, width := range widths {
		b.resize(width, 844)
		b.press(button("WARNING and above"))
		b.until(`document.querySelectorAll(".rows [role=row]").length > 0 && [...document.querySelectorAll(".rows .kind")].every((k) => /^(WARNING|ERROR|CRITICAL)$/.test(k.textContent))`)
		b.press(`[...document.querySelectorAll(".rows [role=row]")].find((r) => r.querySelector(".c-name").textContent === "car_0001").querySelector(".line")`)
		b.until(`[...document.querySelectorAll(".rows .line")].some((l) => l.textContent === document.querySelector(".log-line pre").textContent)`)
		b.until(`document.querySelector(".log-line a").getAttribute("href") === "#/car/car_0001"`)
		b.fits()
		b.picture(fmt.Sprintf("log-%d", width))
		for _, lack := range eval[[]string](b, audit) {
			t.Errorf("%d: %s", width, lack)
		}
		b.press(button("Close"))
		b.press(button("all"))
		b.slash()
		b.keys("nothing like that")
		b.says(".empty", "No line matches the filter.")
		eval[any](b, `void (() => { const e = document.querySelector("input[type=search]"); e.value = ""; e.dispatchEvent(new Event("input")); })()`)
		b.says(".rows", "too large") // of each session anew: older lines are no longer among those in sight
		b.press(`document.querySelector(".rows .c-name a")`)
		b.until(`/^car_000[01]$/.test(document.querySelector("h1").textContent)`)
		b.press(`[...document.querySelectorAll(".crumb a")].at(-1)`)
		b.says("h1", "Log")
		b.until(`document.querySelectorAll(".rows [role=row]").length > 0 && [...document.querySelectorAll(".rows .c-name")].every((e) => /^car_000[01]$/.test(e.textContent))`)
		b.press(button("only car_000"))
		b.until(`document.querySelector(".rows [role=row]") && ![...document.querySelectorAll(".toolbar button")].some((e) => e.offsetParent && e.textContent.startsWith("only car_000"))`)
	}
	if eval[bool](b, fmt.Sprintf("document.body.innerText.includes(%q)", reader)) {
		t.Error("the log shows the token")
	}
}
