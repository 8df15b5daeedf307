package admin_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"external-server/internal/admin"
	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/observe"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// bare is an endpoint with a hub and without a server behind it: streams need no
// more.
func bare(t *testing.T, o admin.Options) (*rig, *observe.Hub) {
	t.Helper()
	hub, err := observe.New(observe.Options{Events: 1000})
	if err != nil {
		t.Fatal(err)
	}
	o.Hub, o.Config, o.Logger = hub, config.Admin{Listen: "127.0.0.1:0"}, slog.New(slog.DiscardHandler)
	s, err := admin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, base: "http://" + s.Addr().String(), http: &http.Client{Transport: &http.Transport{}}, log: &testlog.Buffer{}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		r.http.CloseIdleConnections()
	})
	return r, hub
}

func TestResume(t *testing.T) {
	r, hub := bare(t, admin.Options{})
	put := func(n int) { hub.Events.Put(observe.Event{Kind: observe.KindFault, Car: "car1", Count: n}) }
	for n := range 3 {
		put(n)
	}
	s := r.stream("/api/v1/events?after=0")
	var ids []string
	for range 3 {
		ids = append(ids, s.next(nil).id)
	}
	s = r.stream("/api/v1/events", "Last-Event-ID", ids[0])
	if ev := s.next(nil); ev.id != ids[1] {
		t.Errorf("resumed with %s, want %s", ev.id, ids[1])
	}
	s = r.stream("/api/v1/events?after=" + ids[1])
	if ev := s.next(nil); ev.id != ids[2] {
		t.Errorf("resumed with %s, want %s", ev.id, ids[2])
	}
	s = r.stream("/api/v1/events") // only what is to come
	put(7)
	if ev := s.next(nil); ev.data["count"] != 7.0 {
		t.Errorf("first event %v", ev.data)
	}
	s = r.stream("/api/v1/events", "Last-Event-ID", "before-17") // of another run
	if ev := s.next(nil); ev.kind != "gap" {
		t.Errorf("first event %v", ev)
	}
	if ev := s.next(nil); ev.id != ids[0] {
		t.Errorf("then %v", ev)
	}
	for n := range 2000 { // more than are kept
		put(n)
	}
	s = r.stream("/api/v1/events", "Last-Event-ID", ids[2])
	if ev := s.next(nil); ev.kind != "gap" || ev.data["lost"].(float64) < 900 {
		t.Errorf("first event %v", ev)
	}
	s.next(nil) // and it goes on
	other := r.stream("/api/v1/events?after=0&car=car2")
	hub.Events.Put(observe.Event{Kind: observe.KindFault, Car: "car2"})
	if ev := other.next(func(ev sent) bool { return ev.kind != "gap" }); ev.data["car"] != "car2" {
		t.Errorf("event of %v", ev.data["car"])
	}
}

// A reader that does not read is dropped without waiting for it.
func TestSlowReader(t *testing.T) {
	r, hub := bare(t, admin.Options{StreamTimeout: 200 * time.Millisecond})
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET /api/v1/events?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	text := strings.Repeat("x", 60_000)
	reader := r.stream("/api/v1/events")
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for n := range 400 { // 24 MB: more than buffers hold
			hub.Events.Put(observe.Event{Kind: observe.KindFault, Text: text, Count: n})
		}
	}()
	<-gone // the events were put without waiting for anybody
	// The other reader was served or told what it has missed.
	if ev := reader.next(nil); ev.kind != "fault" && ev.kind != "gap" {
		t.Errorf("event %v", ev.kind)
	}
	// The connection ends although we never read, whenever its stream has begun.
	if err := conn.SetReadDeadline(time.Now().Add(testwait.Patience)); err != nil {
		t.Fatal(err)
	}
	r.wait("the stream to be dropped", func() bool {
		_, err := conn.Write([]byte("x"))
		return err != nil
	})
}

// Silent streams send something, so that proxies and readers know they live.
func TestHeartbeat(t *testing.T) {
	r, _ := bare(t, admin.Options{Heartbeat: 10 * time.Millisecond})
	s := r.stream("/api/v1/events")
	for beats := 0; beats < 3; {
		if !s.lines.Scan() {
			t.Fatal("the stream ended")
		}
		if strings.HasPrefix(s.lines.Text(), ":") {
			beats++
		}
	}
}

// Streams are bounded, and do not use up the room of other requests.
func TestStreamsAreBounded(t *testing.T) {
	r, hub := bare(t, admin.Options{})
	hub.Car(fleet.CarID{Company: "acme", Car: "car1"})
	var open []*sse
	for range 64 {
		open = append(open, r.stream("/api/v1/cars/car1/messages"))
	}
	a := r.do("GET", "/api/v1/events", "")
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("one stream too many: %d %s", a.status, a.text())
	}
	if a := r.do("GET", "/healthz", ""); a.status != 200 {
		t.Errorf("healthz beside the streams: %d", a.status)
	}
	for _, s := range open {
		s.close()
	}
	r.wait("room for a stream", func() bool {
		resp, err := r.http.Get(r.base + "/api/v1/events")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
	if a := r.do("GET", "/api/v1/cars/nobody/messages", ""); a.status != 404 {
		t.Errorf("messages of nobody: %d", a.status)
	}
}
