package httpapi

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzCheckText: refused is what holds a lone surrogate, for which the decoder writes
// U+FFFD, or a number of which a double is too small, which the decoder refuses.
func FuzzCheckText(f *testing.F) {
	for _, seed := range []string{`"\ud800"`, `"\ud83d\ude00"`, `["\\ud800", "\"\udfff"]`, `{"\ud800\ud800\udc00":1}`, `1e400`, `[-0.0e-999, 12]`, `"1e400"`, `"\ud800A"`, `"\uD8`, `"\\\ud800"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		err := checkText([]byte(text)) // whatever it is
		if !json.Valid([]byte(text)) || !utf8.ValidString(text) || strings.Contains(strings.ToLower(text), "\\ufffd") || strings.Contains(text, "\uFFFD") {
			return
		}
		var value any
		tooLarge := json.Unmarshal([]byte(text), &value) != nil
		lone := strings.Contains(fmt.Sprint(value), "\uFFFD")
		if tooLarge {
			if err == nil {
				t.Fatalf("%q is accepted", text)
			}
			return
		}
		if (err != nil) != lone {
			t.Fatalf("%q: %v; lone surrogate: %v", text, err, lone)
		}
	})
}
