package document

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// MaxBytes bounds a file. What is longer is refused with the text TooLarge.
const MaxBytes = 64 << 20

// TooLarge is the text about a file of more than MaxBytes.
const TooLarge = "the file is larger than 64 MiB; no configuration needs that"

// source is the text of a file and where its lines begin.
type source struct {
	text  string
	lines []int
	// The position asked for last: counting goes on there, because a file may
	// be one long line.
	lastOff, lastColumn int
}

func newSource(data []byte) *source {
	d := &source{text: string(data), lines: []int{0}}
	for i := 0; i < len(d.text); i++ {
		if d.text[i] == '\n' {
			d.lines = append(d.lines, i+1)
		}
	}
	return d
}

// position returns line and column, both from 1, the column in characters.
func (d *source) position(off int) (line, column int) {
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
func (d *source) parse(report func(off int, path, key string)) (Value, *parseError) {
	if e := d.checkEncoding(); e != nil {
		return Value{}, e
	}
	var raw json.RawMessage
	if err := json.Unmarshal([]byte(d.text), &raw); err != nil {
		var syntax *json.SyntaxError
		if !errors.As(err, &syntax) {
			return Value{}, &parseError{0, "invalid JSON: " + err.Error()}
		}
		off := int(syntax.Offset)
		text := syntax.Error()
		switch {
		case text == "unexpected end of JSON input":
			text += "; a closing bracket, brace or quote is missing"
		case strings.HasSuffix(text, "exceeded max depth"):
			return Value{}, &parseError{off - 1, tooDeep}
		default:
			off-- // Offset counts the offending byte
			text += d.remedy(off, text)
		}
		return Value{}, &parseError{off, "invalid JSON: " + text}
	}
	s := scanner{text: d.text, report: report}
	s.space()
	n := s.value(1)
	if s.tooDeep > 0 {
		return Value{}, &parseError{s.tooDeep - 1, tooDeep}
	}
	return n, nil
}

// remedy tells what to do about the usual reasons for a character that is not JSON.
func (d *source) remedy(off int, text string) string {
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

func (d *source) checkEncoding() *parseError {
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
