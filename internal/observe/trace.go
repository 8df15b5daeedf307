package observe

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"external-server/internal/car"
	"external-server/internal/fleet"
	"external-server/internal/logging"
	"external-server/internal/module"
)

// Tracing are the settings of the export of traces.
type Tracing struct {
	Endpoint    string  // URL of an OTLP/HTTP receiver; without path, /v1/traces
	SampleRatio float64 // 0 to 1: which part of the statuses and commands is traced
}

// tracer samples and exports the ways of statuses and commands. Spans are made
// when a way is complete, with the times the events brought: nothing is carried
// along the way, and what is not sampled costs one random number.
type tracer struct {
	ratio    float64
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

func newTracer(t Tracing, version string, log *slog.Logger) (*tracer, error) {
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("tracing.endpoint %q: expected a URL such as http://127.0.0.1:4318", t.Endpoint)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(u.String()),
		otlptracehttp.WithTimeout(5*time.Second), otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}))
	if err != nil {
		return nil, fmt.Errorf("tracing.endpoint %q: %w", t.Endpoint, err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // we have sampled before
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "external-server"), attribute.String("service.version", version))),
		sdktrace.WithBatcher(&quietExporter{SpanExporter: exporter, log: log.With(logging.ComponentKey, logging.ComponentAdmin)},
			sdktrace.WithMaxQueueSize(4096), sdktrace.WithBatchTimeout(2*time.Second)),
	)
	return &tracer{ratio: t.SampleRatio, provider: provider, tracer: provider.Tracer("external-server")}, nil
}

func (t *tracer) close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// quietExporter logs failures, limited, and hides them from the library, which
// would print them to standard error. Spans of a failed export are lost.
type quietExporter struct {
	sdktrace.SpanExporter
	log   *slog.Logger
	limit logging.Limiter
}

func (e *quietExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.limit.Log(e.log, slog.LevelWarn, "traces could not be exported and are lost", slog.Any("error", err))
	}
	return nil
}

// keptTraces bounds the sampled ways that are under way per car; beyond it
// nothing is sampled. A status whose end is never told, because its module was
// closed with it, is given up when it is older than traceLimit.
const (
	keptTraces = 64
	traceLimit = 10 * time.Minute
)

// carTraces are the sampled ways under way of one car.
type carTraces struct {
	mu       sync.Mutex
	statuses []statusTrace
	commands []commandTrace
}

type statusTrace struct {
	device                        fleet.Device
	counter                       uint32
	sequence                      uint64
	received, forwarded, answered time.Time
	called, done                  time.Time
	err                           error
}

type commandTrace struct {
	device        fleet.Device
	module        int32
	counter       uint32
	fetched, sent time.Time
}

// trace follows the sampled ones.
func (c *Car) trace(ev *car.Event) {
	t := &c.tracing
	switch ev.Kind {
	case car.Forwarded:
		if ev.Since.IsZero() || !c.sampled() {
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if len(t.statuses) >= keptTraces {
			t.statuses = slices.DeleteFunc(t.statuses, func(s statusTrace) bool { return ev.At.Sub(s.received) > traceLimit })
		}
		if len(t.statuses) < keptTraces {
			t.statuses = append(t.statuses, statusTrace{device: ev.Device, counter: ev.Counter, sequence: ev.Sequence, received: ev.Since, forwarded: ev.At})
		}
	case car.Sent:
		if ev.Out.Kind == fleet.ServerStatusResponse {
			c.traceStatus(func(s *statusTrace) bool { return s.answered.IsZero() && s.counter == ev.Out.Counter },
				func(s *statusTrace) { s.answered = ev.At })
		}
	case car.Called:
		if ev.Call == module.CallStatus {
			c.traceStatus(func(s *statusTrace) bool { return s.sequence == ev.Sequence && s.device.Module == ev.Module },
				func(s *statusTrace) { s.called, s.done, s.err = ev.At.Add(-ev.Took), ev.At, ev.Err })
		}
	case car.CommandSent:
		if ev.Command.Fetched.IsZero() || !c.sampled() {
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if len(t.commands) < keptTraces {
			t.commands = append(t.commands, commandTrace{device: ev.Device, module: ev.Module, counter: ev.Counter, fetched: ev.Command.Fetched, sent: ev.At})
		}
	case car.CommandAnswered:
		c.traceAnswer(ev)
	case car.SessionEnded:
		c.traceEnd(ev)
	}
}

// sampled decides whether a way is followed.
func (c *Car) sampled() bool {
	r := c.hub.tracer.ratio
	return r >= 1 || rand.Float64() < r
}

// traceStatus notes a step of a sampled status and exports it when it was both
// answered and delivered; which comes first is chance.
func (c *Car) traceStatus(which func(*statusTrace) bool, step func(*statusTrace)) {
	t := &c.tracing
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.statuses {
		s := &t.statuses[i]
		if !which(s) {
			continue
		}
		step(s)
		if !s.answered.IsZero() && !s.done.IsZero() {
			c.exportStatus(*s, "")
			t.statuses = append(t.statuses[:i], t.statuses[i+1:]...)
		}
		return
	}
}

func (c *Car) traceAnswer(ev *car.Event) {
	t := &c.tracing
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.commands {
		if t.commands[i].counter == ev.Counter {
			c.exportCommand(t.commands[i], ev.At, ev.Response.String(), ev.Response != fleet.ResponseOK)
			t.commands = append(t.commands[:i], t.commands[i+1:]...)
			return
		}
	}
}

// traceEnd exports what the end of the session cuts off. Statuses that wait for
// their module only are still delivered.
func (c *Car) traceEnd(ev *car.Event) {
	t := &c.tracing
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.commands {
		c.exportCommand(s, ev.At, ev.Reason, true)
	}
	t.commands = nil
	kept := t.statuses[:0]
	for _, s := range t.statuses {
		if s.answered.IsZero() {
			c.exportStatus(s, ev.Reason)
		} else {
			kept = append(kept, s)
		}
	}
	t.statuses = kept
}

func (c *Car) attributes(d fleet.Device, counter uint32) trace.SpanStartEventOption {
	return trace.WithAttributes(
		attribute.String("company", c.id.Company), attribute.String("car", c.id.Car), attribute.String("device", d.String()),
		attribute.Int("module", int(d.Module)), attribute.Int64("counter", int64(counter)))
}

// span makes a finished child.
func (c *Car) span(ctx context.Context, name string, from, to time.Time, err error) {
	if from.IsZero() || to.Before(from) {
		return
	}
	_, s := c.hub.tracer.tracer.Start(ctx, name, trace.WithTimestamp(from))
	if err != nil {
		s.SetStatus(codes.Error, err.Error())
	}
	s.End(trace.WithTimestamp(to))
}

func (c *Car) exportStatus(s statusTrace, cut string) {
	end := s.forwarded
	for _, at := range []time.Time{s.answered, s.done} {
		if at.After(end) {
			end = at
		}
	}
	ctx, root := c.hub.tracer.tracer.Start(context.Background(), "status", trace.WithTimestamp(s.received), trace.WithSpanKind(trace.SpanKindConsumer),
		c.attributes(s.device, s.counter))
	c.span(ctx, "session", s.received, s.forwarded, nil)
	c.span(ctx, "answer", s.forwarded, s.answered, nil)
	c.span(ctx, "module queue", s.forwarded, s.called, nil)
	c.span(ctx, string(module.CallStatus), s.called, s.done, s.err)
	switch {
	case cut != "":
		root.SetStatus(codes.Error, cut)
	case s.err != nil:
		root.SetStatus(codes.Error, s.err.Error())
	}
	root.End(trace.WithTimestamp(end))
}

func (c *Car) exportCommand(s commandTrace, end time.Time, outcome string, failed bool) {
	ctx, root := c.hub.tracer.tracer.Start(context.Background(), "command", trace.WithTimestamp(s.fetched), trace.WithSpanKind(trace.SpanKindProducer),
		c.attributes(s.device, s.counter), trace.WithAttributes(attribute.String("outcome", outcome)))
	c.span(ctx, "car", s.fetched, s.sent, nil)
	c.span(ctx, "gateway", s.sent, end, nil)
	if failed {
		root.SetStatus(codes.Error, outcome)
	}
	root.End(trace.WithTimestamp(end))
}
