// Package testneed is for tests that need a program beyond Go and gcc. Without it they
// are skipped with one line that says so: `go test ./...` passes right after a clone.
// `make test` installs what is needed and sets REQUIRE_TOOLS, with which a missing
// program is a failure: there, nothing is skipped.
package testneed

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// require is the environment variable that makes a missing program a failure.
const require = "REQUIRE_TOOLS"

// Tool returns the path of the first of the programs that is installed. Without any, the
// test ends here; install is the Debian package that has it.
func Tool(t testing.TB, install string, programs ...string) string {
	t.Helper()
	More(t, programs[0])
	for _, name := range programs {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Missing(t, programs[0], install)
	return ""
}

// PythonProtobuf returns a Python that has the library of Protocol Buffers.
func PythonProtobuf(t testing.TB) string {
	t.Helper()
	More(t, "Python")
	const python = "/usr/bin/python3"
	if exec.Command(python, "-c", "import google.protobuf").Run() != nil {
		Missing(t, "Python's library google.protobuf", "python3-protobuf")
	}
	return python
}

// More says that the test needs more than Go and gcc: with -short it is skipped.
func More(t testing.TB, what string) {
	t.Helper()
	if testing.Short() {
		t.Skip("left out with -short: it needs " + what)
	}
}

// Time says that the test waits for several seconds, for limits of time or for processes: with -short it is
// skipped, for a short loop. `make test` runs it.
func Time(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("left out with -short: it takes several seconds")
	}
}

// OtherFileSystem returns an empty directory from which nothing can be moved into dir. It is gone
// after the test.
func OtherFileSystem(t testing.TB, dir string) string {
	t.Helper()
	other, err := os.MkdirTemp("/dev/shm", "external-server-")
	if err != nil {
		Missing(t, "a file system in memory at /dev/shm", "mount")
		return ""
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(other); err != nil {
			t.Error(err)
		}
	})
	if err := os.Rename(other, filepath.Join(dir, "probe")); !errors.Is(err, syscall.EXDEV) {
		t.Fatalf("/dev/shm and %s are expected to be two file systems, moving between them: %v", dir, err)
	}
	return other
}

// Missing ends a test for which something is missing: it is skipped, or fails when
// REQUIRE_TOOLS is set.
func Missing(t testing.TB, what, install string) {
	t.Helper()
	const text = "%s is not installed and this test needs it: run `make deps`, or install it, on Debian with `apt-get install %s`"
	if os.Getenv(require) != "" {
		t.Fatalf(text, what, install)
	}
	t.Skipf(text, what, install)
}

// Built returns the path of a program that a target of the Makefile builds: what the
// environment variable says, or the place below the root of the project. Without it the
// test ends here as in Missing.
func Built(t testing.TB, what, variable, place, target string) string {
	t.Helper()
	More(t, what)
	if path := os.Getenv(variable); path != "" {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if path := filepath.Join(dir, place); executable(path) {
			return path
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	const text = "%s is not built and this test needs it: run `%s`"
	if os.Getenv(require) != "" {
		t.Fatalf(text, what, target)
	}
	t.Skipf(text, what, target)
	return ""
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
