package imports

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDeathSignals: the signal that a process gets when its program ends comes with the end of
// the *thread* that started it. Two places know what that takes; others use them.
func TestDeathSignals(t *testing.T) {
	const root = "../../.."
	know := []string{"internal/support/tied/tied.go", "internal/module/host/spawn.go", "internal/module/host/reaper.go"}
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "Pdeath"+"sig") {
			return err
		}
		if name, err := filepath.Rel(root, path); err != nil || !slices.Contains(know, name) {
			t.Errorf("%s sets a death signal itself; start the process with internal/support/tied", name)
		}
		seen++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != len(know) {
		t.Errorf("%d files set a death signal, expected %d", seen, len(know))
	}
}
