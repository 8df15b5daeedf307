package docs

import (
	"regexp"
	"strings"
	"testing"
)

const troubleshooting = "docs/troubleshooting.md"

// Every alert that wakes somebody up has its cause and remedy.
func TestAlertsInTroubleshooting(t *testing.T) {
	page := read(t, troubleshooting)
	alerts := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(read(t, "deploy/prometheus/alerts.yml"), -1)
	if len(alerts) < 10 {
		t.Fatalf("%d alerts", len(alerts))
	}
	for _, m := range alerts {
		if !strings.Contains(page, "`"+m[1]+"`") {
			t.Errorf("%s does not explain the alert %s", troubleshooting, m[1])
		}
	}
	known := read(t, "deploy/prometheus/alerts.yml")
	for _, name := range regexp.MustCompile("`(ExternalServer[A-Za-z]+)`").FindAllStringSubmatch(page, -1) {
		if !strings.Contains(known, "alert: "+name[1]+"\n") {
			t.Errorf("%s names the alert %s, which does not exist", troubleshooting, name[1])
		}
	}
}

// Every reason for the end of a session has its cause and remedy.
func TestReasonsInTroubleshooting(t *testing.T) {
	page := read(t, troubleshooting)
	reasons := regexp.MustCompile(`Reason\w+ +Reason += "([^"]+)"`).FindAllStringSubmatch(read(t, "internal/session/event.go"), -1)
	if len(reasons) < 15 {
		t.Fatalf("%d reasons", len(reasons))
	}
	for _, m := range reasons {
		if reason := m[1]; !strings.Contains(page, "| `"+reason+"` |") {
			t.Errorf("%s does not explain the reason %q", troubleshooting, reason)
		}
	}
}

// What a note or WHY of the server says is quoted as the server says it.
func TestQuotesInTroubleshooting(t *testing.T) {
	page := read(t, troubleshooting)
	said := read(t, "internal/session/event.go") + read(t, "internal/admin/cars.go") + read(t, "internal/admin/source.go") + read(t, "internal/admin/detail.go")
	quotes := regexp.MustCompile("note: `([^`]+)`").FindAllStringSubmatch(page, -1)
	quotes = append(quotes, regexp.MustCompile(`(?m)^\| (its gateway [^|…:]+)(?:: …)? \|`).FindAllStringSubmatch(page, -1)...)
	if len(quotes) < 5 {
		t.Fatalf("%d quotes", len(quotes))
	}
	for _, m := range quotes {
		if !strings.Contains(said, strings.TrimSpace(m[1])) {
			t.Errorf("%s quotes %q, which the server does not say", troubleshooting, m[1])
		}
	}
}
