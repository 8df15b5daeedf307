package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"os"
	"path"
	"path/filepath"
	"strings"
)

//go:embed assets
var assets embed.FS

var layout = template.Must(template.ParseFS(assets, "assets/layout.html"))

// entry is a line of the menu.
type entry struct {
	Address, Title string
	Here           bool
}

// render writes one page.
func (s *site) render(p *page, out string) error {
	var body bytes.Buffer
	if err := s.md.Renderer().Render(&body, p.markdown, p.tree); err != nil {
		return err
	}
	up := strings.Repeat("../", strings.Count(p.target, "/"))
	var menu []entry
	for _, other := range s.pages {
		menu = append(menu, entry{up + other.target, other.title, other == p})
	}
	var page bytes.Buffer
	err := layout.Execute(&page, map[string]any{
		"Title": p.title, "Up": up, "Menu": menu, "Body": template.HTML(body.String()), //nolint:gosec // made from our own documents
	})
	if err != nil {
		return err
	}
	return put(out, p.target, page.Bytes())
}

// found is a section in the search, with short names because there are many.
type found struct {
	Address string `json:"a"`
	Page    string `json:"p"`
	Heading string `json:"h"`
	Text    string `json:"t"`
}

// rest writes the search and the files that pages link.
func (s *site) rest(out string) error {
	var all []found
	for _, p := range s.pages {
		for _, sec := range p.sections {
			all = append(all, found{p.target + "#" + sec.id, p.title, sec.heading, strings.Join(strings.Fields(string(sec.text)), " ")})
		}
	}
	index, err := json.Marshal(all)
	if err != nil {
		return err
	}
	// A script, not data that a script would fetch: browsers forbid that for files.
	if err := put(out, "site/index.js", append([]byte("const index = "), append(index, ";\n"...)...)); err != nil {
		return err
	}
	for _, name := range []string{"search.js", "style.css"} {
		content, err := assets.ReadFile("assets/" + name)
		if err != nil {
			return err
		}
		if err := put(out, "site/"+name, content); err != nil {
			return err
		}
	}
	for _, name := range s.linkedFiles() {
		if path.Base(name) == "index.html" {
			if err := s.listing(path.Dir(name), out); err != nil {
				return err
			}
			continue
		}
		content, err := os.ReadFile(filepath.Join(s.root, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		if err := put(out, name, content); err != nil {
			return err
		}
	}
	return nil
}

// listing writes the page of a folder that a page links: what is in it.
func (s *site) listing(dir, out string) error {
	entries, err := os.ReadDir(filepath.Join(s.root, filepath.FromSlash(dir)))
	if err != nil {
		return err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "# %s\n\nIn this folder of the source:\n\n", dir)
	for _, e := range entries {
		fmt.Fprintf(&text, "- `%s`\n", e.Name())
	}
	var body bytes.Buffer
	if err := s.md.Convert(text.Bytes(), &body); err != nil {
		return err
	}
	up := strings.Repeat("../", strings.Count(dir, "/")+1)
	var menu []entry
	for _, other := range s.pages {
		menu = append(menu, entry{up + other.target, other.title, false})
	}
	var page bytes.Buffer
	err = layout.Execute(&page, map[string]any{"Title": dir, "Up": up, "Menu": menu, "Body": template.HTML(body.String())}) //nolint:gosec // names of our own files
	if err != nil {
		return err
	}
	return put(out, dir+"/index.html", page.Bytes())
}

func put(out, name string, content []byte) error {
	file := filepath.Join(out, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}
