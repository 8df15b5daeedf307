package web

import "testing"

// Cars are listed as people count, on the page and by the endpoint.
func TestNaturalOrder(t *testing.T) {
	s := startServer(t, []string{"car_10", "car_2", "car_1", "tram_3"}, false, nil)
	b := newTab(t, 390, 800)
	b.open(s.url + "#/?sort=name")
	b.until(`document.querySelectorAll(".cars .rows [role=row]").length === 4`)
	if got := eval[string](b, `[...document.querySelectorAll(".cars .rows [role=row]")].sort((a, b) => a.getAttribute("aria-rowindex") - b.getAttribute("aria-rowindex"))
		.map((row) => row.textContent.match(/(car|tram)_[0-9]+/)[0]).join(" ")`); got != "car_1 car_2 car_10 tram_3" {
		t.Errorf("listed are %s", got)
	}
	list := get[struct{ Cars []struct{ Name string } }](t, s, "api/v1/cars", "")
	names := ""
	for _, c := range list.Cars {
		names += c.Name + " "
	}
	if names != "car_1 car_2 car_10 tram_3 " {
		t.Errorf("the endpoint lists %s", names)
	}
	b.fits()
}
