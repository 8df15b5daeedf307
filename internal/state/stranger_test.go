package state

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"external-server/internal/support/testwait"
)

// TestStrangersInThePlaceOfFiles: what stands in the place of a file of the directory,
// and never ends, never answers or is no file, is refused at once with its path.
func TestStrangersInThePlaceOfFiles(t *testing.T) {
	strangers := map[string]func(path string) error{
		"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"huge": func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 1<<30)
		},
	}
	for kind, put := range strangers {
		t.Run(kind, func(t *testing.T) {
			opts := newOptions(t)
			d := open(t, opts)
			epoch := d.epochPath(1)
			if err := put(epoch); err != nil {
				t.Fatal(err)
			}
			testwait.Returns(t, func() {
				if d.Under(1, 7) {
					t.Error("the journal counts")
				}
			})
			if err := d.Close(false); err != nil {
				t.Fatal(err)
			}
			identity := filepath.Join(opts.Dir, "identity.json")
			if err := os.Remove(identity); err != nil {
				t.Fatal(err)
			}
			if err := put(identity); err != nil {
				t.Fatal(err)
			}
			testwait.Returns(t, func() { refused(t, opts, nil, identity, "remove the directory") })
			if kind == "huge" {
				return // a long lock is read as far as one can be long
			}
			lock := filepath.Join(opts.Dir, "lock")
			if err := os.Remove(lock); err != nil {
				t.Fatal(err)
			}
			if err := put(lock); err != nil {
				t.Fatal(err)
			}
			testwait.Returns(t, func() {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if got, err := Open(ctx, opts); err == nil {
					t.Errorf("opened: %v", got.Close(false))
				}
				if who := readHolderOf(lock); who.PID != 0 {
					t.Errorf("holder %v", who)
				}
				if id, _, err := Holder(opts.Dir); err == nil {
					t.Errorf("holder %v", id)
				}
			})
		})
	}
}
