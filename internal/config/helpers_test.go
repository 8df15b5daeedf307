package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// workdir makes a directory with the files that configurations in tests name
// and changes into it.
func workdir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"lib.so", "other.so", "ca.pem", "cert.pem", "key.pem"} {
		write(t, filepath.Join(dir, name), "x")
	}
	write(t, filepath.Join(dir, "token"), "from-file\n")
	write(t, filepath.Join(dir, "run"), "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	switch t := t.(type) {
	case *testing.T:
		t.Chdir(dir)
	case *testing.B:
		t.Chdir(dir)
	case *testing.F:
		t.Chdir(dir)
	}
	return dir
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// mustLoad loads text, which must have no errors.
func mustLoad(t testing.TB, text string) (*Config, []Problem) {
	t.Helper()
	write(t, "config.json", text)
	cfg, warnings, err := Load("config.json", nil)
	if err != nil {
		t.Fatalf("unexpected errors:\n%v\nin\n%s", err, text)
	}
	return cfg, warnings
}

// lines returns one line per problem.
func lines(problems []Problem) string { return Errors(problems).Error() }

// texts of minimal valid files, to be extended by tests.
const (
	minimalA = `{"company_name": "c", "car_name": "v", "mqtt_address": "h", "modules": {"5": {"lib_path": "lib.so"}}}`
	minimalD = `{"company_name": "c", "external_communication": {"server_address": "h"}, "common_modules": {"5": {"lib_path": "lib.so"}}, "cars": {"v": {}}}`
)

// with puts more keys into a minimal file.
func with(minimal, keys string) string { return strings.TrimSuffix(minimal, "}") + ", " + keys + "}" }
