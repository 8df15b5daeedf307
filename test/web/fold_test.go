package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"external-server/internal/support/testwait"
)

// order sends a command as the page does.
func order(t testing.TB, s *server, car, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testwait.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"api/v1/cars/"+car+"/commands", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-External-Server", "test")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		t.Fatal(answer.Status)
	}
}

// Long payloads and many commands fold, and nothing of them pushes a page out of a phone.
func TestLongThingsFold(t *testing.T) {
	t.Parallel()
	s := startServer(t, names(1), true, nil)
	g := connect(t, s, names(1))["car_0000"]
	stand(g, 49, 16)
	testwait.Until(t, "the device in the HTTP API", func() bool {
		type targets struct{ Devices []any }
		return len(get[targets](t, s, "api/v1/cars/car_0000/commands", "").Devices) == 1
	})
	for i := range 12 {
		order(t, s, "car_0000", fmt.Sprintf(`{"device_id":{"module_id":1,"type":1,"role":"driving","name":"autonomy"},"payload":{"data":{"action":"STOP","route":%q,"stops":[]}}}`,
			fmt.Sprint(i, strings.Repeat("W", 900))))
	}
	var lines []string
	for i := range 45 { // less than the 4 KiB that are remembered
		lines = append(lines, fmt.Sprintf(`"member_%d": [%d, "a text that fills the line so that it stays one"]`, i, i))
	}
	long := button1
	long.Role, long.Name = strings.Repeat("r", 1500), strings.Repeat("N", 1500)
	g.Status(button1, []byte("{"+strings.Join(lines, ", ")+"}"), time.Time{})
	g.Status(long, []byte(`"`+strings.Repeat("x", 3500)+`"`), time.Time{})
	b := newTab(t, 390, 800)
	b.open(s.url + "#/car/car_0000")
	const cards = `document.querySelectorAll(".commands > li").length`
	b.until(cards + " === 4")
	b.fits()
	b.press(button("Show all 10 commands"))
	b.until(cards + " === 10")
	b.fits()
	b.press(button("Show fewer"))
	b.until(cards + " === 4")
	b.says(".commands", "acknowledged")
	b.press(`document.querySelector(".commands details summary")`)
	b.fits()

	folded := func(words string) string {
		return fmt.Sprintf(`[...document.querySelectorAll(".devices pre")].find((p) => p.textContent.includes(%q))`, words)
	}
	for _, words := range []string{"member_44", "xxxx"} {
		b.until(folded(words) + ".classList.contains('folded')")
		b.until(folded(words) + ".clientHeight < 200")
		b.press(folded(words) + ".parentElement.querySelector('.fold')")
		b.until("!" + folded(words) + ".classList.contains('folded')")
		b.until(folded(words) + ".clientHeight > 200")
		b.fits()
	}
	b.says(".devices", "Show less")
	b.picture("folded-phone")
	for _, page := range []string{"", "map", "modules", "events", "server"} {
		b.open(s.url + "#/" + page)
		b.until(`document.querySelector("h1")?.innerText`)
		b.fits()
	}
}
