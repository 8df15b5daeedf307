package main

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
)

// home is the page that becomes index.html; its links are the order of the menu.
const home = "README.md"

// page is one document. Paths are relative to the project, with slashes.
type page struct {
	source   string
	target   string
	title    string
	markdown []byte
	tree     ast.Node
	sections []section
}

// section is what a search finds: a heading and the text below it.
type section struct {
	id, heading string
	text        []byte
}

// site is all pages in the order of the menu, and the files that they link.
type site struct {
	root  string
	pages []*page
	by    map[string]*page // by source
	files map[string]bool
	md    goldmark.Markdown
}

// read reads the first page, and what it and the others link.
func read(root string) (*site, error) {
	s := &site{root: root, by: make(map[string]*page), files: make(map[string]bool),
		md: goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithParserOptions(parser.WithAutoHeadingID()))}
	waiting := []string{home}
	more, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	for _, m := range more {
		waiting = append(waiting, path.Join("docs", filepath.Base(m)))
	}
	for len(waiting) > 0 {
		source := waiting[0]
		waiting = waiting[1:]
		if s.by[source] != nil {
			continue
		}
		p, linked, err := s.parse(source)
		if err != nil {
			return nil, err
		}
		s.by[source] = p
		s.pages = append(s.pages, p)
		// The links of the first page come before the rest.
		if source == home {
			waiting = append(linked, waiting...)
		} else {
			waiting = append(waiting, linked...)
		}
	}
	return s, nil
}

// parse reads one page, makes its links those of the site, and returns the pages that it
// links.
func (s *site) parse(source string) (*page, []string, error) {
	content, err := os.ReadFile(filepath.Join(s.root, filepath.FromSlash(source)))
	if err != nil {
		return nil, nil, err
	}
	p := &page{source: source, target: target(source), markdown: content}
	p.tree = s.md.Parser().Parse(text.NewReader(content), parser.WithContext(parser.NewContext(parser.WithIDs(&ids{}))))
	var linked []string
	err = ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			p.heading(n)
		case *ast.Link:
			to, other, err := s.link(source, string(n.Destination))
			if err != nil {
				return ast.WalkStop, err
			}
			n.Destination = []byte(to)
			if other != "" {
				linked = append(linked, other)
			}
		case *ast.Image:
			if _, _, err := s.link(source, string(n.Destination)); err != nil {
				return ast.WalkStop, err
			}
		case *ast.Text:
			p.add(n.Segment.Value(content))
		case *ast.FencedCodeBlock:
			for i := range n.Lines().Len() {
				line := n.Lines().At(i)
				p.add(line.Value(content))
			}
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", source, err)
	}
	if p.title == "" {
		return nil, nil, fmt.Errorf("%s has no heading", source)
	}
	return p, linked, nil
}

func (p *page) heading(n *ast.Heading) {
	var b bytes.Buffer
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		_ = ast.Walk(c, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
			if t, ok := n.(*ast.Text); ok && entering {
				b.Write(t.Segment.Value(p.markdown))
			}
			return ast.WalkContinue, nil
		}) // the function returns no error
	}
	id, _ := n.AttributeString("id")
	raw, _ := id.([]byte)
	p.sections = append(p.sections, section{id: string(raw), heading: b.String()})
	if p.title == "" {
		p.title = b.String()
	}
}

func (p *page) add(t []byte) {
	if len(p.sections) == 0 {
		return
	}
	last := &p.sections[len(p.sections)-1]
	last.text = append(append(last.text, t...), ' ')
}

// link returns where a link of a page leads in the site, and the page there, if it is
// one. Files are noted for copying.
func (s *site) link(from, to string) (string, string, error) {
	if strings.Contains(to, "://") || strings.HasPrefix(to, "#") || strings.HasPrefix(to, "mailto:") {
		return to, "", nil
	}
	file, fragment, _ := strings.Cut(to, "#")
	at := path.Join(path.Dir(from), file)
	if strings.HasPrefix(at, "..") {
		return "", "", fmt.Errorf("the link %s leads out of the project", to)
	}
	info, err := os.Stat(filepath.Join(s.root, filepath.FromSlash(at)))
	if err != nil {
		return "", "", fmt.Errorf("the link %s leads nowhere: %w", to, err)
	}
	if fragment != "" {
		fragment = "#" + fragment
	}
	switch {
	case info.IsDir():
		at = path.Join(at, "index.html")
		s.files[at] = true
	case strings.HasSuffix(at, ".md"):
		relative, err := filepath.Rel(path.Dir(from), target(at))
		return filepath.ToSlash(relative) + fragment, at, err
	default:
		s.files[at] = true
	}
	relative, err := filepath.Rel(path.Dir(from), at)
	return filepath.ToSlash(relative) + fragment, "", err
}

// target is the file of a page in the site.
func target(source string) string {
	if source == home {
		return "index.html"
	}
	return strings.TrimSuffix(source, ".md") + ".html"
}

// linkedFiles lists what has to be copied.
func (s *site) linkedFiles() []string {
	var out []string
	for f := range s.files {
		out = append(out, f)
	}
	slices.Sort(out)
	return out
}
