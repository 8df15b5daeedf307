package console

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"external-server/internal/logging"
)

// Widths of what cars choose freely, in characters.
const (
	nameWidth = 40  // of a role or a name
	cellWidth = 120 // of a cell of a table that others follow
	partWidth = 240 // of a part of a line
)

// Clean makes a text harmless for a terminal: what is no printable character is
// written as an escape.
func Clean(s string) string {
	harmless := func(r rune) bool { return unicode.IsPrint(r) && r != unicode.ReplacementChar }
	if strings.IndexFunc(s, func(r rune) bool { return !harmless(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case harmless(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, "\\x%02x", r)
		default:
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// CleanJSON makes JSON harmless for a terminal without changing what it says.
func CleanJSON(raw []byte) []byte { return logging.EscapeJSON(raw) }

// brief is the beginning of a text, when it is longer than so many characters.
func brief(s string, width int) string {
	n := 0
	for i := range s {
		if n++; n > width {
			return s[:i] + "…"
		}
	}
	return s
}

// briefDevice shortens the role and the name in "module/type/role/name".
func briefDevice(s string) string {
	parts := strings.SplitN(s, "/", 4)
	for i := range parts {
		parts[i] = brief(parts[i], nameWidth)
	}
	return strings.Join(parts, "/")
}
