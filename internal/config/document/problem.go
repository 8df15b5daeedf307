package document

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxProblems bounds what one file can report; the rest is counted.
const maxProblems = 1000

// Problem is one error or warning about a document. Its text says what was
// expected and never quotes secrets (CFG-22, DEF-45).
type Problem struct {
	File   string // as given to NewReader; empty: not about the file
	Line   int    // from 1; 0: about the file as a whole
	Column int    // in characters, from 1
	Key    string // path such as common_modules.1.lib_path; empty: the whole document
	Text   string
}

// String returns "file:line:column: key: text".
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Errors are all errors of one document, in the order of the file.
type Errors []Problem

// Error returns one line per problem.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// problems collects up to maxProblems and counts the others.
type problems struct {
	list    []Problem
	dropped int
}

// add makes and keeps a problem while there is room.
func (p *problems) add(make func() Problem) {
	if len(p.list) >= maxProblems {
		p.dropped++
		return
	}
	p.list = append(p.list, make())
}

// sorted returns the problems in the order of the file; those about the whole
// file come first.
func (p *problems) sorted(what string) []Problem {
	slices.SortStableFunc(p.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if p.dropped > 0 {
		last := p.list[len(p.list)-1]
		last.Key, last.Text = "", fmt.Sprintf("%d further %s are not listed", p.dropped, what)
		return append(p.list, last)
	}
	return p.list
}

// Join appends a key to a path. Keys that a person would not recognise between
// dots are quoted.
func Join(path, key string) string {
	if !plainKey(key) {
		key = strconv.Quote(Shorten(key))
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func plainKey(key string) bool {
	if key == "" || len(key) > maxShown {
		return false
	}
	for i := range len(key) {
		switch c := key[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '*', c == '$':
		default:
			return false
		}
	}
	return true
}

// maxShown bounds what of a key, a path or an address an error quotes.
const maxShown = 200

// Shorten returns text that an error may quote: what is too long ends with "…".
func Shorten(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}

// Quote returns the text between quotes, shortened.
func Quote(s string) string { return strconv.Quote(Shorten(s)) }
