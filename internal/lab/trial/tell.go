package trial

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"external-server/internal/lab/gateway"
)

// say prints one line about somebody who takes part.
func (t *trial) say(who, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "%5.1f s  %-6s  %s\n", time.Since(t.start).Seconds(), who, fmt.Sprintf(format, args...))
}

// observe tells what the car sees.
func (t *trial) observe(e gateway.Effect) {
	if e.Reason == gateway.ReasonStopped {
		return // the end, which the author has asked for
	}
	switch e.Kind {
	case gateway.EffectConnected:
		t.say("car", "is connected to the server")
	case gateway.EffectSequenceFailed:
		t.say("car", "could not connect: %v. %s", e.Reason, e.Reason.Meaning())
	case gateway.EffectDisconnected:
		t.say("car", "is disconnected: %v. %s", e.Reason, e.Reason.Meaning())
	case gateway.EffectAnswered:
		t.mu.Lock()
		t.answered++
		t.mu.Unlock()
	case gateway.EffectDeliver:
		t.mu.Lock()
		t.commands++
		t.mu.Unlock()
		t.say("module", "commands the device: %s", shown(e.Data))
	}
}

func (t *trial) summary() {
	t.mu.Lock()
	answered, commands, complaints := t.answered, t.commands, t.complaints
	t.mu.Unlock()
	t.say("server", "%d statuses answered, %d commands reached the device, %d complaints about the module", answered, commands, complaints)
}

// shown is a payload on one harmless line.
func shown(data []byte) string {
	const most = 500
	if !utf8.Valid(data) {
		return fmt.Sprintf("%d bytes: 0x%x", len(data), data[:min(len(data), 64)])
	}
	var b strings.Builder
	for i, r := range string(data) {
		if i > most {
			fmt.Fprintf(&b, "… (%d bytes)", len(data))
			break
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// complaints is the log of the server: what the module prints, and what is wrong.
type complaints struct {
	trial *trial
	attrs []slog.Attr
}

const outputPrefix = "module output: "

func (c *complaints) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (c *complaints) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &complaints{c.trial, append(c.attrs[:len(c.attrs):len(c.attrs)], attrs...)}
}

func (c *complaints) WithGroup(string) slog.Handler { return c }

func (c *complaints) Handle(_ context.Context, r slog.Record) error {
	if line, ok := strings.CutPrefix(r.Message, outputPrefix); ok {
		c.trial.say("module", "prints: %s", shown([]byte(line)))
		return nil
	}
	if r.Level < slog.LevelWarn {
		return nil
	}
	text := r.Message
	add := func(a slog.Attr) bool {
		switch a.Key {
		case "component", "car", "company", "module":
		default:
			text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		}
		return true
	}
	for _, a := range c.attrs {
		add(a)
	}
	r.Attrs(add)
	c.trial.mu.Lock()
	c.trial.complaints++
	c.trial.mu.Unlock()
	c.trial.say("server", "%s", shown([]byte(text)))
	return nil
}
