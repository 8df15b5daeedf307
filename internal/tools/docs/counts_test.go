package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const reliability = "docs/reliability.md"

// The table of fuzz targets names each of them once, with its package.
func TestEveryFuzzTargetIsNamed(t *testing.T) {
	_, section, ok := strings.Cut(read(t, reliability), "\n## Fuzzing\n")
	if !ok {
		t.Fatal("the section is missing")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	named := make(map[string]bool)
	for _, row := range regexp.MustCompile(`(?m)^\|[^|]*\|(.*)\|$`).FindAllStringSubmatch(section, -1) {
		for targets := range strings.SplitSeq(row[1], ";") {
			pkg, names, _ := strings.Cut(targets, ":")
			for _, name := range regexp.MustCompile("`(Fuzz[A-Za-z0-9]+)`").FindAllStringSubmatch(names, -1) {
				target := strings.TrimPrefix(strings.Trim(pkg, " `"), "internal/") + " " + name[1]
				if named[target] {
					t.Errorf("%s names %s twice", reliability, target)
				}
				named[target] = true
			}
		}
	}
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	for _, folder := range []string{"internal", "sdk", "cmd", "modules", "test"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range target.FindAllStringSubmatch(string(text), -1) {
				pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), root+"/")
				found := strings.TrimPrefix(pkg, "internal/") + " " + m[1]
				if !named[found] {
					t.Errorf("%s does not name %s", reliability, found)
				}
				delete(named, found)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for gone := range named {
		t.Errorf("%s names %s, which does not exist", reliability, gone)
	}
}

// The page says how many deliberate bugs there are: in the core, in those parts that need neither a
// journal nor a second server, with a known history, and in the planner of a cluster.
func TestDeliberateBugsAreCounted(t *testing.T) {
	files := func(pattern string) []string {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no deliberate bugs in %s: %v", pattern, err)
		}
		return found
	}
	all, single, known := 0, 0, 0
	for _, path := range files("test/sim/testdata/mutants/*.txt") {
		all++
		name := filepath.Base(path)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case !strings.HasPrefix(name, "resume_") && !strings.HasPrefix(name, "cluster_"):
			single++
		case strings.Contains(string(text), "\nseed: "):
			known++
		}
	}
	planner := len(files("internal/cluster/testdata/mutants/*.txt"))
	page := strings.ReplaceAll(read(t, reliability), "\n", " ")
	for _, claim := range []string{
		fmt.Sprintf("holds %d deliberate bugs in the core", all),
		fmt.Sprintf("| %d × up to 6000 |", single),
		fmt.Sprintf("%d of %d deliberate bugs caught, 2 min", single, single),
		fmt.Sprintf("the %d of a single server without journal within 6000 histories", single),
		fmt.Sprintf("within 20 000 or, %d of them, by a rare history", known),
		fmt.Sprintf("tries two of the %d and the %d,", single, known),
		fmt.Sprintf("with %d deliberate bugs:", planner),
		fmt.Sprintf("| %d × up to 20 000 | %d of %d deliberate bugs caught |", planner, planner, planner),
	} {
		if !strings.Contains(page, claim) {
			t.Errorf("%s does not say %q", reliability, claim)
		}
	}
}

// A fault that a page names is a scenario of test/faults.
func TestFaultsInDocuments(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "test/faults/*_faults_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatal("no faults found", err)
	}
	var known strings.Builder
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		known.Write(text)
	}
	names := 0
	for _, page := range pages(t) {
		for _, list := range regexp.MustCompile("[Ff]aults? (`[a-z-]+`(?:, `[a-z-]+`)*)").FindAllStringSubmatch(read(t, page), -1) {
			for _, name := range regexp.MustCompile("[a-z-]+").FindAllString(list[1], -1) {
				names++
				if !strings.Contains(known.String(), `{"`+name+`", `) {
					t.Errorf("%s names the fault %s, which test/faults does not have", page, name)
				}
			}
		}
	}
	if names < 10 {
		t.Errorf("only %d names were found", names)
	}
}

// The table of dependencies names every package of the server that imports one, and no other.
func TestDependenciesAreWhereTheTableSays(t *testing.T) {
	page, _, _ := strings.Cut(read(t, "docs/dependencies.md"), "\n`sdk` is the Go module")
	type use struct{ path, text string }
	var sources []use
	for _, folder := range []string{"cmd", "internal", "sdk", "test"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go") {
				return err
			}
			text, err := os.ReadFile(path)
			head, _, _ := strings.Cut(string(text), "\nfunc ")
			sources = append(sources, use{strings.TrimPrefix(filepath.ToSlash(path), root+"/"), head})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\| ([^|]*) \\|").FindAllStringSubmatch(page, -1) {
		module := quoted.FindStringSubmatch(row[1])[1]
		var named []string
		for _, m := range quoted.FindAllStringSubmatch(row[2], -1) {
			if strings.Contains(m[1], "/") {
				named = append(named, m[1])
			}
		}
		if len(named) == 0 {
			continue // used by make, or by all tests
		}
		rows++
		used := make(map[string]bool)
		imports := regexp.MustCompile(`"` + regexp.QuoteMeta(module) + `(/[^"]*)?"`)
		for _, s := range sources {
			if !imports.MatchString(s.text) {
				continue
			}
			known := strings.HasSuffix(s.path, "_test.go") || strings.HasPrefix(s.path, "internal/lab/") ||
				strings.HasPrefix(s.path, "internal/support/") || strings.HasPrefix(s.path, "internal/tools/")
			for _, n := range named {
				if strings.HasPrefix(s.path, n+"/") {
					known, used[n] = true, true
				}
			}
			if !known {
				t.Errorf("%s imports %s, and docs/dependencies.md does not say so", s.path, module)
			}
		}
		for _, n := range named {
			if !used[n] {
				t.Errorf("docs/dependencies.md says that %s uses %s", n, module)
			}
		}
	}
	if rows < 12 {
		t.Errorf("only %d rows were compared", rows)
	}
}
