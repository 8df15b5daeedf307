package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pathInText is a file or folder of the repository that a document names.
var pathInText = regexp.MustCompile("`((?:internal|cmd|docs|deploy|sdk|modules|test|scripts|config)/[A-Za-z0-9_./*-]+)`")

// docs/changing.md shows ten changes, and each names files that exist.
func TestPathsOfChanges(t *testing.T) {
	examples := strings.Split(read(t, "docs/changing.md"), "\n## ")[1:]
	if len(examples) < 10 {
		t.Errorf("%d examples, expected ten", len(examples))
	}
	for _, e := range examples {
		title, _, _ := strings.Cut(e, "\n")
		paths := pathInText.FindAllStringSubmatch(e, -1)
		if len(paths) < 3 {
			t.Errorf("%q names %d files", title, len(paths))
		}
	}
}

// A document names no file of the repository that is gone.
func TestPathsInDocuments(t *testing.T) {
	for _, page := range pages(t) {
		if page == "CHANGELOG.md" { // names what was
			continue
		}
		for _, m := range pathInText.FindAllStringSubmatch(read(t, page), -1) {
			if m[1] == "config/logging.json" { // of the Python server
				continue
			}
			if found, err := filepath.Glob(filepath.Join(root, m[1])); err != nil || len(found) == 0 {
				if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
					t.Errorf("%s names %s, which does not exist", page, m[1])
				}
			}
		}
	}
}
