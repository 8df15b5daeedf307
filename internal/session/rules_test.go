package session

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryRuleIsCovered: each rule of testdata/rules.list is named by the "covers"
// line of a script or by a test of this package or of its neighbours.
func TestEveryRuleIsCovered(t *testing.T) {
	raw, err := os.ReadFile("testdata/rules.list")
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`[A-Z]+-[0-9]+`)
	named := make(map[string]bool)
	scripts, _ := filepath.Glob("testdata/*.txt")
	var tests []string
	for _, pattern := range []string{"*_test.go", "../protocol/*_test.go", "../car/*_test.go"} {
		found, _ := filepath.Glob(pattern)
		tests = append(tests, found...)
	}
	for _, file := range append(scripts, tests...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			trimmed := strings.TrimSpace(line)
			if strings.HasPrefix(trimmed, "# covers:") || strings.HasPrefix(trimmed, "//") {
				for _, rule := range id.FindAllString(trimmed, -1) {
					named[rule] = true
				}
			}
		}
	}
	rules := 0
	for line := range strings.Lines(string(raw)) {
		rule := strings.TrimSpace(line)
		if rule == "" || strings.HasPrefix(rule, "#") {
			continue
		}
		rules++
		if !named[rule] {
			t.Errorf("no script or test names rule %s", rule)
		}
	}
	if rules < 80 {
		t.Errorf("only %d rules in testdata/rules.list", rules)
	}
}
