package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

const root = "../../.."

// Every rule of the core has evidence, and what the document claims is
// there: a kind of evidence in the table that nothing shows any more is an error,
// more evidence than the table knows of is not.
func TestTableClaimsNothingThatIsNotThere(t *testing.T) {
	found, err := collect(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(raw), beginMark)
	table, _, ok2 := strings.Cut(table, endMark)
	if !ok || !ok2 {
		t.Fatal("docs/reliability.md has no table of evidence")
	}
	const advice = "; run go run ./internal/tools/evidence"
	claimed := make(map[string]bool)
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != int(kinds)+3 {
			continue
		}
		id := strings.TrimSpace(cells[1])
		if !regexp.MustCompile(`^[A-Z]+-[0-9]+$`).MatchString(id) {
			continue
		}
		claimed[id] = true
		for k := range kinds {
			if strings.TrimSpace(cells[2+k]) != "" && (found[id] == nil || len(found[id][k]) == 0) {
				t.Errorf("docs/reliability.md claims a %s for %s and there is none%s", kindNames[k], id, advice)
			}
		}
	}
	shown := 0
	for id, by := range found {
		n := 0
		for k := range kinds {
			n += len(by[k])
		}
		if n == 0 {
			t.Errorf("nothing shows rule %s", id)
		}
		if by[script] != nil && !claimed[id] {
			t.Errorf("docs/reliability.md does not list %s%s", id, advice)
		}
		shown++
	}
	if shown < 90 {
		t.Errorf("only %d rules found", shown)
	}
}

func TestCollectKnowsTheKinds(t *testing.T) {
	tree := fstest.MapFS{
		"internal/session/testdata/rules.list":      {Data: []byte("# all\nSEQ-1\nSEQ-2\n")},
		"internal/session/testdata/a.txt":           {Data: []byte("# covers: SEQ-1\nrecv connect # SEQ-2\n")},
		"test/sim/testdata/mutants/b.txt":           {Data: []byte("SEQ-1: wrong\nfile: x\n--- old\nSEQ-2\n")},
		"test/sim/audit.go":                         {Data: []byte("a.fail(\"REC-2: no\")\n")},
		"internal/car/car_test.go":                  {Data: []byte("// STAT-3\nfoo(STAT-4)\n")},
		"internal/link/mqtt/a_test.go":              {Data: []byte("// STAT-3\n")},
		"test/faults/broker_faults_test.go":         {Data: []byte("// STAT-3\n")},
		"internal/session/session.go":               {Data: []byte("// STAT-9\n")},
		"internal/tools/evidence/collect_test.go":   {Data: []byte("// STAT-9\n")},
		"internal/link/mqtt/testdata/something.txt": {Data: []byte("# covers: STAT-9\n")},
	}
	found, err := collect(tree)
	if err != nil {
		t.Fatal(err)
	}
	got := found.table()
	want := "| Rule | script | simulation | deliberate bug | test | fault | real peer |\n|---|---|---|---|---|---|---|\n" +
		"| SEQ-1 | a |  | b |  |  |  |\n| SEQ-2 |  |  |  |  |  |  |\n| STAT-3 |  |  |  | car | broker | link/mqtt |\n| REC-2 |  | audit |  |  |  |  |\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
