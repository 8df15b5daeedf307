package deploytest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
)

// cmakeLists builds a module and a library it brings along, as third-party
// modules do.
const cmakeLists = `cmake_minimum_required(VERSION 3.13)
project(third LANGUAGES C CXX)
add_library(third-helper SHARED helper.cpp)
add_library(third-module SHARED module.c)
target_link_libraries(third-module PRIVATE third-helper)
`

// A helper in C++ that includes our header too.
const helper = `#include <fleet_protocol_module.h>
#include <string>
extern "C" int helper_length(const char *text) { return static_cast<int>(std::string(text).size()); }
`

const makefile = `libsecond.so: second.c
	$(CC) -std=gnu11 -fPIC -shared -pthread $(CPPFLAGS) $(CFLAGS) -o $@ second.c
`

// sources makes a folder of modules with our headers.
func sources(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	copyTree(t, filepath.Join(servertest.Root(), "modules/include"), filepath.Join(dir, "include"), nil)
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func buildModules(t *testing.T, dir, out string) (string, error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(servertest.Root(), "scripts/build-modules"), dir, out)
	cmd.Dir = filepath.Dir(out)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// exampleSource is the example module, as the source of somebody else's.
func exampleSource(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(servertest.Root(), "modules/example/example_module.c"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The module stage's commands compile modules that use CMake or make and know
// nothing of the script, and what comes out keeps the rules.
func TestBuildModules(t *testing.T) {
	t.Parallel()
	testneed.Tool(t, "cmake", "cmake")
	testneed.Tool(t, "g++", "g++")
	testneed.Tool(t, "make", "make")
	source := exampleSource(t)
	dir := sources(t, map[string]string{
		"third/CMakeLists.txt": cmakeLists,
		"third/helper.cpp":     helper,
		"third/module.c":       source + "\nint helper_length(const char *text);\nint third_length(void);\nint third_length(void) { return helper_length(\"third\"); }\n",
		"second/Makefile":      makefile,
		"second/second.c":      source,
		"notes/README.md":      "no module",
	})
	out := filepath.Join(t.TempDir(), "out")
	text, err := buildModules(t, dir, out)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !strings.Contains(text, "notes: skipped") {
		t.Errorf("a folder without build file is not mentioned:\n%s", text)
	}
	var names []string
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "libsecond.so libthird-helper.so libthird-module.so"; got != want {
		t.Fatalf("out holds %s, expected %s", got, want)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*.so")); left != nil {
		t.Errorf("the sources were changed: %v", left)
	}
	settings := filepath.Join(t.TempDir(), "settings.json")
	write(t, settings, `{"number": 1000, "cycles": 20}`)
	for _, name := range []string{"libsecond.so", "libthird-module.so"} {
		cmd := exec.Command(servertest.Binary(t), "module", "check", "--config", settings, filepath.Join(out, name))
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+out) // as in the image
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("module check %s: %v\n%s", name, err, text)
		}
	}
}

func TestBuildModulesErrors(t *testing.T) {
	testneed.Tool(t, "make", "make")
	testneed.Tool(t, "cmake", "cmake")
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no library", map[string]string{"a/Makefile": "all:\n\t@echo built\n"}, "a was built, but no shared library"},
		{"does not compile", map[string]string{"a/Makefile": makefile, "a/second.c": "int f( {"}, "second.c:1"},
		{"same name", map[string]string{
			"a/Makefile": "libx.so:\n\tprintf a >$@\n",
			"b/Makefile": "libx.so:\n\tprintf b >$@\n",
		}, "b made libx.so, which is in"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := buildModules(t, sources(t, c.files), filepath.Join(t.TempDir(), "out"))
			if err == nil || !strings.Contains(text, c.want) {
				t.Errorf("error %v, expected %q in\n%s", err, c.want, text)
			}
		})
	}
	var stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(servertest.Root(), "scripts/build-modules"), "/nonexistent", t.TempDir())
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "usage:") {
		t.Errorf("a folder that is not there: %v, %s", err, stderr.String())
	}
}
