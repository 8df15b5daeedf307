package document

import (
	"encoding/json"
	"fmt"
	"strings"
)

// maxDepth bounds how deep values are nested. The deepest key of a configuration is on
// level 6.
const maxDepth = 64

const tooDeep = "nested deeper than 64 levels; no configuration needs that"

// scanner builds values from text that is known to be valid JSON.
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
			path = Join(path, st.key)
		}
	}
	return path
}

func (s *scanner) inner(st step, depth int) Value {
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

func (s *scanner) value(depth int) Value {
	n := Value{Off: s.at}
	switch s.text[s.at] {
	case '{':
		n.Kind = KindObject
		if s.deep(depth) {
			return n
		}
		s.object(&n, depth)
	case '[':
		n.Kind = KindArray
		if s.deep(depth) {
			return n
		}
		s.at++
		for s.space(); s.text[s.at] != ']'; s.space() {
			n.Items = append(n.Items, s.inner(step{index: len(n.Items) + 1}, depth))
			if s.tooDeep > 0 {
				return n
			}
		}
		s.at++
	case '"':
		n.Kind, n.Text = KindString, s.string()
	default:
		end := s.at
		for end < len(s.text) && !strings.ContainsRune(" \t\r\n,:]}", rune(s.text[end])) {
			end++
		}
		n.Text = s.text[s.at:end]
		s.at = end
		switch n.Text[0] {
		case 'n':
			n.Kind = KindNull
		case 't', 'f':
			n.Kind = KindBool
		default:
			n.Kind = KindNumber
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

func (s *scanner) object(n *Value, depth int) {
	const few = 8 // below that comparing is cheaper than a map
	var seen map[string]struct{}
	s.at++
	for s.space(); s.text[s.at] != '}'; s.space() {
		m := Member{Off: s.at}
		m.Key = s.string()
		duplicate := false
		if len(n.Members) < few {
			duplicate = n.Member(m.Key) != nil
		} else {
			if seen == nil {
				seen = make(map[string]struct{})
				for i := range n.Members {
					seen[n.Members[i].Key] = struct{}{}
				}
			}
			_, duplicate = seen[m.Key]
			seen[m.Key] = struct{}{}
		}
		if duplicate {
			s.report(m.Off, s.path(), m.Key)
		}
		s.space()
		m.Value = s.inner(step{key: m.Key}, depth)
		if s.tooDeep > 0 {
			return
		}
		if !duplicate {
			n.Members = append(n.Members, m)
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
