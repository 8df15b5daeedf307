// Package docs holds the tests that keep the documentation true where a test
// can: links, commands and configurations that it shows.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"external-server/internal/config"
)

const root = "../../.."

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func pages(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil || len(docs) == 0 {
		t.Fatal("no documentation found", err)
	}
	out := []string{"README.md", "modules/example/README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
	for _, d := range docs {
		out = append(out, filepath.Join("docs", filepath.Base(d)))
	}
	return out
}

// Every link to a file of the project leads somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", page, m[1])
			}
		}
	}
}

// Every page is reachable from the README.
func TestEveryPageIsLinked(t *testing.T) {
	readme := read(t, "README.md")
	for _, page := range pages(t)[2:] {
		if !strings.Contains(readme, "]("+page+")") {
			t.Errorf("README.md does not link to %s", page)
		}
	}
}

// Every make target that the documentation names exists.
func TestMakeTargets(t *testing.T) {
	makefile := read(t, "Makefile")
	named := regexp.MustCompile("(?m)(?:`|&& |^)make ([a-z][a-z-]*)(?:`| [A-Z]+=| *&&| +#|$)")
	for _, page := range pages(t) {
		if page == "docs/modules.md" { // makes a makefile of its own
			continue
		}
		for _, m := range named.FindAllStringSubmatch(read(t, page), -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).MatchString(makefile) {
				t.Errorf("%s names `make %s`, which the Makefile does not have", page, m[1])
			}
		}
	}
}

// The configuration that the README shows is accepted.
func TestConfigurationOfTheReadme(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(blocks) == 0 {
		t.Fatal("no JSON in README.md")
	}
	for _, b := range blocks {
		dir := t.TempDir()
		library := filepath.Join(dir, "lib.so")
		if err := os.WriteFile(library, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "config.json")
		text := strings.ReplaceAll(b[1], "build/modules/libexample-module.so", library)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, warnings, err := config.Load(path, func(string) (string, bool) { return "", false }); err != nil || len(warnings) > 0 {
			t.Errorf("%v %v", err, warnings)
		}
	}
}

// Every direct requirement of the go.mod files has its reason in docs/dependencies.md.
func TestEveryDependencyHasAReason(t *testing.T) {
	reasons := read(t, "docs/dependencies.md")
	var missing []string
	for line := range strings.Lines(read(t, "go.mod") + read(t, "sdk/go.mod") + read(t, "test/go.mod")) {
		f := strings.Fields(line)
		if len(f) != 2 || !strings.HasPrefix(f[1], "v") || f[0] == "external-server" {
			continue
		}
		// The reason may stand at a path above, for modules that come together.
		path := f[0]
		for strings.Count(path, "/") > 0 && !strings.Contains(reasons, "`"+path) {
			path = path[:strings.LastIndex(path, "/")]
		}
		if strings.Count(path, "/") == 0 {
			missing = append(missing, f[0])
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("docs/dependencies.md does not say why these are there: %s", strings.Join(missing, ", "))
	}
}
