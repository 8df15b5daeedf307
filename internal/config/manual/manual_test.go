package manual

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"external-server/internal/config"
)

// The manual page has every key of the schema, however deep, and no line that troff
// would take for a request.
func TestManualHasEveryKey(t *testing.T) {
	page, err := Page("1.2-3")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(page), `\-`, "-")
	var schema any
	if err := json.Unmarshal(config.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	collect(schema, names)
	delete(names, "$schema")
	if len(names) < 60 {
		t.Fatalf("only %d keys in the schema", len(names))
	}
	for name := range names {
		if !regexp.MustCompile(`(?m)^\\fB([^\n]*\.)?` + regexp.QuoteMeta(name) + `\\fP$`).MatchString(text) {
			t.Errorf("the page has no key %s", name)
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, ".") && !regexp.MustCompile(`^\.(TH|SH|TP|nf|fi|nh|ad)\b`).MatchString(line) {
			t.Errorf("troff does not know the request %s", line)
		}
	}
	if strings.Contains(text, "\\fP\n\n") {
		t.Error("a key has no description")
	}
}

// collect finds the names of all properties.
func collect(v any, names map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		if p, ok := v["properties"].(map[string]any); ok {
			for name := range p {
				names[name] = true
			}
		}
		for _, value := range v {
			collect(value, names)
		}
	case []any:
		for _, value := range v {
			collect(value, names)
		}
	}
}
