package app

import (
	"context"
	"os"
	"path/filepath"
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
