package observe

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	otlpcollector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"external-server/internal/car"
	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/session"
)

// receiver is a small OTLP/HTTP receiver.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*otlp.Span
	path  string
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body := io.Reader(req.Body)
		if req.Header.Get("Content-Encoding") == "gzip" {
			unzipped, err := gzip.NewReader(req.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = unzipped
		}
		raw, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		var msg otlpcollector.ExportTraceServiceRequest
		if err := proto.Unmarshal(raw, &msg); err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.path = req.URL.Path
		for _, rs := range msg.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				r.spans = append(r.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// described returns the spans in words: parent/name from-to status.
func (r *receiver) described() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := map[string]string{}
	for _, s := range r.spans {
		names[string(s.SpanId)] = s.Name
	}
	var out []string
	for _, s := range r.spans {
		of := func(ns uint64) float64 { return time.Unix(0, int64(ns)).Sub(start).Seconds() }
		text := fmt.Sprintf("%s/%s %g-%g", names[string(s.ParentSpanId)], s.Name, of(s.StartTimeUnixNano), of(s.EndTimeUnixNano))
		if s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR {
			text += " " + s.Status.Message
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}

func forward(c *Car, counter uint32, sequence uint64, received, forwarded float64) {
	c.Observe(&car.Event{Kind: car.Forwarded, At: at(forwarded), Since: at(received), Device: lamp, Counter: counter, Sequence: sequence, OK: true})
}

func answered(c *Car, counter uint32, when float64) {
	c.Observe(&car.Event{Kind: car.Sent, At: at(when), OK: true, Out: fleet.ServerMessage{Kind: fleet.ServerStatusResponse, Counter: counter}})
}

func called(c *Car, sequence uint64, from, to float64, err error) {
	c.Observe(&car.Event{Kind: car.Called, At: at(to), Took: at(to).Sub(at(from)), Module: 2, Device: lamp, Call: module.CallStatus, Sequence: sequence, Err: err})
}

// TestTracesAfterLostStatuses: statuses that were lost with their module are not
// waited for until nothing is traced any more.
func TestTracesAfterLostStatuses(t *testing.T) {
	r := newReceiver(t)
	h := newHub(t, Options{Tracing: &Tracing{Endpoint: r.URL, SampleRatio: 1}})
	c := h.Car(carID)
	for n := range uint64(keptTraces) {
		forward(c, uint32(n), n, 1, 2)
		answered(c, uint32(n), 3)
	}
	late := 2 * traceLimit.Seconds()
	forward(c, 100, 100, late, late+1)
	answered(c, 100, late+2)
	called(c, 100, late+3, late+4, nil)
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.described(); !slices.Contains(got, fmt.Sprintf("/status %g-%g", late, late+4)) {
		t.Errorf("the status after the lost ones is not traced: %q", got)
	}
}

func TestTraces(t *testing.T) {
	r := newReceiver(t)
	h := newHub(t, Options{Tracing: &Tracing{Endpoint: r.URL, SampleRatio: 1}})
	c := h.Car(carID)
	// Answered before and after the module was called.
	forward(c, 1, 1, 1, 2)
	answered(c, 1, 3)
	called(c, 1, 4, 5, nil)
	forward(c, 2, 2, 11, 12)
	called(c, 2, 12, 13, errors.New("module fault"))
	answered(c, 2, 14)
	cmd := fleet.Command{Device: lamp, Fetched: at(20)}
	c.Observe(&car.Event{Kind: car.CommandSent, At: at(21), Device: lamp, Counter: 3, Command: cmd})
	c.Observe(&car.Event{Kind: car.CommandSent, At: at(21), Device: lamp, Counter: 4, Command: cmd})
	c.Observe(&car.Event{Kind: car.CommandAnswered, At: at(22), Device: lamp, Counter: 3, Command: cmd})
	forward(c, 3, 3, 31, 32) // never answered, the session ends
	c.Observe(&car.Event{Kind: car.SessionEnded, At: at(40), Reason: string(session.ReasonSessionTimeout)})
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/command 20-22", "/command 20-40 session timeout", "/status 1-5", "/status 11-14 module fault", "/status 31-32 session timeout",
		"command/car 20-21", "command/car 20-21", "command/gateway 21-22", "command/gateway 21-40",
		"status/answer 12-14", "status/answer 2-3", "status/forward_status 12-13 module fault", "status/forward_status 4-5",
		"status/module queue 12-12", "status/module queue 2-4", "status/session 1-2", "status/session 11-12", "status/session 31-32",
	}
	if got := r.described(); !slices.Equal(got, want) {
		t.Errorf("spans\n got %q\nwant %q", got, want)
	}
	if r.path != "/v1/traces" {
		t.Errorf("path %s", r.path)
	}
	for _, s := range r.spans {
		if s.ParentSpanId == nil && len(s.Attributes) < 5 {
			t.Errorf("attributes of %s: %v", s.Name, s.Attributes)
		}
	}
}

// A receiver that is gone or broken costs a warning, limited, and nothing else.
func TestTracesWithoutReceiver(t *testing.T) {
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	defer broken.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, endpoint := range []string{broken.URL, gone.URL} {
		var log bytes.Buffer
		h := newHub(t, Options{Tracing: &Tracing{Endpoint: endpoint, SampleRatio: 1}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		c := h.Car(carID)
		for i := range 1000 { // with their five spans more than the queue of the exporter holds
			forward(c, uint32(i), uint64(i), 1, 2)
			called(c, uint64(i), 2, 3, nil)
			answered(c, uint32(i), 4)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		if n := strings.Count(log.String(), "traces could not be exported"); n < 1 || n > 3 {
			t.Errorf("%d warnings, want few:\n%s", n, log.String())
		}
	}
}

// Whatever is sampled and never finished is bounded.
func TestTracesUnderWayAreBounded(t *testing.T) {
	h := newHub(t, Options{Tracing: &Tracing{Endpoint: newReceiver(t).URL, SampleRatio: 1}})
	c := h.Car(carID)
	for i := range 10 * keptTraces {
		forward(c, uint32(i), uint64(i), 1, 2)
		c.Observe(&car.Event{Kind: car.CommandSent, At: at(21), Device: lamp, Counter: uint32(i), Command: fleet.Command{Fetched: at(1)}})
	}
	if n, m := len(c.tracing.statuses), len(c.tracing.commands); n != keptTraces || m != keptTraces {
		t.Errorf("%d statuses and %d commands are kept", n, m)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTracingEndpoint(t *testing.T) {
	for _, endpoint := range []string{"", "nonsense", "http://"} {
		if _, err := New(Options{Tracing: &Tracing{Endpoint: endpoint}}); err == nil || !strings.Contains(err.Error(), "tracing.endpoint") {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

// BenchmarkStatus is what observing costs per status: received, forwarded,
// answered, delivered. With tracing off there is nothing of it in it.
func BenchmarkStatus(b *testing.B) {
	run := func(b *testing.B, opts Options) {
		h := newHub(b, opts)
		c := h.Car(carID)
		connect(c, "s1", time.Now(), lamp)
		in := status(lamp, 1, strings.Repeat("x", 100), time.Now())
		fwd := &car.Event{Kind: car.Forwarded, At: in.At, Since: in.At, Device: lamp, OK: true}
		out := &car.Event{Kind: car.Sent, At: in.At, Since: in.At, OK: true, Out: fleet.ServerMessage{Kind: fleet.ServerStatusResponse}}
		done := &car.Event{Kind: car.Called, At: in.At, Module: 2, Device: lamp, Call: module.CallStatus, Wait: time.Microsecond, Took: time.Microsecond}
		b.ReportAllocs()
		for b.Loop() {
			c.Observe(in)
			c.Observe(fwd)
			c.Observe(out)
			c.Observe(done)
		}
		b.StopTimer()
		if err := h.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("metrics", func(b *testing.B) { run(b, Options{}) })
	b.Run("tracing", func(b *testing.B) {
		run(b, Options{Tracing: &Tracing{Endpoint: "http://127.0.0.1:1", SampleRatio: 0.01}})
	})
}

// Observing a status allocates nothing.
func TestStatusAllocatesNothing(t *testing.T) {
	c := newHub(t, Options{}).Car(carID)
	connect(c, "s1", at(0), lamp)
	events := []*car.Event{
		status(lamp, 1, strings.Repeat("x", 100), at(1)),
		{Kind: car.Forwarded, At: at(1), Since: at(1), Device: lamp, OK: true},
		{Kind: car.Sent, At: at(1), Since: at(1), OK: true, Out: fleet.ServerMessage{Kind: fleet.ServerStatusResponse}},
		{Kind: car.Called, At: at(1), Module: 2, Device: lamp, Call: module.CallStatus},
	}
	if n := testing.AllocsPerRun(100, func() {
		for _, ev := range events {
			c.Observe(ev)
		}
	}); n > 0 {
		t.Errorf("%v allocations per status", n)
	}
}
