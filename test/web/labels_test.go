package web

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/browser"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// labelled serves cars with labels, one of which has long ones.
func labelled(t *testing.T) *server {
	t.Helper()
	cars := []string{"car_1", "car_2", "car_10", "car_11"}
	s := prepare(t, cars, false, nil)
	served := s["cars"].(servertest.Map)
	served["car_1"] = servertest.Map{"labels": servertest.Map{"depot": "Praha"}}
	served["car_2"] = servertest.Map{"labels": servertest.Map{"depot": "Brno střed", "model": "shuttle"}}
	served["car_10"] = servertest.Map{"labels": servertest.Map{"depot": "Brno střed", "model": "=1+1"}}
	served["car_11"] = servertest.Map{"labels": servertest.Map{"depot": "Praha", strings.Repeat("n", 32): strings.Repeat("W", 64)}}
	return launch(t, s, s["embedded_broker"].(servertest.Map)["listen"].(string))
}

// Cars are filtered by their labels; the address keeps the filter, and counts are those
// of the cars with these labels.
func TestLabelFilter(t *testing.T) {
	t.Parallel()
	s := labelled(t)
	connect(t, s, []string{"car_2"})
	b := newTab(t, 1360, 860)
	b.open(s.url)
	b.says("h1", "3 of 4 cars are not connected.")
	b.says(".rows", "depot=Brno střed model=shuttle")
	choose := func(label string) {
		t.Helper()
		b.until(`[...document.querySelector("[aria-label='Filter by a label']").options].some((o) => o.value === "` + label + `")`)
		eval[any](b, `void (() => { const c = document.querySelector("[aria-label='Filter by a label']"); c.value = "`+label+`"; c.dispatchEvent(new Event("change")); })()`)
	}
	choose("depot=Brno střed")
	b.says("h1", "1 of 2 cars with depot=Brno střed is not connected.")
	b.says("#matched", "2 cars shown")
	b.until(`new URLSearchParams(location.hash.split("?")[1]).get("label") === "depot=Brno střed"`)
	choose("model=shuttle")
	b.says("h1", "The only car with depot=Brno střed, model=shuttle is connected.")
	b.press(`document.querySelector("[aria-label='Remove the filter depot=Brno střed']")`)
	b.says("h1", "The only car with model=shuttle is connected.")
	b.picture("labels")

	// The address alone is enough, and the filter is taken away with the others.
	b.open(s.url + "?again#/?label=depot%3DPraha")
	b.says("h1", "2 of 2 cars with depot=Praha are not connected.")
	b.says("#matched", "2 cars shown")
	b.press(button("Clear filter"))
	b.says("h1", "3 of 4 cars")
	eval[any](b, `void document.querySelector("#filter").focus()`)
	b.keys("model=SHU")
	b.says("#matched", "1 car shown")

	// From the page of a car to those like it.
	b.open(s.url + "#/car/car_2")
	b.press(`[...document.querySelectorAll(".labels a")].find((a) => a.innerText === "depot=Brno střed")`)
	b.says("h1", "1 of 2 cars with depot=Brno střed is not connected.")

	// Long labels push nothing out of a phone.
	b.resize(390, 800)
	b.open(s.url + "#/car/car_11")
	b.says(".labels", "WWWW")
	b.fits()
	b.picture("labels-car-phone")
	b.press(`[...document.querySelectorAll(".labels a")].find((a) => a.innerText.includes("WWWW"))`)
	b.says("h1", "1 of 1 car with")
	b.fits()
	b.picture("labels-phone")
}

// The list that is shown can be saved as a table: all columns, filtered as on the page, in
// the order in which people count.
func TestExport(t *testing.T) {
	t.Parallel()
	s := labelled(t)
	connect(t, s, []string{"car_2"})
	b := newTab(t, 390, 800)
	dir := t.TempDir()
	call(b, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: dir})
	saved := func(query string) (rows [][]string) {
		t.Helper()
		b.open(s.url + "?" + query + "#/?" + query)
		b.says("h1", "not connected")
		b.press(button("Export CSV"))
		b.says("#toasts", "The table is saved.")
		var raw []byte
		testwait.Until(t, "the whole file", func() bool { // the browser makes it empty and fills it
			found, err := filepath.Glob(filepath.Join(dir, "cars-*.csv"))
			if err != nil || len(found) != 1 {
				return false
			}
			raw, err = os.ReadFile(found[0])
			return err == nil && strings.HasSuffix(string(raw), "\r\n") && os.Remove(found[0]) == nil
		})
		var err error
		text, marked := strings.CutPrefix(string(raw), "\ufeff")
		if rows, err = csv.NewReader(strings.NewReader(text)).ReadAll(); err != nil || !marked {
			t.Fatalf("%v: %q", err, raw)
		}
		return rows
	}
	names := func(rows [][]string) (out []string) {
		for _, row := range rows[1:] {
			out = append(out, row[0])
		}
		return out
	}
	rows := saved("sort=statuses&order=desc")
	if got := names(rows); !slices.Equal(got, []string{"car_1", "car_2", "car_10", "car_11"}) {
		t.Errorf("saved are %q", got)
	}
	if model := rows[3][slices.Index(rows[0], "label.model")]; model != "'=1+1" {
		t.Errorf("a spreadsheet computes %q", model)
	}
	if got := names(saved("label=depot%3DBrno+st%C5%99ed&q=car")); !slices.Equal(got, []string{"car_2", "car_10"}) {
		t.Errorf("saved are %q", got)
	}
	if got := names(saved("q=Praha&state=waiting&why=its+gateway+has+not+been+heard+since+the+start+of+the+server")); !slices.Equal(got, []string{"car_1", "car_11"}) {
		t.Errorf("saved are %q", got)
	}
}
