package config

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of labels: what shows or exports them has a line or a column for each.
const (
	maxLabels     = 16 // of one car
	maxLabelNames = 64 // of all cars together
	maxLabelName  = 32 // bytes
	maxLabelValue = 64 // characters
)

// labels reads the labels of a car: an object of texts.
func (l *loader) labels(car *object) []Label {
	n := car.get("labels")
	if n == nil {
		return nil
	}
	o := l.object(n, car.key("labels"))
	if o == nil {
		return nil
	}
	if len(n.members) > maxLabels {
		l.errorf(n.off, o.path, "%d labels; expected %d at most", len(n.members), maxLabels)
		return nil
	}
	out := make([]Label, 0, len(n.members))
	for i := range n.members {
		m := &n.members[i]
		if !labelNameValid(m.key) {
			l.errorf(m.off, o.key(m.key), "the name of a label has up to %d lower-case letters, digits, _ and -, such as depot", maxLabelName)
			continue
		}
		if m.value.kind != kindString {
			l.wrong(&m.value, o.key(m.key), `a text, such as "brno"`)
			continue
		}
		if !labelValueValid(m.value.text) {
			l.errorf(m.value.off, o.key(m.key), "expected a text of 1 to %d characters without line breaks and other control characters, and without space at its ends", maxLabelValue)
			continue
		}
		if _, known := l.labelNames[m.key]; !known && len(l.labelNames) == maxLabelNames {
			l.errorf(m.off, o.key(m.key), "the cars have labels of more than %d different names; use fewer names and more values", maxLabelNames)
			continue
		}
		l.labelNames[m.key] = struct{}{}
		out = append(out, Label{Name: m.key, Value: m.value.text})
	}
	return out
}

func labelNameValid(name string) bool {
	return name != "" && len(name) <= maxLabelName && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

func labelValueValid(value string) bool {
	return value != "" && utf8.RuneCountInString(value) <= maxLabelValue && value == strings.TrimSpace(value) &&
		!strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsGraphic(r) })
}
