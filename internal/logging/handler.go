package logging

import (
	"context"
	"log/slog"
)

// carKey is the attribute that names the car a line is about (LOG-3).
const carKey = "car"

// handler formats records for the destinations that want them. It is immutable;
// With makes a new one.
type handler struct {
	logs      *Logs
	threshold *threshold
	component string // "": the server
	car       string // "": a line of the server (LOG-4)
	group     string // names of the open groups, each followed by a dot
	attrs     []byte // attributes of With in text form
	json      *jsonFormat
}

func newHandler(l *Logs) *handler {
	h := &handler{logs: l, threshold: &l.thresholds[0]}
	for _, f := range l.formats {
		if f == FormatJSON {
			h.json = newJSONFormat(l)
		}
	}
	return h
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return int64(level) >= h.threshold.lowest.Load()
}

// Handle implements slog.Handler. It never fails: what cannot be written is
// counted by its sink.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	var lines [2][]byte
	var car string
	var body []byte
	for i, s := range h.logs.sinks {
		if s == nil || int64(r.Level) < h.threshold.of[i].Load() {
			continue
		}
		if body == nil {
			car, body = h.carOf(r), h.body(make([]byte, 0, 256), r)
			h.keep(r, car, string(body))
		}
		if i == file && lines[console] != nil && h.logs.formats[console] == h.logs.formats[file] {
			lines[file] = lines[console]
		} else {
			lines[i] = h.format(i, ctx, r, car, body)
		}
		s.enqueue(lines[i])
	}
	return nil
}

// format returns the line of a record for one destination. body is what it says of the
// car.
func (h *handler) format(to int, ctx context.Context, r slog.Record, car string, body []byte) []byte {
	if h.logs.formats[to] == FormatJSON {
		return h.json.line(ctx, h, r)
	}
	return h.text(make([]byte, 0, len(body)+128), r, car, body, h.logs.formats[to] == formatBare)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	n := *h
	n.attrs = h.attrs[:len(h.attrs):len(h.attrs)]
	rest := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		switch {
		case h.group == "" && a.Key == ComponentKey:
			n.component = a.Value.Resolve().String()
			n.threshold = &h.logs.thresholds[componentIndex(n.component)]
		case h.group == "" && a.Key == carKey:
			n.car = a.Value.Resolve().String()
		default:
			n.attrs = appendAttr(n.attrs, h.group, a)
			rest = append(rest, a)
		}
	}
	if h.json != nil {
		n.json = h.json.with(&n, func(s slog.Handler) slog.Handler {
			if len(rest) == 0 {
				return s
			}
			return s.WithAttrs(rest)
		})
	}
	return &n
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	n := *h
	n.group = h.group + name + "."
	if h.json != nil {
		n.json = h.json.with(&n, func(s slog.Handler) slog.Handler { return s.WithGroup(name) })
	}
	return &n
}
