package app

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/config"
)

// TestCheckWithEmbeddedAPI: built-in modules without api_url use the API of the
// block http_api; a check creates them without opening its store.
func TestCheckWithEmbeddedAPI(t *testing.T) {
	dir := t.TempDir()
	check := func(httpAPI string) []CheckResult {
		path := filepath.Join(dir, "config.json")
		text := `{"company_name": "company", "embedded_broker": {"listen": "127.0.0.1:0"}, ` + httpAPI + `
			"common_modules": {"1": {"builtin": "mission"}, "2": {"builtin": "io"}}, "cars": {"car": {}}}`
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := config.Load(path, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Fatal(err)
		}
		return Check(context.Background(), cfg)
	}
	store := filepath.Join(dir, "fleet.db")
	results := check(`"http_api": {"store": "sqlite:` + store + `"},`)
	if len(results) != 2 {
		t.Fatalf("%v", results)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("module %d: %v", r.Module, r.Err)
		}
	}
	if _, err := os.Stat(store); err == nil {
		t.Error("the store was opened")
	}
	for _, r := range check("") {
		if r.Err == nil {
			t.Errorf("module %d needs an api_url, but was accepted", r.Module)
		}
	}
}

// TestCheckTriesAModuleOnce: a module that does not start is an error of every
// car that uses it, and is started once.
func TestCheckTriesAModuleOnce(t *testing.T) {
	dir := t.TempDir()
	program, starts, path := filepath.Join(dir, "program"), filepath.Join(dir, "starts"), filepath.Join(dir, "config.json")
	text := `{"company_name": "company", "embedded_broker": {"listen": "127.0.0.1:0"},
		"common_modules": {"5": {"command": ["` + program + `", "` + starts + `"]}}, "cars": {"a": {}, "b": {}, "c": {}}}`
	for name, content := range map[string]string{program: "#!/bin/sh\necho started >>\"$1\"\n", path: text} {
		if err := os.WriteFile(name, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cfg, _, err := config.Load(path, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	results := Check(context.Background(), cfg)
	if len(results) != 3 {
		t.Fatalf("%v", results)
	}
	for _, r := range results {
		if r.Err == nil || !strings.Contains(r.Err.Error(), "common_modules.5: module 5") || !strings.Contains(r.Err.Error(), "did not start") {
			t.Errorf("car %s: %v", r.Car, r.Err)
		}
	}
	if log, err := os.ReadFile(starts); err != nil || string(log) != "started\n" {
		t.Errorf("the program ran as %q, %v", log, err)
	}
}
