package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeyCommands makes, lists and removes a key (HTTP-2): the key is printed
// once, alone on standard output, and the file does not hold it.
func TestKeyCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	call := func(args ...string) (stdout string, err error) {
		var out, messages bytes.Buffer
		root := newRootCommand()
		root.SetArgs(append([]string{"http-api", "key"}, args...))
		root.SetOut(&out)
		root.SetErr(&messages)
		err = root.Execute()
		return out.String(), err
	}
	key, err := call("add", "operator", "--keys-file", file)
	if err != nil || len(strings.TrimSpace(key)) != 43 || strings.Count(key, "\n") != 1 {
		t.Fatalf("add: %q %v", key, err)
	}
	if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), strings.TrimSpace(key)) {
		t.Errorf("file: %s %v", text, err)
	}
	if out, err := call("list", "--keys-file", file); err != nil || !strings.Contains(out, "operator") {
		t.Errorf("list: %q %v", out, err)
	}
	if out, err := call("remove", "operator", "--keys-file", file); err != nil || out != "" {
		t.Errorf("remove: %q %v", out, err)
	}
	for _, args := range [][]string{{"remove", "operator", "--keys-file", file}, {"add", "--keys-file", file}, {"add", "a b", "--keys-file", file}, {"list", "more", "--keys-file", file}, {"list", "-c", file + ".none"}} {
		if out, err := call(args...); err == nil {
			t.Errorf("%v: no error, %q", args, out)
		}
	}
}

// TestKeysFileOfTheConfiguration: without --keys-file the configuration names it.
func TestKeysFileOfTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	write := func(httpAPI string) string {
		path := filepath.Join(dir, "config.json")
		text := `{"company_name": "company", "mqtt_address": "localhost", "mqtt_port": 1883, "http_api": ` + httpAPI + `,
			"common_modules": {"1": {"builtin": "mission", "config": {"api_url": "http://localhost:8080/v2/protocol"}}}, "cars": {"car": {}}}`
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := keysFile("", write(`{"store": "sqlite:f.db"}`)); err == nil || !strings.Contains(err.Error(), "http_api.keys_file") {
		t.Errorf("no keys file: %v", err)
	}
	got, err := keysFile("", write(`{"store": "sqlite:f.db", "keys_file": "/etc/keys.json"}`))
	if err != nil || got != "/etc/keys.json" {
		t.Errorf("%q %v", got, err)
	}
	if got, err := keysFile("given", "none"); err != nil || got != "given" {
		t.Errorf("%q %v", got, err)
	}
}
