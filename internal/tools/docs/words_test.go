package docs

import (
	"regexp"
	"strings"
	"testing"
)

// Documents name who acts: no "whoever" and "nobody" outside code and examples of
// what not to write, and no "(… apart)".
func TestWords(t *testing.T) {
	avoided := regexp.MustCompile(`(?i)\b(whoever|nobody|in no time)\b|apart\)`)
	code := regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	for _, page := range pages(t) {
		text := code.ReplaceAllString(read(t, page), "")
		for line := range strings.Lines(text) {
			if m := avoided.FindString(line); m != "" {
				t.Errorf("%s says %q; name who acts: %s", page, m, strings.TrimSpace(line))
			}
		}
	}
}
