package check

import (
	"context"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"external-server/internal/module"
	"external-server/internal/module/host"
	"external-server/internal/support/testneed"
)

func TestMain(m *testing.M) {
	host.RunIfHost()
	m.Run()
}

func build(t testing.TB, name string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	if text, err := exec.Command(args[0], append(args[1:], "-o", out)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, text)
	}
	return out
}

func buildLibrary(t testing.TB, source string) string {
	return build(t, "lib.so", "gcc", "-std=gnu11", "-O1", "-g", "-w", "-shared", "-fPIC", "-pthread", "-I../../../modules/include", source)
}

func badTarget(t testing.TB, path string) Target {
	target := Library(path)
	target.Conversation = []Exchange{{"command:one", "one"}, {"command:two", "two"}}
	target.Cycles = 200
	return target
}

// TestExampleInC: what we show module authors passes.
func TestExampleInC(t *testing.T) {
	t.Parallel()
	path := buildLibrary(t, "../../../modules/example/example_module.c")
	target := Library(path)
	target.Number = 1000
	t.Run("plain", func(t *testing.T) { subtests(t, target) })
	target.Config = []module.Pair{{Key: "command_interval_ms", Value: "20"}}
	target.Cycles = 100
	t.Run("interval", func(t *testing.T) { subtests(t, target) })
}

func TestExampleInGo(t *testing.T) {
	testneed.Time(t)
	t.Parallel()
	path := build(t, "example-go", "go", "build", "-C", "../../../modules/example-go")
	target := Command([]string{path})
	target.Number = 1001
	target.Conversation = []Exchange{{`{"pressed": true}`, `{"lit_up": true}`}, {`{"pressed": false}`, `{"lit_up": false}`}}
	subtests(t, target)
}

func TestExampleInPython(t *testing.T) {
	t.Parallel()
	target := Command([]string{testneed.PythonProtobuf(t), "../../../modules/example-python/example_module.py"})
	target.Number = 1002
	target.Conversation = []Exchange{{`{"pressed": true}`, `{"lit_up": true}`}, {`{"pressed": false}`, `{"lit_up": false}`}}
	subtests(t, target)
}

// TestBadLibrary breaks one rule at a time and must fail that check; without a
// broken rule it passes all, so that the failures mean something.
func TestBadLibrary(t *testing.T) {
	t.Parallel()
	path := buildLibrary(t, "testdata/bad.c")
	tests := map[string]string{ // what is bad -> the rule that must fail
		"nothing":        "",
		"number":         "MT-1",
		"types":          "MT-2",
		"moody types":    "MT-2",
		"init":           "MT-3",
		"config":         "MT-4",
		"connect":        "MT-5",
		"code":           "MT-6",
		"payload":        "MT-7",
		"terminator":     "MT-8",
		"kept input":     "MT-8",
		"size kept":      "MT-9",
		"static output":  "MT-9",
		"overrun":        "MT-9",
		"long wait":      "MT-10",
		"spin":           "MT-10",
		"lock":           "MT-11",
		"newest first":   "MT-12",
		"wrong device":   "MT-12",
		"no device":      "MT-12",
		"endless":        "MT-12",
		"unknown":        "MT-13",
		"unknown crash":  "MT-13",
		"cross talk":     "MT-14",
		"leak":           "MT-15",
		"context kept":   "MT-16",
		"destroy code":   "MT-16",
		"damaged symbol": "MT-1",
	}
	for what, broken := range tests {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			target := badTarget(t, path)
			if what == "damaged symbol" {
				target = Library(filepath.Join(t.TempDir(), "missing.so"))
			}
			env := []string{"BAD=" + what, "BAD_FILE=" + filepath.Join(t.TempDir(), "file")}
			target.Env = env
			only := rules
			if broken != "" {
				only = slices.DeleteFunc(slices.Clone(rules), func(r rule) bool {
					return r.id != broken && r.id != "MT-1" && r.id != "MT-2"
				})
			}
			report := check(t.Context(), only, target, nil)
			var failed []string
			for _, f := range report.Findings {
				if f.Outcome == Fail {
					failed = append(failed, f.Rule)
					t.Logf("%s: %s", f.Rule, f.Detail)
				}
			}
			if broken == "" && len(failed) > 0 || broken != "" && !slices.Contains(failed, broken) {
				t.Errorf("failed rules: %v, expected %q", failed, broken)
			}
		})
	}
	var untested []string
	for _, r := range rules {
		if !slices.Contains(slices.Collect(maps.Values(tests)), r.id) {
			untested = append(untested, r.id)
		}
	}
	if len(untested) > 0 {
		t.Errorf("no bad library for %s", strings.Join(untested, ", "))
	}
}

// TestInitRefused: one finding, not one for everything that needs a context.
func TestInitRefused(t *testing.T) {
	t.Parallel()
	target := badTarget(t, buildLibrary(t, "testdata/bad.c"))
	target.Env = []string{"BAD=init"}
	for _, f := range Run(t.Context(), target, nil).Findings {
		want := Skipped
		switch f.Rule {
		case "MT-1", "MT-2", "MT-4":
			want = Pass
		case "MT-3":
			want = Fail
		}
		if f.Outcome != want {
			t.Errorf("%s: %s (%s), expected %s", f.Rule, f.Outcome, f.Detail, want)
		}
	}
}

// TestInterrupted: what was not checked is not broken.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	target := badTarget(t, buildLibrary(t, "testdata/bad.c"))
	target.Env = []string{"BAD=nothing"}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	report := Run(ctx, target, func(f Finding) {
		if f.Rule == "MT-2" {
			interrupt()
		}
	})
	if !report.Interrupted || len(report.Findings) != len(rules) {
		t.Errorf("interrupted %t, %d findings", report.Interrupted, len(report.Findings))
	}
	for n, f := range report.Findings {
		if n < 2 && f.Outcome != Pass || n >= 2 && (f.Outcome != Skipped || f.Detail != "interrupted") {
			t.Errorf("%s: %s (%s)", f.Rule, f.Outcome, f.Detail)
		}
	}
}

func TestSettings(t *testing.T) {
	var target Target
	err := target.parseSettings([]byte(`{"number": 7, "config": {"b": "x", "a": 12, "c": true}, "conversation": [{"status": "s", "command": "c"}]}`))
	want := []module.Pair{{Key: "b", Value: "x"}, {Key: "a", Value: "12"}, {Key: "c", Value: "1"}}
	if err != nil || target.Number != 7 || !slices.Equal(target.Config, want) || target.Conversation[0].Command != "c" {
		t.Errorf("got %+v, %v", target, err)
	}
	for _, text := range []string{``, `[]`, `{"nummer": 1}`, `{"config": {"a": null}}`, `{"config": []}`, `{"config": {"a": {}}}`, `{} {}`, `{"cycles": -1}`} {
		if err := target.parseSettings([]byte(text)); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

// A module that is another one than expected can be opened: the other rules are
// checked, and the cause is the number.
func TestAnotherNumber(t *testing.T) {
	ran := false
	report := check(t.Context(), []rule{
		{"MT-1", "loads", "", func(context.Context, *checker) error { return wrongNumber{1000, 7} }, false},
		{"MT-2", "types", "", func(context.Context, *checker) error { ran = true; return nil }, false},
	}, Target{Name: "m"}, nil)
	if !ran || report.Failed() != 1 || !strings.HasPrefix(report.Cause(), "m breaks MT-1: reports number 1000, expected 7") {
		t.Errorf("the second rule ran: %v; %d failed: %s", ran, report.Failed(), report.Cause())
	}
}

func TestGrowth(t *testing.T) {
	for grown, want := range map[int64]string{-5: "9 cycles, it did not grow", 0: "9 cycles, it did not grow", 7: "9 cycles, it grew by 7 bytes"} {
		if got := growth(9, "it", grown, "bytes"); got != want {
			t.Errorf("growth of %d: %s", grown, got)
		}
	}
}
