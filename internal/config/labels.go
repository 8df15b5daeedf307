package config

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"external-server/internal/config/document"
)

// Bounds of labels: what shows or exports them has a line or a column for each.
const (
	maxLabels     = 16 // of one car
	maxLabelNames = 64 // of all cars together
	maxLabelName  = 32 // bytes
	maxLabelValue = 64 // characters
)

// labels reads the labels of a car: an object of texts.
func (l *loader) labels(car *document.Object) []Label {
	n := car.Get("labels")
	if n == nil {
		return nil
	}
	o := l.Object(n, car.Key("labels"))
	if o == nil {
		return nil
	}
	if len(n.Members) > maxLabels {
		l.Errorf(n.Off, o.Path, "%d labels; expected %d at most", len(n.Members), maxLabels)
		return nil
	}
	out := make([]Label, 0, len(n.Members))
	for i := range n.Members {
		m := &n.Members[i]
		if !labelNameValid(m.Key) {
			l.Errorf(m.Off, o.Key(m.Key), "the name of a label has up to %d lower-case letters, digits, _ and -, such as depot", maxLabelName)
			continue
		}
		if m.Value.Kind != document.KindString {
			l.Wrong(&m.Value, o.Key(m.Key), `a text, such as "brno"`)
			continue
		}
		if !labelValueValid(m.Value.Text) {
			l.Errorf(m.Value.Off, o.Key(m.Key), "expected a text of 1 to %d characters without line breaks and other control characters, and without space at its ends", maxLabelValue)
			continue
		}
		if _, known := l.labelNames[m.Key]; !known && len(l.labelNames) == maxLabelNames {
			l.Errorf(m.Off, o.Key(m.Key), "the cars have labels of more than %d different names; use fewer names and more values", maxLabelNames)
			continue
		}
		l.labelNames[m.Key] = struct{}{}
		out = append(out, Label{Name: m.Key, Value: m.Value.Text})
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
