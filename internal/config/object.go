package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// object reads the keys of one object of the file. Every key asked for counts
// as known; finish warns about the others.
type object struct {
	l     *loader
	n     *node
	path  string
	known []string
}

// object returns a reader of n, or reports that n is no object and returns nil.
func (l *loader) object(n *node, path string) *object {
	if n.kind != kindObject {
		l.wrong(n, path, "an object")
		return nil
	}
	return &object{l: l, n: n, path: path}
}

// get returns the value of key, or nil when it is missing.
func (o *object) get(key string) *node {
	o.known = append(o.known, key)
	return o.n.member(key)
}

// has is get without counting the key as known.
func (o *object) has(key string) bool { return o.n.member(key) != nil }

func (o *object) key(key string) string { return join(o.path, key) }

// required returns the value of key or reports that it is missing.
func (o *object) required(key, what string) *node {
	n := o.get(key)
	if n == nil {
		o.l.errorf(o.n.off, o.key(key), "required, but missing; expected %s", what)
	}
	return n
}

// block returns a reader of an object that may be left out: nil when it is
// missing, null or false. True stands for an empty object.
func (o *object) block(key string) *object {
	n := o.get(key)
	switch {
	case n == nil, n.kind == kindNull, n.kind == kindBool && n.text == "false":
		return nil
	case n.kind == kindBool:
		return &object{l: o.l, n: &node{kind: kindObject, off: n.off}, path: o.key(key)}
	}
	return o.l.object(n, o.key(key))
}

// finish warns about keys that nothing asked for (CFG-2, "unknown keys are
// ignored at every level").
func (o *object) finish() {
	known := make(map[string]struct{}, len(o.known))
	for _, k := range o.known {
		known[k] = struct{}{}
	}
	for i := range o.n.members {
		m := &o.n.members[i]
		if _, ok := known[m.key]; ok {
			continue
		}
		o.l.warns.add(func() Problem {
			text := "unknown key, ignored"
			if near := nearest(m.key, o.known); near != "" {
				text += "; did you mean " + near + "?"
			}
			return o.l.problem(m.off, o.key(m.key), "%s", []any{text})
		})
	}
}

// str returns the string value of key, or def when it is missing.
func (o *object) str(key, def string) string {
	n := o.get(key)
	if n == nil {
		return def
	}
	if n.kind != kindString {
		o.l.wrong(n, o.key(key), "a string")
		return def
	}
	return n.text
}

// boolean accepts what the reference accepts (CFG-2).
func (o *object) boolean(key string, def bool) bool {
	n := o.get(key)
	if n == nil {
		return def
	}
	switch n.kind {
	case kindBool:
		return n.text == "true"
	case kindString, kindNumber:
		switch strings.ToLower(strings.TrimSpace(n.text)) {
		case "true", "yes", "on", "y", "t", "1", "1.0":
			return true
		case "false", "no", "off", "n", "f", "0", "0.0":
			return false
		}
		o.l.errorf(n.off, o.key(key), `expected true or false (or "yes", "no", 1, 0)`)
	default:
		o.l.wrong(n, o.key(key), "true or false")
	}
	return def
}

// number reads a number or a numeric string (CFG-2).
func (n *node) number() (float64, bool) {
	if n.kind != kindNumber && n.kind != kindString {
		return 0, false
	}
	text := strings.TrimSpace(n.text)
	if text == "" || strings.Trim(text, "0123456789+-.eE") != "" {
		return 0, false // excludes what ParseFloat knows beyond decimal numbers
	}
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil
}

// integer returns the whole number of key within bounds, or def.
func (o *object) integer(key string, def, least, most int64) int64 {
	n := o.get(key)
	if n == nil {
		return def
	}
	v, ok := n.number()
	if !ok || v != math.Trunc(v) || v < float64(least) || v > float64(most) {
		what := fmt.Sprintf("a whole number from %d to %d", least, most)
		if most >= maxInteger {
			what = fmt.Sprintf("a whole number, %d or more", least)
		}
		o.wrongNumber(n, key, what)
		return def
	}
	return int64(v)
}

const (
	// maxInteger is the largest number a float64 holds exactly.
	maxInteger = 1<<53 - 1
	// maxSeconds is more than thirty years, and fits a time.Duration.
	maxSeconds = 1_000_000_000
)

// duration returns the number of key times unit. Zero is allowed when least is
// zero.
func (o *object) duration(key string, unit, def, least time.Duration) time.Duration {
	n := o.get(key)
	if n == nil {
		return def
	}
	name, kind := "seconds", "a number"
	v, ok := n.number()
	if unit == time.Millisecond { // CFG-2: those are integers
		name, kind = "milliseconds", "a whole number"
		ok = ok && v == math.Trunc(v)
	}
	d := time.Duration(0)
	if ok && v >= 0 && v*unit.Seconds() <= maxSeconds {
		d = time.Duration(math.Round(v * float64(unit)))
	} else {
		ok = false
	}
	switch {
	case !ok:
		o.wrongNumber(n, key, fmt.Sprintf("%s of %s, %v or more and at most %.0f", kind, name, float64(least)/float64(unit), maxSeconds/unit.Seconds()))
		return def
	case d < least && v == 0:
		o.l.errorf(n.off, o.key(key), "0 cannot work; expected %v %s or more", float64(least)/float64(unit), name) // CFG-15
		return def
	case d < least:
		o.wrongNumber(n, key, fmt.Sprintf("%v %s or more", float64(least)/float64(unit), name))
		return def
	}
	return d
}

// wrongNumber quotes numbers, which no key of a secret is read by.
func (o *object) wrongNumber(n *node, key, what string) {
	if n.kind == kindNumber {
		o.l.errorf(n.off, o.key(key), "expected %s, got %s", what, shorten(n.text))
		return
	}
	o.l.wrong(n, o.key(key), what)
}

// nearest returns the known key a mistyped one most likely stands for, or "".
func nearest(key string, known []string) string {
	const longest = 64
	if len(key) > longest {
		return ""
	}
	best, least := "", max(2, len(key)/3)+1
	for _, k := range known {
		d := distance(normal(key), normal(k))
		if len(key) >= 4 && strings.HasPrefix(k, key) {
			d = min(d, 2) // a unit or another ending is missing
		}
		if d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

func normal(key string) string { return strings.ReplaceAll(strings.ToLower(key), "-", "_") }

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that lead from a to b.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, now := rows[(i-1)%3], rows[i%3], rows[(i+1)%3]
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}
