// Package servertest builds and runs the real server binary for tests: a process
// with a configuration file, signals and log lines, as an operator has it.
//
// Nothing but tests may import it.
package servertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// built holds what this test process has built; it is removed with Cleanup of
// Main.
type built struct {
	once   sync.Once
	dir    string
	binary string
	err    error
}

var shared built //nolint:gochecknoglobals // one build per test process

// Main is for TestMain: it runs the tests and removes what was built for them.
func Main(m *testing.M) int {
	code := m.Run()
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	return code
}

// Root returns the folder of go.mod.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// Binary returns the server, built with the race detector once per test process.
func Binary(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() {
		shared.dir, shared.err = os.MkdirTemp("", "external-server-test-")
		if shared.err != nil {
			return
		}
		shared.binary = filepath.Join(shared.dir, "external-server")
		shared.err = build(shared.binary, "test", "-race")
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.binary
}

// Build returns another build of the server that says it has the given version.
func Build(t testing.TB, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "external-server")
	if err := build(path, version, "-race"); err != nil {
		t.Fatal(err)
	}
	return path
}

// Plain returns a build without the race detector, whose bookkeeping grows with
// time: for tests that look at the memory of the server, or at how long it needs.
func Plain(t testing.TB) string {
	t.Helper()
	return PlainBuild(t, "plain")
}

// PlainBuild is Plain for a build that says it has the given version.
func PlainBuild(t testing.TB, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "external-server")
	if err := build(path, version, "-trimpath"); err != nil { // as the server target of the Makefile
		t.Fatal(err)
	}
	return path
}

// build makes a binary. Compiled packages come from the build cache, a linked program
// does not, and linking the server takes longer than most tests. So it is kept
// in build/test, where go build finds it up to date, and copied from there.
func build(path, version string, flags ...string) error {
	kept := filepath.Join(Root(), "build", "test", version+strings.Join(flags, ""), "external-server")
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		return err
	}
	lock, err := os.Create(filepath.Dir(kept) + ".lock")
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // tests of other packages want it, too
		return err
	}
	args := append([]string{"build", "-ldflags", "-X main.version=" + version, "-o", kept}, flags...)
	cmd := exec.Command("go", append(args, "./cmd/external-server")...)
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	// By another process: a program cannot be started while a process has it open for
	// writing, as every process would that a test starts at this moment.
	if out, err := exec.Command("cp", kept, path).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w\n%s", err, out)
	}
	return nil
}

// WriteProgram writes a program or a script that the test starts soon. The system starts no file that a process
// has open for writing, and each process that this one starts meanwhile would have it open for a moment:
// none is started until the file is closed.
func WriteProgram(t testing.TB, path string, content []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, content, 0o755); err != nil { //nolint:gosec // other users may run it
		t.Fatal(err)
	}
}

// Example builds the example module (id 1000) and returns its path.
func Example(t testing.TB) string {
	t.Helper()
	return Library(t, "modules/example/example_module.c")
}

// Probe builds the library that records its calls and misbehaves on request; its
// number is 77 unless a flag -DPROBE_NUMBER=N says otherwise.
func Probe(t testing.TB, flags ...string) string {
	t.Helper()
	return Library(t, "internal/module/cabi/testdata/probe.c", flags...)
}

// Library compiles a C source of the project (path relative to Root) to a shared
// library of its own.
func Library(t testing.TB, source string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "lib.so")
	args := append([]string{"-std=gnu11", "-O1", "-g", "-shared", "-fPIC", "-pthread", "-Imodules/include", "-o", out, source}, flags...)
	cmd := exec.Command("gcc", args...)
	cmd.Dir = Root()
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return out
}
