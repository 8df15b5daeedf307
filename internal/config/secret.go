package config

import (
	"fmt"
	"io"
	"log/slog"
)

// Hidden replaces secrets wherever a configuration is printed (CFG-23).
const Hidden = "HIDDEN"

// Secret is text that appears in no output: every formatting verb, JSON and
// slog print Hidden, or nothing when it is empty. Only Reveal returns it.
// The text is behind a pointer, because fmt does not ask values in unexported
// fields, or below a pointer with a wrong verb, how to print; it shows an
// address then. Compare with Equal.
type Secret struct{ text *string }

// NewSecret wraps text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text, for the one place that needs it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero tells whether there is no secret.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal compares the texts.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns Hidden, or "" when there is no secret.
func (s Secret) String() string {
	if s.IsZero() {
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
