package carlist

import (
	"fmt"
	"strings"
)

// maxQueried is how many labels a car has at most.
const maxQueried = 16

// labelQuery is one label that a car must have.
type labelQuery struct {
	name, value string
	any         bool // of any value
}

// parseLabels reads name=value, or name alone for any value.
func parseLabels(texts []string) (out []labelQuery, err error) {
	if len(texts) > maxQueried {
		return nil, fmt.Errorf("label is given %d times; a car has %d labels at most", len(texts), maxQueried)
	}
	for _, text := range texts {
		name, value, found := strings.Cut(text, "=")
		if name == "" || found && value == "" {
			return nil, fmt.Errorf("label is %q; expected NAME=VALUE such as depot=brno, or NAME for any value", text)
		}
		out = append(out, labelQuery{name, value, !found})
	}
	return out, nil
}

// labelled tells whether the labels of a car are as wanted.
func labelled(labels map[string]string, wanted []labelQuery) bool {
	for _, w := range wanted {
		if value, ok := labels[w.name]; !ok || !w.any && value != w.value {
			return false
		}
	}
	return true
}
