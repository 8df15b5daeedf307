package web

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"external-server/internal/support/testwait"
)

// With ten thousand cars only the visible rows exist, wherever the list is
// scrolled to and however it is sorted and filtered.
func TestTenThousandCars(t *testing.T) {
	t.Parallel()
	cars := names(10_000)
	s := startServer(t, cars, false, nil)
	connect(t, s, cars[:200])
	testwait.Until(t, "the gateways are connected", func() bool { return states(t, s, "")["running"] == 200 })
	b := newTab(t, 1360, 860)
	b.media("prefers-color-scheme", "dark")
	b.open(s.url)
	b.says("h1", "9,800 of 10,000 cars are not connected.")
	few := func() {
		t.Helper()
		if n := eval[int](b, `document.querySelectorAll(".rows [role=row]").length`); n < 10 || n > 80 {
			t.Errorf("%d rows exist", n)
		}
	}
	few()
	eval[any](b, "void scrollTo(0, document.documentElement.scrollHeight / 2)")
	b.until(`[...document.querySelectorAll(".rows [role=row]")].some((r) => { const y = r.getBoundingClientRect().top; return y > 300 && y < 400; })`)
	few()
	b.picture("fleet-10000-dark")
	eval[any](b, `void document.querySelector(".rows a[tabindex='0']").focus()`)
	b.keys(kb.End)
	b.until(`document.activeElement.closest("[role=row]")?.ariaRowIndex === "10001"`)
	few()
	b.press(`document.querySelector("[data-sort=statuses]")`)
	b.until(`document.querySelector(".c-statuses[role=columnheader]").getAttribute("aria-sort") === "descending"`)
	b.press(button("connected"))
	b.says("#matched", "200 cars shown")

	// What one frame of work costs here; for the log, machines differ.
	eval[any](b, `void document.querySelector("#filter").focus()`)
	b.press(button("Clear filter"))
	took := eval[[]float64](b, `(() => {
		const out = [];
		const input = document.querySelector("#filter");
		for (const key of ["name", "why", "statuses", "state"]) {
			const t = performance.now();
			document.querySelector("[data-sort=" + key + "]").click();
			document.body.offsetHeight;
			out.push(performance.now() - t);
		}
		return out;
	})()`)
	t.Logf("sorting 10,000 cars by name, why, statuses, state: %.0f ms", took)
	b.resize(380, 800)
	b.fits()
	b.picture("fleet-10000-phone")
	size := eval[string](b, `(() => { const e = performance.getEntriesByType("resource").filter((e) => e.name.includes("/cars?")).at(-1); return e.encodedBodySize + " of " + e.decodedBodySize; })()`)
	t.Log("bytes of the list on the wire: " + size)
	var sent, whole int
	if _, err := fmt.Sscanf(size, "%d of %d", &sent, &whole); err != nil || whole < 1_000_000 || sent > whole/4 {
		t.Errorf("the list is %s bytes on the wire, expected it compressed", size)
	}
}
