package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
)

// What is no module is told last and alone, after one line for the rules that were
// not checked.
func TestCheckOfNoModule(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "text.so"), []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := servertest.Run(t, dir, "module", "check", "./text.so")
	if code != 1 || !strings.HasPrefix(errs, "external-server: error: ./text.so breaks MT-1: is not a shared library") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if strings.Count(out, "skipped") != 1 || strings.Count(out, "\n") != 3 {
		t.Errorf("printed\n%s", out)
	}
}

// `module try` runs a library and a program with one simulated car: their numbers and
// types are found out, statuses go in and commands come out, and what is wrong is said.
func TestModuleTry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "statuses.jsonl"), []byte("{\"pressed\": true}\n\"nonsense\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"library": {[]string{servertest.Example(t), "--status", `{"pressed": true}`},
			[]string{"is module 1000 and serves the device types [0", `reports {"pressed": true}`, "car     is connected", `module  commands the device: {"lit_up"`, "0 complaints"}},
		"program": {[]string{"--status", "statuses.jsonl", "--every", "100ms", "--", testneed.PythonProtobuf(t), filepath.Join(servertest.Root(), "modules/example-python/example_module.py")},
			[]string{"is module 1002", `commands the device: {"lit_up": true}`, `reports "nonsense"`, `is not {"pressed": true|false}`}},
	} {
		out, errs, code := servertest.Run(t, dir, append([]string{"module", "try", "--seconds", "8"}, c.args...)...)
		if code != 0 {
			t.Errorf("%s: exit code %d: %s", name, code, errs)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is missing:\n%s", name, want, out)
			}
		}
	}
	for want, args := range map[string][]string{
		"did not start":       {"/bin/false"},
		"is module 1000":      {servertest.Example(t), "-c", filepath.Join(dir, "number.json")},
		"neither JSON nor":    {servertest.Example(t), "--status", "nowhere"},
		"name the module":     {},
		"unexpected argument": {servertest.Example(t), "more"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "number.json"), []byte(`{"number": 7}`), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs, code := servertest.Run(t, dir, append([]string{"module", "try"}, args...)...)
		if code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit code %d: %s", args, code, errs)
		}
	}
}
