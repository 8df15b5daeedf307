package state

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// refused opens the directory and expects an error with these words.
func refused(t *testing.T, opts Options, target error, words ...string) {
	t.Helper()
	d, err := Open(t.Context(), opts)
	if err == nil {
		t.Fatal("opened", errors.Join(d.Close(false)))
	}
	if target != nil && !errors.Is(err, target) {
		t.Errorf("%v is not %v", err, target)
	}
	for _, w := range append(words, opts.Dir) {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// TestNoDirectory: a directory that cannot be used is told with its path and what
// to do.
func TestNoDirectory(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o770); err != nil {
		t.Fatal(err)
	}
	refused(t, Options{Dir: filepath.Join(base, "missing", "state")}, nil, filepath.Join(base, "missing")+" is missing: make it")
	refused(t, Options{Dir: file}, nil, "this is a file")
	refused(t, Options{Dir: filepath.Join(file, "state")}, nil, file+" is not a directory")
	refused(t, Options{Dir: open}, nil, "other users may write", "mode 0770", "chmod go-w "+open)
	refused(t, Options{Dir: filepath.Join(base, "x"), Shards: MaxShards + 1}, nil, "possible are 1 to 112")
	link := filepath.Join(base, "state")
	if err := os.Mkdir(link, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, filepath.Join(link, "lock")); err != nil {
		t.Fatal(err)
	}
	refused(t, Options{Dir: link}, syscall.ELOOP)
}

// TestUnwritable: an ordinary user is told which right is missing.
func TestUnwritable(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "state")
	if err := os.Mkdir(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(filepath.Dir(base), 0o755), os.Chmod(base, 0o555)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Chmod(base, 0o700); err != nil {
			t.Error(err)
		}
	}()
	if os.Geteuid() == 0 { // one thread becomes an ordinary user for the file system
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		theirs := filepath.Join(filepath.Dir(base), "theirs")
		if err := errors.Join(os.Mkdir(theirs, 0o700), os.Chown(theirs, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		refused(t, Options{Dir: theirs}, nil, "belongs to uid 65534", "chown 0 "+theirs)
		if _, err := unix.SetfsuidRetUid(65534); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := unix.SetfsuidRetUid(0); err != nil {
				t.Error(err)
			}
		}()
	}
	refused(t, Options{Dir: dir}, syscall.EACCES, "cannot write to it", "chmod 700 "+dir)
	refused(t, Options{Dir: filepath.Join(base, "new")}, syscall.EACCES, "cannot be made", "give this user")
}

// TestModes: other users cannot read what the directory holds.
func TestModes(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	put(t, openShard(t, d, 0), "one")
	err := filepath.WalkDir(opts.Dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNetworkFileSystems: where locks do not hold, the directory is refused.
func TestNetworkFileSystems(t *testing.T) {
	for kind, name := range map[int64]string{
		0x6969: "NFS", 0xFF534D42: "SMB", 0xFE534D42: "SMB", 0x65735546: "FUSE", 0x01021997: "9P", 0x00C36400: "Ceph",
	} {
		opts := newOptions(t)
		opts.fsType = func(string) (int64, error) { return kind, nil }
		refused(t, opts, ErrNetwork, "is on "+name, "on a disk of this machine")
	}
	for _, kind := range []int64{0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630} { // ext4, XFS, Btrfs, tmpfs, overlay
		if name, ok := networkType(kind); ok {
			t.Errorf("%x is taken for %s", kind, name)
		}
	}
}
