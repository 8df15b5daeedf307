package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A document names no test, fuzz target or benchmark that is gone, and says of none that it is in another package
// than it is.
func TestTestsInDocuments(t *testing.T) {
	places := make(map[string][]string) // of a function, or of a file of tests
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	for _, folder := range []string{"cmd", "internal", "modules", "sdk", "test", "tools"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			place := "/" + strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), root+"/") + "/"
			places[filepath.Base(path)] = append(places[filepath.Base(path)], place)
			text, err := os.ReadFile(path)
			for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
				places[m[1]] = append(places[m[1]], place)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := regexp.MustCompile("`((?:(?:Test|Fuzz|Benchmark)[A-Z]\\w*)|(?:\\w+_test\\.go))`")
	placed := regexp.MustCompile("((?:`\\w+(?:\\.go)?`(?:, )?)+) \\(([a-z]+(?:/[a-z]+)*)\\)")
	names := 0
	for _, page := range pages(t) {
		if page == "CHANGELOG.md" { // names what was
			continue
		}
		text := read(t, page)
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			names++
			if len(places[m[1]]) == 0 {
				t.Errorf("%s names %s, which does not exist", page, m[1])
			}
		}
		for _, list := range placed.FindAllStringSubmatch(text, -1) {
			for _, m := range named.FindAllStringSubmatch(list[1], -1) {
				found := len(places[m[1]]) == 0 // is told above
				for _, place := range places[m[1]] {
					found = found || strings.Contains(place, "/"+list[2]+"/")
				}
				if !found {
					t.Errorf("%s says that %s is in %s; it is in %s", page, m[1], list[2], strings.Join(places[m[1]], " and "))
				}
			}
		}
	}
	if names < 200 {
		t.Errorf("only %d names were found", names)
	}
}
