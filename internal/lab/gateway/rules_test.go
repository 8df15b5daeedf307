package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryRuleIsCovered: each rule GW-… is named by a comment of a script or
// of a test. GW-57 is advice to servers.
func TestEveryRuleIsCovered(t *testing.T) {
	scripts, _ := filepath.Glob("testdata/*.txt")
	tests, _ := filepath.Glob("*_test.go")
	rule := regexp.MustCompile(`GW-[0-9]+`)
	named := make(map[string]bool)
	for _, file := range append(scripts, tests...) {
		if file == "rules_test.go" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			_, comment, _ := strings.Cut(line, "//")
			if strings.HasPrefix(line, "#") {
				comment = line
			}
			for _, id := range rule.FindAllString(comment, -1) {
				named[id] = true
			}
		}
	}
	for _, group := range [][2]int{{1, 8}, {10, 20}, {30, 44}, {50, 56}} {
		for n := group[0]; n <= group[1]; n++ {
			if id := fmt.Sprintf("GW-%d", n); !named[id] {
				t.Errorf("no script or test names rule %s", id)
			}
		}
	}
}

// TestReasons: every reason has words, a reason of the server names its rule, and only
// reasons that end a connection ask for a new one.
func TestReasons(t *testing.T) {
	seen := make(map[string]Reason)
	for r := ReasonNone; r < numReasons; r++ {
		if r.String() == "" {
			t.Errorf("reason %d has no words", r)
		}
		if (r == ReasonNone) != (r.Meaning() == "") {
			t.Errorf("reason %q is explained as %q", r, r.Meaning())
		}
		if other, twice := seen[r.String()]; twice {
			t.Errorf("reasons %d and %d share the words %q", other, r, r)
		}
		seen[r.String()] = r
		if r.Violation() && !strings.HasPrefix(r.Rule(), "GW-") {
			t.Errorf("violation %q names no rule", r)
		}
	}
	if unknown := Reason(200); unknown.String() != "reason 200" || unknown.Violation() || unknown.Reconnects() || unknown.Rule() != "" || unknown.Meaning() != "" {
		t.Errorf("a reason that does not exist is %q", unknown)
	}
}
