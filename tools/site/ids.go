package main

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/yuin/goldmark/ast"
)

// ids names headings as the places do where the documents are read otherwise, so that
// links to headings work there and here.
type ids struct{ used map[string]bool }

// Generate implements parser.IDs.
func (i *ids) Generate(value []byte, _ ast.NodeKind) []byte {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(string(value))) {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	id := b.String()
	for n := 1; i.used[id]; n++ {
		id = fmt.Sprintf("%s-%d", b.String(), n)
	}
	i.Put([]byte(id))
	return []byte(id)
}

// Put implements parser.IDs.
func (i *ids) Put(value []byte) {
	if i.used == nil {
		i.used = make(map[string]bool)
	}
	i.used[string(value)] = true
}
