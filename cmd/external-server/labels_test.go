package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The list of cars is filtered by labels, shows them, and a shell completes them.
func TestLabelsOnTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.json")
	addresses := freeAddresses(t, 2)
	writeConfig(t, file, addresses[0], addresses[1], "car1", "car2", "car3")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for car, labels := range map[string]string{"car1": `"depot":"Brno střed","model":"shuttle"`, "car2": `"depot":"Praha"`} {
		text = strings.Replace(text, `"`+car+`":{}`, `"`+car+`":{"labels":{`+labels+`}}`, 1)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	defer runServer(t, file)()
	run := func(args ...string) string {
		t.Helper()
		text, err := command(t.Context(), append([]string{args[0], "-c", file}, args[1:]...)...)
		if err != nil {
			t.Errorf("%v: %v", args, err)
		}
		return text
	}
	if out := run("cars"); !strings.Contains(out, "LABELS") || !strings.Contains(out, "depot=Brno střed model=shuttle") || !strings.Contains(out, "car3") {
		t.Errorf("cars:\n%s", out)
	}
	if out := run("cars", "--label", "depot=Brno střed", "--label", "model"); !strings.Contains(out, "car1") || strings.Contains(out, "car2") || !strings.Contains(out, "1 match") {
		t.Errorf("cars of a depot and a model:\n%s", out)
	}
	if out := run("cars", "--label", "depot"); !strings.Contains(out, "car1") || !strings.Contains(out, "car2") || strings.Contains(out, "car3") {
		t.Errorf("cars with a depot:\n%s", out)
	}
	if out := run("car", "car1"); !strings.Contains(out, "labels: depot=Brno střed model=shuttle") {
		t.Errorf("car:\n%s", out)
	}
	if _, err := command(t.Context(), "cars", "--label", "=x", "-c", file); err == nil || !strings.Contains(err.Error(), "expected NAME=VALUE such as depot=brno") {
		t.Errorf("a label without name: %v", err)
	}
	out, err := command(t.Context(), "__complete", "cars", "-c", file, "--label", "depot=")
	if err != nil || !strings.Contains(out, "depot=Brno střed\ndepot=Praha\n") || strings.Contains(out, "model") {
		t.Errorf("completion:\n%s", out)
	}
}
