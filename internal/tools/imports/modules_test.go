package imports

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../../.."

// modules returns the folders of the Go modules that hold code of the project, from
// the top of the tree.
func modules(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "build", "bin", "artifacts", "testdata"}, d.Name()):
			return fs.SkipDir
		case d.Name() == "go.mod":
			rel, err := filepath.Rel(top, filepath.Dir(path))
			if err != nil {
				return err
			}
			if !strings.HasPrefix(rel, "tools/") { // programs of others
				found = append(found, filepath.ToSlash(rel))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// list runs go list in a module.
func list(t *testing.T, module string, args ...string) string {
	t.Helper()
	return run(t, module, append([]string{"list"}, args...)...)
}

func run(t *testing.T, module string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join(top, module)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s in %s: %v\n%s", strings.Join(args, " "), module, err, stderr.String())
	}
	return string(out)
}

// TestModulesBuild: what changes in one module does not break the others, and make
// covers all of them.
func TestModulesBuild(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^MODULES := (.*)$`).FindSubmatch(makefile)
	if line == nil {
		t.Fatal("the Makefile has no line MODULES")
	}
	found := modules(t)
	if made := strings.Fields(string(line[1])); !slices.Equal(slices.Sorted(slices.Values(made)), slices.Sorted(slices.Values(found))) {
		t.Errorf("the Makefile's MODULES are %v, the tree has %v", made, found)
	}
	for _, m := range found {
		if m != "." {
			run(t, m, "vet", "./...")
		}
	}
}

// TestRequired: what depends on the server's module does not depend on a library that only
// measurements and second opinions need; test has a module of its own for them.
func TestRequired(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"github.com/eclipse/", "github.com/hashicorp/", "github.com/chromedp/"} {
		if strings.Contains(string(text), module) {
			t.Errorf("go.mod names %s", module)
		}
	}
}

// TestLinked: the server links what it runs, and nothing that only tests and
// measurements need.
func TestLinked(t *testing.T) {
	forbidden := []string{"testing", "github.com/hashicorp/", "github.com/chromedp/", "github.com/eclipse/", "pgregory.net/", "go.uber.org/goleak",
		"github.com/spf13/cobra/doc", "github.com/cpuguy83/", "github.com/russross/", "github.com/santhosh-tekuri/", "go.yaml.in/",
		root + "internal/lab/bench", root + "internal/lab/capture", root + "internal/support/", root + "internal/tools/"}
	linked := strings.Fields(list(t, ".", "-deps", "./cmd/external-server"))
	for _, p := range linked {
		for _, prefix := range forbidden {
			if p == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(p, prefix) {
				t.Errorf("the server links %s", p)
			}
		}
	}
}
