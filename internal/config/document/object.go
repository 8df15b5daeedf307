package document

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Object reads the keys of one object of the document. Every key asked for counts as
// known; Finish warns about the others.
type Object struct {
	Value *Value // of kind KindObject
	Path  string // of the object; empty: the whole document

	r     *Reader
	known []string
}

// Object returns a reader of n, or reports that n is no object and returns nil.
func (r *Reader) Object(n *Value, path string) *Object {
	if n.Kind != KindObject {
		r.Wrong(n, path, "an object")
		return nil
	}
	return &Object{r: r, Value: n, Path: path}
}

// Get returns the value of key, or nil when it is missing.
func (o *Object) Get(key string) *Value {
	o.known = append(o.known, key)
	return o.Value.Member(key)
}

// Has is Get without counting the key as known.
func (o *Object) Has(key string) bool { return o.Value.Member(key) != nil }

// Key returns the whole path of a key.
func (o *Object) Key(key string) string { return Join(o.Path, key) }

// At returns where the value of a key stands, or the object without it.
func (o *Object) At(key string) int {
	if n := o.Value.Member(key); n != nil {
		return n.Off
	}
	return o.Value.Off
}

// KeyAt returns where the key itself stands, or the object without it.
func (o *Object) KeyAt(key string) int {
	for i := range o.Value.Members {
		if o.Value.Members[i].Key == key {
			return o.Value.Members[i].Off
		}
	}
	return o.Value.Off
}

// Required returns the value of key or reports that it is missing.
func (o *Object) Required(key, what string) *Value {
	n := o.Get(key)
	if n == nil {
		o.r.Errorf(o.Value.Off, o.Key(key), "required, but missing; expected %s", what)
	}
	return n
}

// Block returns a reader of an object that may be left out: nil when it is
// missing, null or false. True stands for an empty object.
func (o *Object) Block(key string) *Object {
	n := o.Get(key)
	switch {
	case n == nil, n.Kind == KindNull, n.Kind == KindBool && n.Text == "false":
		return nil
	case n.Kind == KindBool:
		return &Object{r: o.r, Value: &Value{Kind: KindObject, Off: n.Off}, Path: o.Key(key)}
	}
	return o.r.Object(n, o.Key(key))
}

// Finish warns about keys that nothing asked for (CFG-2, "unknown keys are
// ignored at every level").
func (o *Object) Finish() {
	known := make(map[string]struct{}, len(o.known))
	for _, k := range o.known {
		known[k] = struct{}{}
	}
	for i := range o.Value.Members {
		m := &o.Value.Members[i]
		if _, ok := known[m.Key]; ok {
			continue
		}
		o.r.warns.add(func() Problem {
			text := "unknown key, ignored"
			if near := nearest(m.Key, o.known); near != "" {
				text += "; did you mean " + near + "?"
			}
			return o.r.problem(m.Off, o.Key(m.Key), "%s", []any{text})
		})
	}
}

// Str returns the string value of key, or def when it is missing.
func (o *Object) Str(key, def string) string {
	n := o.Get(key)
	if n == nil {
		return def
	}
	if n.Kind != KindString {
		o.r.Wrong(n, o.Key(key), "a string")
		return def
	}
	return n.Text
}

// Text returns the string value of a key that must be there and not be empty. It
// returns "" when it is not.
func (o *Object) Text(key string) string {
	n := o.Required(key, "a string")
	switch {
	case n == nil:
	case n.Kind != KindString:
		o.r.Wrong(n, o.Key(key), "a string")
	case n.Text == "":
		o.r.Errorf(n.Off, o.Key(key), "must not be empty")
	default:
		return n.Text
	}
	return ""
}

// List reads an array of objects, each with a call of the function.
func (o *Object) List(key string, each func(*Object)) {
	n := o.Get(key)
	if n == nil {
		return
	}
	if n.Kind != KindArray {
		o.r.Wrong(n, o.Key(key), "an array of objects")
		return
	}
	for i := range n.Items {
		item := o.r.Object(&n.Items[i], o.Key(key)+"["+strconv.Itoa(i)+"]")
		if item != nil {
			each(item)
			item.Finish()
		}
	}
}

// Without warns about keys that have no effect on what the object describes.
func (o *Object) Without(what string, keys ...string) {
	for _, key := range keys {
		if o.Has(key) {
			o.r.Warnf(o.KeyAt(key), o.Key(key), "has no effect on %s", what)
		}
	}
}

// Boolean returns the truth of key, or def when it is missing. It accepts what the reference accepts (CFG-2).
func (o *Object) Boolean(key string, def bool) bool {
	n := o.Get(key)
	if n == nil {
		return def
	}
	switch n.Kind {
	case KindBool:
		return n.Text == "true"
	case KindString, KindNumber:
		switch strings.ToLower(strings.TrimSpace(n.Text)) {
		case "true", "yes", "on", "y", "t", "1", "1.0":
			return true
		case "false", "no", "off", "n", "f", "0", "0.0":
			return false
		}
		o.r.Errorf(n.Off, o.Key(key), `expected true or false (or "yes", "no", 1, 0)`)
	default:
		o.r.Wrong(n, o.Key(key), "true or false")
	}
	return def
}

// Integer returns the whole number of key within bounds, or def.
func (o *Object) Integer(key string, def, least, most int64) int64 {
	n := o.Get(key)
	if n == nil {
		return def
	}
	v, ok := n.Number()
	if !ok || v != math.Trunc(v) || v < float64(least) || v > float64(most) {
		what := fmt.Sprintf("a whole number from %d to %d", least, most)
		if most >= MaxInteger {
			what = fmt.Sprintf("a whole number, %d or more", least)
		}
		o.WrongNumber(n, key, what)
		return def
	}
	return int64(v)
}

const (
	// MaxInteger is the largest number a float64 holds exactly.
	MaxInteger = 1<<53 - 1
	// maxSeconds is more than thirty years, and fits a time.Duration.
	maxSeconds = 1_000_000_000
)

// Duration returns the number of key times unit, which is a second or a millisecond, or
// def. Zero is allowed when least is zero.
func (o *Object) Duration(key string, unit, def, least time.Duration) time.Duration {
	n := o.Get(key)
	if n == nil {
		return def
	}
	name, kind := "seconds", "a number"
	v, ok := n.Number()
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
		o.WrongNumber(n, key, fmt.Sprintf("%s of %s, %v or more and at most %.0f", kind, name, float64(least)/float64(unit), maxSeconds/unit.Seconds()))
		return def
	case d < least && v == 0:
		o.r.Errorf(n.Off, o.Key(key), "0 cannot work; expected %v %s or more", float64(least)/float64(unit), name) // CFG-15
		return def
	case d < least:
		o.WrongNumber(n, key, fmt.Sprintf("%v %s or more", float64(least)/float64(unit), name))
		return def
	}
	return d
}

// WrongNumber reports a value that is not what was expected. It quotes numbers: no key of
// a secret is read as one.
func (o *Object) WrongNumber(n *Value, key, what string) {
	if n.Kind == KindNumber {
		o.r.Errorf(n.Off, o.Key(key), "expected %s, got %s", what, Shorten(n.Text))
		return
	}
	o.r.Wrong(n, o.Key(key), what)
}
