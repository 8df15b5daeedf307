package broker

import (
	"context"
	"log/slog"

	"github.com/wind-c/comqtt/v2/mqtt/packets"
)

// logHandler takes the library's log. What clients do is their fault and at most
// INFO, limited in rate; whole packets, which hold payloads and passwords, are
// left out.
type logHandler struct {
	broker *Broker
	attrs  []slog.Attr
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.broker.log.Enabled(ctx, lower(level))
}

func lower(level slog.Level) slog.Level {
	if level >= slog.LevelWarn {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	attrs := append([]slog.Attr(nil), h.attrs...)
	ours := false
	r.Attrs(func(a slog.Attr) bool {
		ours = ours || a.Value.Any() == error(packets.CodeSuccessIgnore)
		attrs = append(attrs, harmless(a)...)
		return true
	})
	if ours { // OnPublish said so
		return nil
	}
	text := "embedded broker: " + r.Message
	if r.Message == "" {
		text = "embedded broker: client disconnected"
	}
	level := lower(r.Level)
	if level == slog.LevelDebug {
		h.broker.log.LogAttrs(ctx, level, text, attrs...)
		return nil
	}
	h.broker.limit.Log(h.broker.log, level, text, attrs...)
	return nil
}

// harmless keeps the attributes that are known not to hold a packet.
func harmless(a slog.Attr) []slog.Attr {
	switch a.Key {
	case "error", "client", "remote", "old_remote", "new_remote", "listener", "id", "protocol", "address":
		return []slog.Attr{a}
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := *h
	out.attrs = append([]slog.Attr(nil), h.attrs...)
	for _, a := range attrs {
		out.attrs = append(out.attrs, harmless(a)...)
	}
	return &out
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(string) slog.Handler { return h }
