package admin_test

import (
	"strings"
	"testing"
)

// Without tiles the page may load images of this server only; with them, of their origin
// too, from the reload on that names them.
func TestMapTilesAndPolicy(t *testing.T) {
	r := newRig(t, nil, "car1")
	images := func() string {
		policy := r.do("GET", "/", "").header.Get("Content-Security-Policy")
		_, rest, _ := strings.Cut(policy, "img-src ")
		rest, _, _ = strings.Cut(rest, ";")
		return rest
	}
	var server struct {
		Map *struct {
			Tiles, Attribution string
			MaxZoom            int `json:"max_zoom"`
		}
	}
	if r.get("/api/v1/server", &server); server.Map != nil || images() != "'self' data:" {
		t.Errorf("without tiles: %+v, %s", server.Map, images())
	}
	s := defaults(r.dir, "car1")
	s["admin"].(settings)["map_tiles"] = "https://tiles.example.org:8443/{z}/{x}/{y}.png"
	s["admin"].(settings)["map_attribution"] = "the owners"
	r.write(s)
	if a := r.reload(); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.text())
	}
	r.get("/api/v1/server", &server)
	if m := server.Map; m == nil || m.Tiles != "https://tiles.example.org:8443/{z}/{x}/{y}.png" || m.Attribution != "the owners" || m.MaxZoom != 19 {
		t.Errorf("with tiles: %+v", m)
	}
	if got := images(); got != "'self' data: https://tiles.example.org:8443" {
		t.Errorf("images of %s", got)
	}
	var v any
	r.get("/api/v1/server", &v)
	openAPI(t).check("Server", v)
}
