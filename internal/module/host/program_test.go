package host

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A server without cgo looks for the program that can load libraries beside itself and
// where packages have it, and says what is missing.
func TestProgramOfAServerWithoutCgo(t *testing.T) {
	dir := t.TempDir()
	self := filepath.Join(dir, "bin", "external-server")
	if got := program(true, self); got != "/proc/self/exe" {
		t.Errorf("with cgo libraries run in %s", got)
	}
	beside := filepath.Join(dir, "bin", hostProgram)
	if got := program(false, self); got != beside {
		t.Errorf("libraries run in %s, expected %s", got, beside)
	}
	packaged := filepath.Join(dir, "lib", "external-server", hostProgram)
	if err := os.MkdirAll(filepath.Dir(packaged), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(packaged, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := program(false, self); got != packaged {
		t.Errorf("libraries run in %s, expected %s", got, packaged)
	}
	_, err := Open(context.Background(), Options{Command: []string{beside, hostCommand, "lib.so"}, Name: "lib.so", library: true})
	if err == nil || !strings.Contains(err.Error(), "was built without cgo") || !strings.Contains(err.Error(), hostProgram+" of the same release") {
		t.Errorf("error %v", err)
	}
}
