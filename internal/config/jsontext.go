package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// Bounds of a configuration file. The deepest key of any format is on level 6.
const (
	maxFileBytes = 64 << 20
	maxDepth     = 64
)

const (
	tooLarge = "the file is larger than 64 MiB; no configuration needs that"
	tooDeep  = "nested deeper than 64 levels; no configuration needs that"
)

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// String names the kind as an error text does.
func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}[k]
}

// node is one value of the document and the offset of its first byte.
type node struct {
	kind    kind
	off     int
	text    string   // string value; literal of a number or boolean
	members []member // of an object, in file order
	items   []node   // of an array
}

type member struct {
	key   string
	off   int // of the key
	value node
}

// member returns the value of key, or nil.
func (n *node) member(key string) *node {
	for i := range n.members {
		if n.members[i].key == key {
			return &n.members[i].value
		}
	}
	return nil
}

// document is the text of a file and where its lines begin.
type document struct {
	text  string
	lines []int
	// The position asked for last: counting goes on there, because a file may
	// be one long line.
	lastOff, lastColumn int
}

func newDocument(data []byte) *document {
	d := &document{text: string(data), lines: []int{0}}
	for i := 0; i < len(d.text); i++ {
		if d.text[i] == '\n' {
			d.lines = append(d.lines, i+1)
		}
	}
	return d
}

// position returns line and column, both from 1, the column in characters.
func (d *document) position(off int) (line, column int) {
	off = min(max(off, 0), len(d.text))
	line = sort.SearchInts(d.lines, off+1)
	from, column := d.lines[line-1], 1
	if d.lastOff > from && d.lastOff <= off {
		from, column = d.lastOff, d.lastColumn
	}
	column += utf8.RuneCountInString(d.text[from:off])
	d.lastOff, d.lastColumn = off, column
	return line, column
}

// parseError is the one thing that keeps a text from being JSON.
type parseError struct {
	off  int
	text string
}

// parse checks the text and returns its value. Duplicate keys are not an error
// of the grammar; report gets each one with the path of its object.
func (d *document) parse(report func(off int, path, key string)) (node, *parseError) {
	if e := d.checkEncoding(); e != nil {
		return node{}, e
	}
	var raw json.RawMessage
	if err := json.Unmarshal([]byte(d.text), &raw); err != nil {
		var syntax *json.SyntaxError
		if !errors.As(err, &syntax) {
			return node{}, &parseError{0, "invalid JSON: " + err.Error()}
		}
		off := int(syntax.Offset)
		text := syntax.Error()
		switch {
		case text == "unexpected end of JSON input":
			text += "; a closing bracket, brace or quote is missing"
		case strings.HasSuffix(text, "exceeded max depth"):
			return node{}, &parseError{off - 1, tooDeep}
		default:
			off-- // Offset counts the offending byte
			text += d.remedy(off, text)
		}
		return node{}, &parseError{off, "invalid JSON: " + text}
	}
	s := scanner{text: d.text, report: report}
	s.space()
	n := s.value(1)
	if s.tooDeep > 0 {
		return node{}, &parseError{s.tooDeep - 1, tooDeep}
	}
	return n, nil
}

// remedy tells what to do about the usual reasons for a character that is not JSON.
func (d *document) remedy(off int, text string) string {
	if off < 0 || off >= len(d.text) {
		return ""
	}
	before := strings.TrimRight(d.text[:off], " \t\r\n")
	switch c := d.text[off]; {
	case c == '/', c == '#':
		return "; JSON has no comments, remove it"
	case (c == ']' || c == '}') && strings.HasSuffix(before, ","):
		return fmt.Sprintf("; remove the comma before %c", c)
	case c == '\'':
		return `; JSON knows only " as a quote`
	case c != ':' && (strings.HasSuffix(text, "after object key:value pair") || strings.HasSuffix(text, "after array element")):
		return "; a comma is missing before it"
	}
	return ""
}

func (d *document) checkEncoding() *parseError {
	const utf8BOM = "\xef\xbb\xbf"
	switch {
	case strings.HasPrefix(d.text, utf8BOM):
		return &parseError{0, "the file begins with a byte order mark; expected plain UTF-8, save it without BOM"}
	case strings.HasPrefix(d.text, "\xff\xfe"), strings.HasPrefix(d.text, "\xfe\xff"):
		return &parseError{0, "the file is UTF-16; expected UTF-8"}
	case !utf8.ValidString(d.text):
		off := 0
		for off < len(d.text) {
			r, size := utf8.DecodeRuneInString(d.text[off:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			off += size
		}
		return &parseError{off, fmt.Sprintf("invalid UTF-8, byte 0x%02x; expected a file in UTF-8", d.text[off])}
	case strings.Trim(d.text, " \t\r\n") == "":
		return &parseError{0, "the file is empty; expected a JSON object"}
	}
	return nil
}

// scanner builds nodes from text that is known to be valid JSON.
type scanner struct {
	text    string
	at      int
	report  func(off int, path, key string)
	stack   []step
	tooDeep int // offset + 1 of the first value below maxDepth
}

// step leads from a value to one inside: by key, or by index when key is empty
// and index is from 1.
type step struct {
	key   string
	index int
}

func (s *scanner) path() string {
	path := ""
	for _, st := range s.stack {
		if st.index > 0 {
			path += fmt.Sprintf("[%d]", st.index-1)
		} else {
			path = join(path, st.key)
		}
	}
	return path
}

func (s *scanner) inner(st step, depth int) node {
	s.stack = append(s.stack, st)
	n := s.value(depth + 1)
	s.stack = s.stack[:len(s.stack)-1]
	return n
}

func (s *scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n', ',', ':': // separators are where they belong
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) node {
	n := node{off: s.at}
	switch s.text[s.at] {
	case '{':
		n.kind = kindObject
		if s.deep(depth) {
			return n
		}
		s.object(&n, depth)
	case '[':
		n.kind = kindArray
		if s.deep(depth) {
			return n
		}
		s.at++
		for s.space(); s.text[s.at] != ']'; s.space() {
			n.items = append(n.items, s.inner(step{index: len(n.items) + 1}, depth))
			if s.tooDeep > 0 {
				return n
			}
		}
		s.at++
	case '"':
		n.kind, n.text = kindString, s.string()
	default:
		end := s.at
		for end < len(s.text) && !strings.ContainsRune(" \t\r\n,:]}", rune(s.text[end])) {
			end++
		}
		n.text = s.text[s.at:end]
		s.at = end
		switch n.text[0] {
		case 'n':
			n.kind = kindNull
		case 't', 'f':
			n.kind = kindBool
		default:
			n.kind = kindNumber
		}
	}
	return n
}

func (s *scanner) deep(depth int) bool {
	if depth > maxDepth {
		s.tooDeep = s.at + 1
	}
	return depth > maxDepth
}

func (s *scanner) object(n *node, depth int) {
	const few = 8 // below that comparing is cheaper than a map
	var seen map[string]struct{}
	s.at++
	for s.space(); s.text[s.at] != '}'; s.space() {
		m := member{off: s.at}
		m.key = s.string()
		duplicate := false
		if len(n.members) < few {
			duplicate = n.member(m.key) != nil
		} else {
			if seen == nil {
				seen = make(map[string]struct{})
				for i := range n.members {
					seen[n.members[i].key] = struct{}{}
				}
			}
			_, duplicate = seen[m.key]
			seen[m.key] = struct{}{}
		}
		if duplicate {
			s.report(m.off, s.path(), m.key)
		}
		s.space()
		m.value = s.inner(step{key: m.key}, depth)
		if s.tooDeep > 0 {
			return
		}
		if !duplicate {
			n.members = append(n.members, m)
		}
	}
	s.at++
}

// string reads the string at s.at, which begins with a quote.
func (s *scanner) string() string {
	end := s.at + 1
	escaped := false
	for s.text[end] != '"' {
		if s.text[end] == '\\' {
			escaped = true
			end++
		}
		end++
	}
	literal := s.text[s.at : end+1]
	s.at = end + 1
	if !escaped {
		return literal[1 : len(literal)-1]
	}
	var out string
	if json.Unmarshal([]byte(literal), &out) != nil {
		return "" // cannot happen: the grammar was checked before
	}
	return out
}
