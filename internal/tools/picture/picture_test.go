package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../../.."

// The picture in the document is that of the code.
func TestPictureIsOfTheCode(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		t.Fatal(err)
	}
	updated, err := update(root, string(text))
	if err != nil {
		t.Fatal(err)
	}
	if updated != string(text) {
		t.Errorf("the picture of %s is not that of the code; run: go run ./internal/tools/picture", document)
	}
	if !strings.HasPrefix(strings.TrimSpace(updated[strings.Index(updated, beginMark)+len(beginMark):]), "```text\nTHE PACKAGES") {
		t.Error("there is no picture between the marks")
	}
}

// Each package stands above all that it imports.
func TestLayers(t *testing.T) {
	s := &source{imports: map[string][]string{"app": {"car", "fleet"}, "car": {"fleet", "session"}, "session": {"fleet"}, "other": {"app"}}}
	got := s.layers("app")
	want := [][]string{{"app"}, {"car"}, {"session"}, {"fleet"}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A step that leads to a package it has nothing to do with, or to a function that is
// gone, is an error.
func TestWaysAreOfTheCode(t *testing.T) {
	s := &source{
		imports:   map[string][]string{"car": {"link", "session"}, "session": {}, "link/mqtt": {"link"}, "lamp": {}},
		functions: map[string]bool{"car Seat.Message": true, "session Session.Step": true, "lamp On": true, "link/mqtt read": true},
	}
	for _, tt := range []struct {
		steps []step
		want  string
	}{
		{[]step{{"car", "Seat.Message", ""}, {"session", "Session.Step", ""}}, ""},
		{[]step{{"link/mqtt", "read", ""}, {"car", "Seat.Message", ""}}, ""},
		{[]step{{"car", "Seat.Gone", ""}}, "no function Seat.Gone in internal/car"},
		{[]step{{"car", "Seat.Message", ""}, {"lamp", "On", ""}}, "car and lamp follow each other"},
	} {
		var b strings.Builder
		err := drawWay(&b, s, way{steps: tt.steps})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%v: %v, want %q", tt.steps, err, tt.want)
		}
	}
}
