package config

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// schemaDefault is a default that the schema tells. Keys of objects whose names are free
// are "" in the path, entries of arrays too.
type schemaDefault struct {
	path  []string
	value any
}

func (d schemaDefault) key() string { return d.path[len(d.path)-1] }

// schemaDefaults returns all of them, those of a definition for each place it is used in.
func schemaDefaults(t *testing.T) (out []schemaDefault) {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	var visit func(node map[string]any, path []string)
	step := func(v any, path []string, key ...string) {
		if node, ok := v.(map[string]any); ok {
			visit(node, append(slices.Clone(path), key...))
		}
	}
	visit = func(node map[string]any, path []string) {
		if d, ok := node["default"]; ok && len(path) > 0 {
			out = append(out, schemaDefault{path, d})
		}
		if ref, ok := node["$ref"].(string); ok {
			step(root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")], path)
		}
		for _, word := range []string{"anyOf", "allOf", "oneOf"} {
			list, _ := node[word].([]any)
			for _, v := range list {
				step(v, path)
			}
		}
		properties, _ := node["properties"].(map[string]any)
		for key, v := range properties {
			step(v, path, key)
		}
		patterns, _ := node["patternProperties"].(map[string]any)
		for _, v := range patterns {
			step(v, path, "")
		}
		step(node["additionalProperties"], path, "")
		step(node["items"], path, "")
	}
	visit(root, nil)
	return out
}

// parents returns the objects of a configuration that may have the key at the end of the
// path.
func parents(v any, path []string) (found []map[string]any) {
	switch v := v.(type) {
	case map[string]any:
		if len(path) == 1 {
			return []map[string]any{v}
		}
		if path[0] != "" {
			return parents(v[path[0]], path[1:])
		}
		for _, inner := range v {
			found = append(found, parents(inner, path[1:])...)
		}
	case []any:
		for _, inner := range v {
			if path[0] == "" && len(path) > 1 {
				found = append(found, parents(inner, path[1:])...)
			}
		}
	}
	return found
}

// A default that the schema tells is what the server takes when the key is left out.
func TestSchemaTellsTheDefaults(t *testing.T) {
	examples := readExamples(t)
	load := func(v any) *Config {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		write(t, "config.json", string(text))
		cfg, _, err := Load("config.json", nil)
		if err != nil {
			return nil
		}
		cfg.places = nil
		return cfg
	}
	// same tells whether it makes no difference in this example.
	same := func(text string, d schemaDefault) bool {
		var root any
		if err := json.Unmarshal([]byte(text), &root); err != nil {
			t.Fatal(err)
		}
		for _, parent := range parents(root, d.path) {
			before := maps.Clone(parent)
			delete(parent, d.key())
			without := load(root)
			parent[d.key()] = d.value
			with := load(root)
			if without != nil && reflect.DeepEqual(without, with) {
				return true
			}
			clear(parent)
			maps.Copy(parent, before)
		}
		return false
	}
	all := schemaDefaults(t)
	if len(all) < 55 {
		t.Fatalf("only %d defaults found", len(all))
	}
	for _, d := range all {
		found := false
		for _, text := range examples {
			found = found || same(text, d)
		}
		if !found {
			t.Errorf("%s: the schema tells the default %v, and no example means the same without the key", strings.Join(d.path, "."), d.value)
		}
	}
}

// The tables of docs/configuration.md tell the defaults of the schema.
func TestDocumentTellsTheDefaults(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(repository, "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string][]string) // as they stand in the document, by key
	for _, d := range schemaDefaults(t) {
		text, err := json.Marshal(d.value)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{string(text), "`" + string(text) + "`", "`" + strings.Trim(string(text), `"`) + "`"} {
			known[d.key()] = append(known[d.key()], form)
		}
	}
	checked := 0
	row := regexp.MustCompile("(?m)^\\| `([a-z_-]+)` \\|(.*)$")
	other := map[string]string{"mqtt_tls": "true when a file is set", "path": "required when the file is used"}
	for _, m := range row.FindAllStringSubmatch(string(raw), -1) {
		key := m[1]
		tells := func(cell string) bool {
			cell = strings.TrimSpace(cell)
			return cell == "–" || cell == other[key] || slices.Contains(known[key], cell)
		}
		if len(known[key]) == 0 {
			continue
		}
		checked++
		if !slices.ContainsFunc(strings.Split(m[2], " | "), tells) {
			t.Errorf("docs/configuration.md does not tell the default of %s: one of %q", key, known[key])
		}
	}
	if checked < 35 {
		t.Errorf("only %d rows with a default found", checked)
	}
}
