package document

import (
	"strconv"
	"strings"
)

// Kind is the type of a JSON value.
type Kind uint8

// The kinds of values.
const (
	KindNull Kind = iota
	KindBool
	KindNumber
	KindString
	KindArray
	KindObject
)

// String names the kind as an error text does.
func (k Kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}[k]
}

// Value is one value of the document.
type Value struct {
	Kind    Kind
	Off     int      // of its first byte in the document
	Text    string   // of a string; the literal of a number or boolean
	Members []Member // of an object, in file order
	Items   []Value  // of an array
}

// Member is a key of an object and its value.
type Member struct {
	Key   string
	Off   int // of the key
	Value Value
}

// Member returns the value of key, or nil.
func (n *Value) Member(key string) *Value {
	for i := range n.Members {
		if n.Members[i].Key == key {
			return &n.Members[i].Value
		}
	}
	return nil
}

// Number reads a number or a numeric string (CFG-2).
func (n *Value) Number() (float64, bool) {
	if n.Kind != KindNumber && n.Kind != KindString {
		return 0, false
	}
	text := strings.TrimSpace(n.Text)
	if text == "" || strings.Trim(text, "0123456789+-.eE") != "" {
		return 0, false // excludes what ParseFloat knows beyond decimal numbers
	}
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil
}
