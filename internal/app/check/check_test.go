package check

import (
	"context"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/module/fleetapi"
)

// TestCheckWithEmbeddedAPI: built-in modules without api_url use the API of the
// block http_api; a check creates them without opening its store.
func TestCheckWithEmbeddedAPI(t *testing.T) {
	dir := t.TempDir()
	check := func(httpAPI string) []Result {
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
		return Configuration(context.Background(), cfg).Modules
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
	results := Configuration(context.Background(), cfg).Modules
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

// TestCheckLooksAtFiles: what ends a start is found without one, with its place in
// the file, and without the contents of any file.
func TestCheckLooksAtFiles(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("planted, and neither PEM nor a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config.json")
	pair := `{"cert_file": "` + junk + `", "key_file": "` + junk + `"}`
	text := `{"company_name": "company",
"embedded_broker": {"listen": "127.0.0.1:0", "tls": ` + pair + `},
"mqtt_address": "127.0.0.1",
"mqtt_ca_certs_file": "` + junk + `",
"mqtt_cert_file": "` + junk + `", "mqtt_key_file": "` + junk + `",
"http_api": {"listen": "127.0.0.1:0", "tls": ` + pair + `,
"store": "sqlite:` + junk + `",
"keys_file": "` + junk + `"},
"admin": {"listen": "127.0.0.1:0", "tls": ` + pair + `},
"common_modules": {"1": {"builtin": "mission", "config": {"apikey": "planted"}}}, "cars": {"car": {}}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := content(t, dir)
	report := Configuration(t.Context(), cfg)
	if after := content(t, dir); !maps.Equal(before, after) {
		t.Errorf("files changed:\nbefore %q\nafter  %q", before, after)
	}
	want := []string{"4:23: mqtt_ca_certs_file: ", "5:19: mqtt_cert_file: ", "2:53: embedded_broker.tls: ", "6:46: http_api.tls: ", "9:43: admin.tls: ",
		"7:10: http_api.store: ", "8:14: http_api.keys_file: "}
	if len(report.Problems) != len(want) {
		t.Errorf("%v", report.Problems)
	}
	for i, p := range report.Problems {
		if i < len(want) && !strings.HasPrefix(p.String(), path+":"+want[i]) || strings.Contains(p.String(), "planted") {
			t.Errorf("problem %d: %v, want %s", i, p, want[i])
		}
	}
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "key apikey") || strings.Contains(report.Warnings[0], "planted") {
		t.Errorf("warnings %q", report.Warnings)
	}
	if err := cfg.ApplyFlags(config.Flags{CA: junk}); err != nil {
		t.Fatal(err)
	}
	if got := Configuration(t.Context(), cfg).Problems[0].String(); !strings.HasPrefix(got, "--ca: ") {
		t.Errorf("a file of the command line: %s", got)
	}
}

// TestCheckLeavesTheSpoolAlone: what waits in the spool is neither posted nor
// touched, and no folder is made for a car that has none.
func TestCheckLeavesTheSpoolAlone(t *testing.T) {
	var requests atomic.Int32
	api := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer api.Close()
	dir := t.TempDir()
	spool := filepath.Join(dir, "spool")
	if err := os.Mkdir(spool, 0o700); err != nil {
		t.Fatal(err)
	}
	fillSpool(t, spool, fleet.CarID{Company: "company", Car: "car"})
	before := content(t, dir)
	if len(before) < 5 {
		t.Fatalf("the spool is empty: %v", before)
	}
	path := filepath.Join(t.TempDir(), "config.json")
	text := `{"company_name": "company", "embedded_broker": {"listen": "127.0.0.1:0"}, "common_modules": {"2": {"builtin": "io",
		"spool_directory": "` + spool + `", "config": {"api_url": "` + api.URL + `", "api_key": "k"}}}, "cars": {"car": {}, "other": {}, "*": {}}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Configuration(t.Context(), cfg).Modules {
		if r.Err != nil {
			t.Errorf("car %s: %v", r.Car, r.Err)
		}
	}
	if after := content(t, dir); !maps.Equal(before, after) {
		t.Errorf("the check changed the spool:\nbefore %q\nafter  %q", before, after)
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("the check made %d requests to the API", n)
	}
}

// fillSpool leaves statuses in the spool of the module io, as a server does whose
// API is away when it stops.
func fillSpool(t *testing.T, dir string, car fleet.CarID) {
	t.Helper()
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer away.Close()
	m, err := fleetapi.New(fleetapi.Options{Builtin: fleetapi.IO, SpoolDirectory: dir})
	if err != nil {
		t.Fatal(err)
	}
	i, err := m.Open(t.Context(), module.InstanceSpec{Car: car, Config: []module.Pair{{Key: "api_url", Value: away.URL}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{`{"n":1}`, `{"n":2}`} {
		if err := i.ForwardStatus(t.Context(), fleet.Device{Module: 2, Type: 1, Role: "role", Name: "name"}, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := i.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// content returns what is in every file and folder below dir.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String() + " " + info.ModTime().String()
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(data)
		}
		out[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
