package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const repository = "../.."

// readExamples returns the example files by name and, after changing into a
// directory where the library they name exists, leaves the caller there.
func readExamples(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, name := range []string{"config.json", "config.json.example", "fleet.json.example"} {
		raw, err := os.ReadFile(filepath.Join(repository, "config", name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(raw)
	}
	entries, err := os.ReadDir("testdata/formats")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join("testdata/formats", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(raw)
	}
	dir := workdir(t)
	if err := os.MkdirAll(filepath.Join(dir, "build/modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "build/modules/libexample-module.so"), "x")
	return out
}

// strict returns the schema with every unnamed key forbidden, so that a key
// that is missing from the schema shows.
func strict(t *testing.T) *jsonschema.Schema {
	t.Helper()
	var value any
	if err := json.Unmarshal(Schema(), &value); err != nil {
		t.Fatal(err)
	}
	var visit func(any)
	visit = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if v["type"] == "object" && v["properties"] != nil {
				v["additionalProperties"] = false
			}
			for _, inner := range v {
				visit(inner)
			}
		case []any:
			for _, inner := range v {
				visit(inner)
			}
		}
	}
	visit(value)
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("strict.json", parsed); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("strict.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestExamples loads every example without a warning; the schema names every
// key they have, and together they have every key of the schema.
func TestExamples(t *testing.T) {
	validator := strict(t)
	used := make(map[string]bool)
	for name, text := range readExamples(t) {
		t.Run(name, func(t *testing.T) {
			write(t, name, text)
			cfg, warnings, err := Load(name, nil)
			if err != nil || len(warnings) > 0 {
				t.Fatalf("error %v, warnings %v", err, lines(warnings))
			}
			value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := validator.Validate(value); err != nil {
				t.Errorf("the schema refuses it: %v", err)
			}
			want := map[string]Format{"config.json": FormatD, "config.json.example": FormatA, "fleet.json.example": FormatD,
				"a.json": FormatA, "b.json": FormatB, "c.json": FormatC, "d.json": FormatD, "cluster.json": FormatD, "cluster_tls.json": FormatD}[name]
			if cfg.Format != want {
				t.Errorf("format %s, want %s", cfg.Format, want)
			}
			collectKeys(value, used)
		})
	}
	for key := range schemaKeys(t) {
		if !used[key] {
			t.Errorf("no example has the key %s of the schema", key)
		}
	}
}

func collectKeys(v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			into[k] = true
			collectKeys(inner, into)
		}
	case []any:
		for _, inner := range v {
			collectKeys(inner, into)
		}
	}
}

// schemaKeys returns the names of all properties of the schema.
func schemaKeys(t *testing.T) map[string]bool {
	t.Helper()
	var value any
	if err := json.Unmarshal(Schema(), &value); err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]bool)
	var visit func(any)
	visit = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if properties, ok := v["properties"].(map[string]any); ok {
				for k := range properties {
					keys[k] = true
				}
			}
			for _, inner := range v {
				visit(inner)
			}
		case []any:
			for _, inner := range v {
				visit(inner)
			}
		}
	}
	visit(value)
	return keys
}

// TestDocumentation makes sure that docs/configuration.md explains every key.
func TestDocumentation(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(repository, "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	for key := range schemaKeys(t) {
		if !bytes.Contains(raw, []byte("`"+key+"`")) {
			t.Errorf("docs/configuration.md does not explain `%s`", key)
		}
	}
	for _, name := range []string{EnvUsername, EnvPassword, EnvEtcdUsername, EnvEtcdPassword, EnvPeerToken} {
		if !bytes.Contains(raw, []byte("`"+name+"`")) {
			t.Errorf("docs/configuration.md does not explain `%s`", name)
		}
	}
}
