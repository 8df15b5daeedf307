package admin_test

import (
	"encoding/csv"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Labels select cars, in the list, in its table and after a reload, which ends no session.
// No metric has them.
func TestLabels(t *testing.T) {
	edit := func(s settings) {
		cars := s["cars"].(settings)
		cars["car_2"] = settings{"labels": settings{"depot": "Brno střed", "model": "shuttle"}}
		cars["car_10"] = settings{"labels": settings{"depot": "Brno střed", "model": "=cmd"}}
		cars["car_1"] = settings{"labels": settings{"depot": "Praha"}}
	}
	r := newRig(t, edit, "car_1", "car_2", "car_10", "car_11")
	r.car("car_2")
	session, _ := r.session("car_2")
	var list struct {
		Total, Matched int
		Cars           []struct {
			Name   string
			Labels map[string]string
		}
	}
	get := func(query string) []string {
		t.Helper()
		r.get("/api/v1/cars?"+query, &list)
		var out []string
		for _, c := range list.Cars {
			out = append(out, c.Name)
		}
		return out
	}
	for query, want := range map[string][]string{
		"":                                  {"car_1", "car_2", "car_10", "car_11"},
		"label=depot=Brno+st%C5%99ed":       {"car_2", "car_10"},
		"label=depot":                       {"car_1", "car_2", "car_10"},
		"label=depot&label=model%3Dshuttle": {"car_2"},
		"label=depot=brno":                  nil,
		"label=nothing":                     nil,
		"find=st%C5%98ed":                   {"car_2", "car_10"},
		"find=model%3Dshu":                  {"car_2"},
		"find=car_1":                        {"car_1", "car_10", "car_11"},
		"find=not+been+heard&label=depot":   {"car_1", "car_10"},
		"why=its+gateway+has+not+been+heard+since+the+start+of+the+server": {"car_1", "car_10", "car_11"},
		"why=its+gateway": nil,
	} {
		if got := get(query); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for _, bad := range []string{"label=", "label==x", "label=depot=", "format=xml", strings.Repeat("label=a&", 17)} {
		if a := r.do("GET", "/api/v1/cars?"+bad, ""); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", bad, a.status, a.text())
		}
	}
	var v any
	r.get("/api/v1/cars", &v)
	openAPI(t).check("CarList", v)
	r.get("/api/v1/cars/car_2", &v)
	openAPI(t).check("Car", v)

	a := r.do("GET", "/api/v1/cars?format=csv&label=depot", "")
	rows, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
	if err != nil || a.header.Get("Content-Type") != "text/csv; charset=utf-8" || !strings.HasPrefix(a.header.Get("Content-Disposition"), `attachment; filename="cars-`) || len(rows) != 4 {
		t.Fatalf("%v, %v: %s", err, a.header, a.body)
	}
	at := func(row int, column string) string { return rows[row][slices.Index(rows[0], column)] }
	if at(1, "name") != "car_1" || at(2, "name") != "car_2" || at(3, "name") != "car_10" || at(2, "state") != "running" || at(2, "session") != session ||
		at(3, "label.model") != "'=cmd" || at(2, "label.depot") != "Brno střed" || at(1, "label.model") != "" {
		t.Errorf("the table is %q", rows)
	}

	for _, word := range []string{"Brno", "shuttle", "depot"} {
		if text := r.do("GET", "/metrics", "").text(); strings.Contains(text, word) {
			t.Errorf("a metric has %s", word)
		}
	}

	s := defaults(r.dir, "car_1", "car_2", "car_10", "car_11")
	s["cars"].(settings)["car_2"] = settings{"labels": settings{"depot": "Praha"}}
	r.write(s)
	if a := r.reload(); a.status != 200 || !strings.Contains(a.text(), "0 cars added, 0 removed, 0 changed, 4 unchanged, of which 3 have other labels") {
		t.Fatalf("%d %s", a.status, a.text())
	}
	if got := get("label=depot=Praha"); !slices.Equal(got, []string{"car_2"}) {
		t.Errorf("after the reload %q", got)
	}
	if after, _ := r.session("car_2"); after != session {
		t.Error("the reload of labels has ended a session")
	}
}
