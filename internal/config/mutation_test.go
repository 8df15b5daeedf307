package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"external-server/internal/config/document"
)

// TestMutations replaces every value of every example by values of each type,
// and removes it. Nothing panics, every error has a position and quotes no
// secret, and what Load takes the schema takes too.
func TestMutations(t *testing.T) {
	validator := compiled(t)
	replacements := []string{`null`, `true`, `0`, `-1`, `1.5`, `1e300`, `"` + secretText + `"`, `""`, `"*"`, `[]`, `[{}]`, `["x", 5]`, `{}`, `{"1": {}}`, `{"a": 1}`}
	for name, text := range readExamples(t) {
		var root any
		if err := json.Unmarshal([]byte(text), &root); err != nil {
			t.Fatal(err)
		}
		plant(root, false)
		try := func(path string) {
			raw, err := json.Marshal(root)
			if err != nil {
				t.Fatal(err)
			}
			what := name + " with another " + path
			l := newLoader("f.json", raw, nil)
			l.files.Skip = true
			cfg, warnings, err := l.result(l.load())
			if err != nil {
				for _, p := range err.(Errors) {
					if p.Line < 1 || p.Column < 1 || p.Key == "" && strings.TrimSuffix(path, "=text") != "" {
						t.Errorf("%s: %v", what, p)
					}
				}
			} else {
				var value any
				if err := json.Unmarshal(raw, &value); err != nil {
					t.Fatal(err)
				}
				if bad := validator.Validate(value); bad != nil && len(warnings) == 0 {
					t.Errorf("%s: Load takes it, the schema does not: %v", what, bad)
				}
			}
			// Only the values that secrets belong to are secret; a replaced
			// value elsewhere may be quoted, as a path for example.
			out := fmt.Sprint(warnings, err)
			if cfg != nil {
				out += cfg.Redacted().String()
			}
			if strings.Contains(out, secretText) && !strings.Contains(path, "=") {
				t.Errorf("%s: a secret is printed: %s", what, out)
			}
		}
		var visit func(v any, path string, set func(any))
		visit = func(v any, path string, set func(any)) {
			for _, r := range replacements {
				var other any
				if err := json.Unmarshal([]byte(r), &other); err != nil {
					t.Fatal(err)
				}
				set(other)
				mark := ""
				if r == `"`+secretText+`"` && !secretPath(path) {
					mark = "=text" // not a secret here
				}
				try(path + mark)
			}
			set(v)
			switch v := v.(type) {
			case map[string]any:
				for _, key := range slices.Sorted(maps.Keys(v)) {
					inner := v[key]
					delete(v, key)
					try(document.Join(path, key))
					visit(inner, document.Join(path, key), func(x any) { v[key] = x })
				}
			case []any:
				for i := range v {
					visit(v[i], fmt.Sprintf("%s[%d]", path, i), func(x any) { v[i] = x })
				}
			}
		}
		visit(root, "", func(v any) { root = v })
	}
}

func secretPath(path string) bool {
	for _, part := range []string{".config.", "password", "token", "store"} {
		if strings.Contains(path, part) {
			return true
		}
	}
	return false
}
