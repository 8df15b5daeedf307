package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Secrets that the fuzzer plants.
const (
	secretText   = "s3cr3t-v4lue"
	secretNumber = 0.987654321987
)

// plant puts secrets where secrets belong: values of a module's config,
// passwords, tokens and the store of the HTTP API, whatever their type was.
func plant(v any, inConfig bool) any {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			switch {
			case key == "password" || key == "token" || key == "mqtt_password" || key == "store" || key == "peer_token":
				v[key] = secretText + secretText
			case inConfig:
				v[key] = plantLeaf(inner)
			default:
				v[key] = plant(inner, key == "config")
			}
		}
	case []any:
		for i := range v {
			v[i] = plant(v[i], inConfig)
		}
	}
	return v
}

func plantLeaf(v any) any {
	switch v := v.(type) {
	case string:
		return secretText
	case float64:
		return secretNumber
	case []any:
		return []any{secretText}
	case map[string]any:
		return map[string]any{"k": secretText}
	default:
		return v
	}
}

// FuzzLoad reads anything as a configuration: it never panics, every error has a
// position, planted secrets appear nowhere, and what was valid is valid and the
// same after a migration.
func FuzzLoad(f *testing.F) {
	for _, dir := range []string{filepath.Join(repository, "config"), "testdata/formats"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range entries {
			raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	f.Add([]byte(`{"cars":{"*":{"specific_modules":{"1":{"builtin":"io","command":[],"config":{"a":[1.5],"a":null}}}}},"admin":{"tokens":[{"token":5}]}}`))
	f.Add([]byte(`{"company_name":"\ud800","modules":[],"logging":{"verbose":[]},"external_communication":1}`))
	f.Add([]byte(`{"company_name":"c","state_directory":"s","cars":{"v":{}},"common_modules":{"1":{"builtin":"io","config":{}}},"mqtt_address":"h",
		"cluster":{"etcd":["https://e","http://[::1]:1/"],"username":"u","password":"p","tls":true,"peer_listen":":0","peer_address":"[::]:1","peer_token":"0123456789abcdef","peer_tls":{"ca_file":""},"shards":"7","lease_ms":2500}}`))
	read := func(data []byte) (*Config, []Problem, error) {
		l := newLoader("f.json", data, nil)
		l.files.Skip = true
		return l.result(l.load())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, warnings, err := read(data)
		all := warnings
		if err != nil {
			var errs Errors
			if !errors.As(err, &errs) || len(errs) == 0 || cfg != nil {
				t.Fatalf("%v, %v", cfg, err)
			}
			all = append(all, errs...)
		}
		for _, p := range all {
			if p.File != "f.json" || p.Line < 1 || p.Column < 1 || p.Text == "" || strings.Contains(p.String(), "\n") {
				t.Errorf("%#v", p)
			}
		}
		if err == nil {
			again, _, err := read(migrated(t, cfg))
			if err != nil {
				t.Fatalf("the migrated file is invalid: %v", err)
			}
			if a, b := migrated(t, cfg), migrated(t, again); string(a) != string(b) {
				t.Errorf("migration changes the meaning:\n%s\n%s", a, b)
			}
		}
		var value any
		if json.Unmarshal(data, &value) != nil {
			return
		}
		raw, err := json.Marshal(plant(value, false))
		if err != nil {
			t.Fatal(err)
		}
		cfg, warnings, err = read(raw)
		out := fmt.Sprint(warnings, err)
		if cfg != nil {
			out += cfg.Redacted().String() + fmt.Sprintf("%v %+v %#v", *cfg, cfg, cfg)
		}
		if strings.Contains(out, secretText) || strings.Contains(out, "987654321987") {
			t.Errorf("a secret is printed: %s", out)
		}
	})
}

func migrated(t *testing.T, cfg *Config) []byte {
	t.Helper()
	raw, err := encoder{reveal: true}.config(cfg).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
