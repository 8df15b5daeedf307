package web

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/support/servertest"
)

var autonomy = fleet.Device{Module: 1, Type: 1, Role: "driving", Name: "autonomy"}

// stand lets the car stand at a place.
func stand(g *gateway.Gateway, latitude, longitude float64) {
	g.Status(autonomy, fmt.Appendf(nil, `{"state":"IDLE","telemetry":{"speed":0,"fuel":1,"position":{"latitude":%v,"longitude":%v,"altitude":0}},"nextStop":null}`, latitude, longitude), time.Time{})
}

// tileServer serves tiles up to a zoom, and remembers who asked for what.
type tileServer struct {
	*httptest.Server
	mu       sync.Mutex
	asked    map[string]bool
	referers map[string]bool
}

func startTiles(t *testing.T, most int) *tileServer {
	var tile bytes.Buffer
	picture := image.NewRGBA(image.Rect(0, 0, 256, 256))
	for i := range 256 {
		for j := range 256 {
			shade := uint8(200 + (i/32+j/32)%2*30)
			picture.Set(i, j, color.RGBA{shade, 230, shade, 255})
		}
	}
	if err := png.Encode(&tile, picture); err != nil {
		t.Fatal(err)
	}
	s := &tileServer{asked: map[string]bool{}, referers: map[string]bool{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var z, x, y int
		_, err := fmt.Sscanf(r.URL.Path, "/t/%d/%d/%d.png", &z, &x, &y)
		s.mu.Lock()
		s.asked[r.URL.Path+"?"+r.URL.RawQuery] = true
		s.referers[r.Header.Get("Referer")] = true
		s.mu.Unlock()
		if err != nil || z > most || x < 0 || y < 0 || x >= 1<<z || y >= 1<<z {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write(tile.Bytes())
	}))
	t.Cleanup(s.Close)
	return s
}

// The tiles of the configuration lie below the cars, each where it belongs, at every zoom;
// they are asked for by their own addresses and told the page's origin only.
func TestTiles(t *testing.T) {
	t.Parallel()
	const latitude, longitude, most = 49.1951, 16.6068, 16
	tiles := startTiles(t, most)
	s := startServer(t, names(1), true, servertest.Map{
		"map_tiles": tiles.URL + "/t/{z}/{x}/{y}.png?key=k", "map_attribution": "© the owners of the tiles", "map_max_zoom": most,
	})
	stand(connect(t, s, names(1))["car_0000"], latitude, longitude)
	b := newTab(t, 1360, 860)
	b.open(s.url + "#/map")
	b.says(".attribution", "© the owners of the tiles")
	const whole = `(() => { const t = [...document.querySelectorAll(".tiles img")]; return t.length > 0 && t.every((i) => i.dataset.state === "loaded"); })()`
	// The only car is in the middle of the map. The tile that it is on says where the middle
	// is by the address it was asked for.
	where := func() string {
		return fmt.Sprintf(`(() => {
			const middle = document.querySelector("canvas").getBoundingClientRect();
			return [...document.querySelectorAll(".tiles img[data-state=loaded]")].some((img) => {
				const [z, x, y] = img.src.match(/\d+\/\d+\/\d+/)[0].split("/").map(Number), box = img.getBoundingClientRect();
				const left = box.left + (%[1]v * 2 ** z - x) * box.width, top = box.top + (%[2]v * 2 ** z - y) * box.height;
				return left >= box.left && left <= box.right && Math.abs(left - middle.left - middle.width / 2) < 2 && Math.abs(top - middle.top - middle.height / 2) < 2;
			});
		})()`, (longitude+180)/360, 0.5-math.Log(math.Tan(math.Pi/4+latitude*math.Pi/360))/(2*math.Pi))
	}
	// No place of the map is without a tile.
	const covered = `(() => {
		const m = document.querySelector(".tiles").getBoundingClientRect();
		for (let i = 1; i < 10; i++) for (let j = 1; j < 10; j++) {
			const x = m.left + m.width * i / 10, y = m.top + m.height * j / 10;
			if (![...document.querySelectorAll(".tiles img")].some((t) => { const b = t.getBoundingClientRect(); return b.left <= x && b.right >= x && b.top <= y && b.bottom >= y; })) return false;
		}
		return true;
	})()`
	for range 4 {
		b.until(whole)
		b.until(where())
		b.until(covered)
		b.press(`document.querySelector("[aria-label='Zoom out']")`)
	}
	b.picture("map-tiles")
	b.press(`document.querySelector("[aria-label='Show all']")`)
	for range 4 { // nearer than there are tiles: the nearest ones are enlarged
		b.press(`document.querySelector("[aria-label='Zoom in']")`)
	}
	b.until(whole)
	b.until(where())
	b.until(`[...document.querySelectorAll(".tiles img")].every((t) => t.getBoundingClientRect().width > 300)`)

	b.resize(390, 800)
	b.media("prefers-color-scheme", "dark")
	b.open(s.url + "#/car/car_0000")
	b.until(whole)
	b.until(where())
	b.fits()
	b.picture("map-tiles-phone")

	tiles.mu.Lock()
	defer tiles.mu.Unlock()
	for path := range tiles.asked {
		if !strings.HasPrefix(path, "/t/") || !strings.HasSuffix(path, ".png?key=k") {
			t.Errorf("asked for %s", path)
		}
	}
	for referer := range tiles.referers {
		if referer != s.url {
			t.Errorf("the owner of the tiles was told %q, expected %q", referer, s.url)
		}
	}
}

// When no tile comes the map says so, and shows the cars all the same.
func TestNoTiles(t *testing.T) {
	t.Parallel()
	tiles := startTiles(t, -1)
	s := startServer(t, names(1), true, servertest.Map{"map_tiles": tiles.URL + "/t/{z}/{x}/{y}.png"})
	stand(connect(t, s, names(1))["car_0000"], 49.1951, 16.6068)
	b := newTab(t, 390, 800)
	b.expect("404")
	b.open(s.url + "#/map")
	b.says(".attribution", "No tile of the map came from "+strings.TrimPrefix(tiles.URL, "http://"))
	b.says(".maplist", "car_0000")
	b.fits()
}
