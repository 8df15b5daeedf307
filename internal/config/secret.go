package config

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"

	"external-server/internal/module"
)

// Hidden replaces secrets wherever a configuration is printed (CFG-23).
const Hidden = "HIDDEN"

// Secret is text that appears in no output: every formatting verb, JSON and
// slog print Hidden, or nothing when it is empty. Only Reveal returns it. Keep
// it in exported fields: fmt does not ask unexported ones how to print.
type Secret struct{ text string }

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text, for the one place that needs it.
func (s Secret) Reveal() string { return s.text }

// IsZero tells whether there is no secret.
func (s Secret) IsZero() bool { return s.text == "" }

// String returns Hidden, or "" when there is no secret.
func (s Secret) String() string {
	if s.text == "" {
		return ""
	}
	return Hidden
}

// Format prints String for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText covers JSON and everything else that encodes text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue covers slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// printable is a Module without methods.
type printable Module

// redacted returns a copy whose own pairs hide their values (DEF-45).
func (m Module) redacted() printable {
	pairs := make([]module.Pair, len(m.Config))
	for i, p := range m.Config {
		pairs[i] = module.Pair{Key: p.Key, Value: Hidden}
	}
	m.Config = pairs
	return printable(m)
}

// Format prints the module without the values of its own pairs.
func (m Module) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), m.redacted())
}

// MarshalJSON encodes the module without the values of its own pairs.
func (m Module) MarshalJSON() ([]byte, error) { return json.Marshal(m.redacted()) }

// LogValue is the module without the values of its own pairs.
func (m Module) LogValue() slog.Value { return slog.AnyValue(m.redacted()) }
