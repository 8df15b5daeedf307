package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// document is what the test needs of one file of the site.
type document struct {
	ids   map[string]bool
	links []string // href and src
	title string
}

func parseHTML(t *testing.T, file string) document {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := document{ids: make(map[string]bool)}
	for z := html.NewTokenizer(bytes.NewReader(content)); ; {
		kind := z.Next()
		if kind == html.ErrorToken {
			return d
		}
		token := z.Token()
		if token.Data == "title" && kind == html.StartTagToken {
			z.Next()
			d.title = z.Token().Data
		}
		for _, a := range token.Attr {
			switch a.Key {
			case "id":
				d.ids[a.Val] = true
			case "href", "src":
				d.links = append(d.links, a.Val)
			}
		}
	}
}

// Every link of every page leads to a file of the site and, if it names one, to a heading
// there. Nothing is fetched from elsewhere.
func TestSite(t *testing.T) {
	out := filepath.Join(t.TempDir(), "site")
	if err := write("../..", out); err != nil {
		t.Fatal(err)
	}
	pages := make(map[string]document)
	err := filepath.WalkDir(out, func(file string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(file, ".html") {
			pages[file] = parseHTML(t, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 20 {
		t.Errorf("%d pages", len(pages))
	}
	for file, d := range pages {
		name := strings.TrimPrefix(file, out+"/")
		if d.title == "" || !d.ids["q"] {
			t.Errorf("%s has no title or no search", name)
		}
		for _, l := range d.links {
			if strings.Contains(l, "://") {
				continue // a link for people; that nothing is loaded from there is checked below
			}
			path, fragment, _ := strings.Cut(l, "#")
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), filepath.FromSlash(path))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere", name, l)
				continue
			}
			if other, ok := pages[target]; ok && fragment != "" && !other.ids[fragment] {
				t.Errorf("%s: %s has no heading #%s", name, path, fragment)
			}
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, load := range []string{`src="http`, `src="//`, `rel="stylesheet" href="http`, "@import"} {
			if bytes.Contains(content, []byte(load)) {
				t.Errorf("%s loads something from elsewhere: %s", name, load)
			}
		}
	}
	searchable(t, out, pages)
}

// searchable looks into the list of the search: each section is there, and leads to its
// heading.
func searchable(t *testing.T, out string, pages map[string]document) {
	t.Helper()
	script, err := os.ReadFile(filepath.Join(out, "site", "index.js"))
	if err != nil {
		t.Fatal(err)
	}
	var all []found
	if err := json.Unmarshal(bytes.TrimSuffix(bytes.TrimPrefix(script, []byte("const index = ")), []byte(";\n")), &all); err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, f := range all {
		path, fragment, _ := strings.Cut(f.Address, "#")
		if d, ok := pages[filepath.Join(out, path)]; !ok || !d.ids[fragment] {
			t.Errorf("the search leads to %s, where nothing is", f.Address)
		}
		seen = seen || f.Page == "Configuration" && strings.Contains(f.Text, "state_directory")
	}
	if !seen {
		t.Error("the search does not find state_directory on the page Configuration")
	}
}

// A page with a link that leads nowhere is an error that names both.
func TestWrongLinks(t *testing.T) {
	for text, want := range map[string]string{
		"# A\n\n[x](none.md)\n":         "README.md: the link none.md leads nowhere",
		"# A\n\n![x](none.png)\n":       "README.md: the link none.png leads nowhere",
		"# A\n\n[x](../../etc/hosts)\n": "leads out of the project",
		"no heading\n":                  "README.md has no heading",
	} {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, home), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := write(root, filepath.Join(root, "out")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, expected %q", text, err, want)
		}
	}
}
