package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const protocol = "docs/protocol.md"

// ruleID is the id of a rule of the protocol.
var ruleID = regexp.MustCompile(`\b(?:CFG|CLI|CMD|CONN|DEF|DEV|GW|HTTP|IT|LOG|MM|MOD|MSG|REC|RES|SEQ|SESS|SM|STAT|VOC)-[0-9]+\b`)

// Every rule that a source file, script or document cites is defined in
// docs/protocol.md, once.
func TestEveryRuleIsDefined(t *testing.T) {
	defined := make(map[string]bool)
	for _, m := range regexp.MustCompile(`\*\*([A-Z]+-[0-9]+)\*\*`).FindAllStringSubmatch(read(t, protocol), -1) {
		if defined[m[1]] {
			t.Errorf("%s defines %s twice", protocol, m[1])
		}
		defined[m[1]] = true
	}
	if len(defined) < 300 {
		t.Errorf("%s defines %d rules only", protocol, len(defined))
	}
	cited := make(map[string][]string)
	for _, file := range tracked(t) {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil || strings.Contains(file, "/testdata/fuzz/") { // removed, not committed yet
			continue
		}
		for _, id := range ruleID.FindAllString(string(text), -1) {
			if !slices.Contains(cited[id], file) {
				cited[id] = append(cited[id], file)
			}
		}
	}
	if len(cited) < 250 {
		t.Errorf("only %d rules are cited: does this test still find the files?", len(cited))
	}
	for id, files := range cited {
		if !defined[id] {
			t.Errorf("%s is cited in %s and not defined in %s", id, strings.Join(files, ", "), protocol)
		}
	}
}

// tracked returns the Go files, scripts and documents of the repository, new ones
// included.
func tracked(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("no git repository: %v", err)
	}
	var files []string
	for file := range strings.Lines(string(out)) {
		file = strings.TrimSuffix(file, "\n")
		if slices.Contains([]string{".go", ".md", ".txt", ".json", ".proto", ".h", ".c", ".list", ".sh", ".js"}, filepath.Ext(file)) {
			files = append(files, file)
		}
	}
	return files
}

// Every link to a heading leads to one.
func TestAnchors(t *testing.T) {
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	link := regexp.MustCompile(`\]\(([^)#\s]*)#([^)]+)\)`)
	drop := regexp.MustCompile("[^a-z0-9 _-]")
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			found := false
			for _, h := range heading.FindAllStringSubmatch(read(t, target), -1) {
				name := strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")
				found = found || name == m[2]
			}
			if !found {
				t.Errorf("%s links to #%s of %s, which has no such heading", page, m[2], target)
			}
		}
	}
}
