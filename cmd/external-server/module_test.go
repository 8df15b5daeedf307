package main

import (
	"strings"
	"testing"

	"external-server/internal/module/check"
)

// Rules that are skipped for the same reason are one line, and every line is printed
// in the order of the rules.
func TestSkippedRulesAreFolded(t *testing.T) {
	var out strings.Builder
	p := findings{out: &out}
	for _, f := range []check.Finding{
		{Rule: "MT-1", Text: "loads", Outcome: check.Pass},
		{Rule: "MT-2", Text: "types", Outcome: check.Skipped, Detail: "one"},
		{Rule: "MT-3", Text: "init", Outcome: check.Skipped, Detail: "other"},
		{Rule: "MT-4", Text: "bad", Outcome: check.Skipped, Detail: "other"},
		{Rule: "MT-5", Text: "connects", Outcome: check.Fail, Detail: "it crashed"},
		{Rule: "MT-6", Text: "codes", Outcome: check.Skipped, Detail: "other"},
	} {
		p.add(f)
	}
	p.flush()
	const want = `pass     MT-1   loads [] (0s)
skipped  MT-2   types: one
skipped  MT-3 to MT-4, 2 rules: other
fail     MT-5   connects [] (0s)
                it crashed
skipped  MT-6   codes: other
`
	if out.String() != want {
		t.Errorf("printed\n%s\nexpected\n%s", out.String(), want)
	}
}
