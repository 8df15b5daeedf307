package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/state/process"
)

// TestHolder: the lock tells which process has the directory, and nothing when it was left.
func TestHolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, _, err := Holder(dir); !errors.Is(err, ErrFree) {
		t.Errorf("no directory: %v", err)
	}
	d, err := Open(t.Context(), Options{Dir: dir, Shards: 2, Version: "v9"})
	if err != nil {
		t.Fatal(err)
	}
	self, err := process.Self()
	if err != nil {
		t.Fatal(err)
	}
	id, description, err := Holder(dir)
	if err != nil || id != self || !strings.Contains(description, "v9") {
		t.Errorf("got %+v, %q, %v; this process is %+v", id, description, err, self)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Holder(dir); !errors.Is(err, ErrFree) {
		t.Errorf("after Close: %v", err)
	}
	// What an older version or a stranger wrote is no process.
	if err := os.WriteFile(filepath.Join(dir, "lock"), []byte(`{"pid": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if id, _, err := Holder(dir); !errors.Is(err, ErrFree) || id != (process.ID{}) {
		t.Errorf("got %+v, %v", id, err)
	}
}
