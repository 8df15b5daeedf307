package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/tools/man"
)

func TestClosest(t *testing.T) {
	all := []string{"cars", "car", "check", "disconnect", "reload", "simulate"}
	for word, want := range map[string]string{
		"crs": "cars", "realod": "reload", "Simulat": "simulate", "disconect": "disconnect", "chekc": "check", "carss": "cars",
		"": "", "banana": "", "config.json": "", "x": "",
	} {
		if got := closest(word, all); got != want {
			t.Errorf("%q: %q, expected %q", word, got, want)
		}
	}
}

// A mistyped command, sub-command or flag is answered with what may have been meant; a
// file of nearly that name is a configuration.
func TestDidYouMean(t *testing.T) {
	t.Chdir(t.TempDir())
	for call, want := range map[string]string{
		"relod":          `did you mean "reload"?`,
		"module chek":    `did you mean "check"?`,
		"config schemas": `did you mean "schema"?`,
		"cars --stat x":  "did you mean --state?",
		"nowhere.json":   "not found",
		"cars banana":    `unexpected argument "banana"`,
	} {
		_, err := command(t.Context(), strings.Fields(call)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", call, err, want)
		}
	}
	if err := os.WriteFile("relod", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := command(t.Context(), "relod"); err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("a file: %v", err)
	}
}

// Of a running server the shell is offered cars, components, levels and states, and an
// unknown car or component is answered with what may have been meant.
func TestCompletionAndSuggestions(t *testing.T) {
	file, _ := serving(t, "car_1", "car_2", "tram_1")
	for _, c := range []struct{ call, want, not string }{
		{"car", "car_1\ncar_2\n", "tram"},
		{"disconnect tr", "tram_1\n", "car_"},
		{"cars --state ", "waiting\n", "name"},
		{"cars --sort last", "last_seen\n", "state"},
		{"log-level ", "link\n", "DEBUG"},
		{"log-level link IN", "INFO\n", "DEBUG"},
		{"sniff --kind conn", "connectResponse\n", "status"},
	} {
		args := append([]string{"__complete"}, strings.Split(c.call, " ")...)
		verb := append([]string{args[0], args[1], "-c", file}, args[2:]...)
		if c.call == "car" {
			verb = append(verb, "car_")
		}
		out, err := command(t.Context(), verb...)
		if err != nil || !strings.Contains(out, c.want) || strings.Contains(out, c.not) {
			t.Errorf("%q: %v\n%s", c.call, err, out)
		}
	}
	for call, want := range map[string]string{
		"car car1":             `did you mean "car_1"?`,
		"disconnect tram1":     `did you mean "tram_1"?`,
		"reannounce bananas":   "bananas",
		"log-level lnik DEBUG": `did you mean "link"?`,
	} {
		_, err := command(t.Context(), append(strings.Fields(call), "-c", file)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", call, err, want)
		}
	}
	out, err := command(t.Context(), "modules", "-c", file)
	for _, want := range []string{"MODULE  STATE", "3       no-api", "builtin transparent"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("modules does not print %q: %v\n%s", want, err, out)
		}
	}
	if out, err = command(t.Context(), "modules", "-c", file, "--json"); err != nil || !strings.Contains(out, `"builtin"`) {
		t.Errorf("modules --json: %v\n%s", err, out)
	}
}

// Every page of the manual has the exit codes, and those of commands that read files
// or the environment say which.
func TestManualTellsFilesAndCodes(t *testing.T) {
	dir := t.TempDir()
	if err := man.Write(newRootCommand(), dir, version, manualSections); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 25 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(bytes.ReplaceAll(text, []byte(`\-`), []byte("-")))
	}
	for _, page := range pages {
		text := read(filepath.Base(page))
		if !strings.Contains(text, ".SH EXIT STATUS\n") || strings.Count(text, ".SH SEE ALSO") != 1 || !strings.Contains(text, "external-server-config(5)") {
			t.Errorf("%s has no exit status, or not one list of related pages:\n%s", filepath.Base(page), text)
		}
	}
	for page, wants := range map[string][]string{
		"external-server.1":        {".SH FILES", "./config/config.json", "EXTERNAL_SERVER_MQTT_PASSWORD", "\\fB130\\fP"},
		"external-server-cars.1":   {".SH FILES", ".SH ENVIRONMENT", tokenVariable},
		"external-server-sniff.1":  {brokerPasswordVariable},
		"external-server-demo.1":   {"DEMO_SECONDS"},
		"external-server-config.5": {"company_name", "embedded_broker.users[].name", "Default: \"127.0.0.1:8090\"", "common_modules"},
	} {
		for _, want := range wants {
			if !strings.Contains(read(page), want) {
				t.Errorf("%s does not say %q", page, want)
			}
		}
	}
}
