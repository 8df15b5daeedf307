package logging

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonFormat makes JSON lines with the handler of the standard library: time
// (RFC 3339, local), level, source, msg, component and car if there are any,
// then the attributes.
type jsonFormat struct {
	logs *Logs
	// steps are the With and WithGroup calls so far. They are made again when
	// component or car changes, because those come first and only once.
	steps []func(slog.Handler) slog.Handler

	mu   *sync.Mutex // guards buf, shared by all descendants
	buf  *bytes.Buffer
	slog slog.Handler // writes into buf
}

func newJSONFormat(l *Logs) *jsonFormat {
	f := &jsonFormat{logs: l, mu: new(sync.Mutex), buf: new(bytes.Buffer)}
	f.slog = f.root()
	return f
}

func (f *jsonFormat) root() slog.Handler {
	return slog.NewJSONHandler(f.buf, &slog.HandlerOptions{
		Level: slog.Level(-1 << 20), // the thresholds decide
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.LevelKey {
				if level, ok := a.Value.Any().(slog.Level); ok {
					return slog.String(slog.LevelKey, LevelName(level))
				}
			}
			return a
		},
	})
}

func (f *jsonFormat) with(h *handler, step func(slog.Handler) slog.Handler) *jsonFormat {
	n := *f
	n.steps = append(f.steps[:len(f.steps):len(f.steps)], step)
	n.slog = f.root()
	var head []slog.Attr
	if h.component != "" {
		head = append(head, slog.String(ComponentKey, h.component))
	}
	if h.car != "" {
		head = append(head, slog.String(carKey, h.car))
	}
	if len(head) > 0 {
		n.slog = n.slog.WithAttrs(head)
	}
	for _, s := range n.steps {
		n.slog = s(n.slog)
	}
	return &n
}

// line returns one line with its newline.
func (f *jsonFormat) line(ctx context.Context, h *handler, r slog.Record) []byte {
	out := slog.NewRecord(r.Time, r.Level, r.Message, 0)
	r.Attrs(func(a slog.Attr) bool { out.AddAttrs(a); return true })
	if r.PC != 0 && h.group == "" {
		out.AddAttrs(slog.String(slog.SourceKey, f.logs.source(r.PC)))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf.Reset()
	if err := f.slog.Handle(ctx, out); err != nil { // a bytes.Buffer never fails
		return nil
	}
	return EscapeJSON(f.buf.Bytes())
}

// EscapeJSON returns JSON that says the same and is harmless for a terminal: what is no
// printable character is written as an escape. Bytes that are no UTF-8 become U+FFFD, as
// every reader of JSON reads them. The result shares no memory with raw.
func EscapeJSON(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for len(raw) > 0 {
		r, n := utf8.DecodeRune(raw)
		switch {
		case r == utf8.RuneError && n == 1:
			out = append(out, `\ufffd`...)
		case r == '\n' || r == '\t' || r == '\r', unicode.IsPrint(r):
			out = append(out, raw[:n]...) // strings hold no line breaks as they are: these are between values
		case r > 0xffff:
			a, b := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, a, b)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		raw = raw[n:]
	}
	return out
}
