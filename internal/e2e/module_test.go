package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/servertest"
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
