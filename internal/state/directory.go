package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNetwork: the directory is on a file system whose locks are not dependable.
var ErrNetwork = errors.New("the state directory is on a network file system")

// prepare makes the directory if need be, and refuses what cannot be trusted.
func prepare(dir string, fsType func(string) (int64, error)) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("state directory %s: %s is missing: make it, or correct state_directory", dir, filepath.Dir(dir))
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("state directory %s: %s is not a directory: correct state_directory", dir, filepath.Dir(dir))
	case err != nil && !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("state directory %s: it cannot be made: %w: give this user (uid %d) the right, or make it for this user with mode 0700",
			dir, cause(err), os.Geteuid())
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("state directory %s: %w", dir, cause(err))
	}
	if !info.IsDir() {
		return fmt.Errorf("state directory %s: this is a file: name a directory in state_directory", dir)
	}
	kind, err := fsType(dir)
	if err != nil {
		return fmt.Errorf("state directory %s: its file system cannot be told: %w", dir, err)
	}
	if name, ok := networkType(kind); ok {
		return fmt.Errorf("%w: %s is on %s, where locks do not hold: name a directory on a disk of this machine", ErrNetwork, dir, name)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("state directory %s: it belongs to uid %d, who could change it; this user is uid %d: run 'chown %d %s'", dir, st.Uid, os.Geteuid(), os.Geteuid(), dir)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("state directory %s: other users may write to it (mode %04o): run 'chmod go-w %s', or name a directory inside it", dir, mode, dir)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		if errors.Is(err, unix.EROFS) {
			return fmt.Errorf("state directory %s: the file system is read-only: make it writable, or name another directory", dir)
		}
		what := fmt.Sprintf("chown %d", os.Geteuid())
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == os.Geteuid() {
			what = "chmod 700"
		}
		return fmt.Errorf("state directory %s: this user (uid %d) cannot write to it: %w: run '%s %s'", dir, os.Geteuid(), err, what, dir)
	}
	return nil
}

// cause is the error without its path, which the message has already.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

func fileSystemType(path string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, err
	}
	return int64(s.Type), nil
}

// networkType names the file systems on which a lock may not hold, by the number
// that statfs returns.
func networkType(kind int64) (string, bool) {
	switch uint32(kind) {
	case unix.NFS_SUPER_MAGIC:
		return "NFS", true
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "SMB", true
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE", true
	case unix.CEPH_SUPER_MAGIC:
		return "Ceph", true
	case unix.V9FS_MAGIC:
		return "9P", true
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return "AFS", true
	case unix.CODA_SUPER_MAGIC:
		return "Coda", true
	case 0x0BD00BD0:
		return "Lustre", true
	case 0x47504653:
		return "GPFS", true
	case 0x01161970:
		return "GFS2", true
	case unix.OCFS2_SUPER_MAGIC:
		return "OCFS2", true
	case 0x786F4256:
		return "a VirtualBox share", true
	case 0xBACBACBC:
		return "a VMware share", true
	}
	return "", false
}

// openFile opens or makes a file of the directory that is written in place. It follows no
// link and does not wait for what is no file.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err == nil {
		info, serr := f.Stat()
		if serr == nil && info.Mode().IsRegular() {
			return f, nil
		}
		err = errors.Join(serr, f.Close())
	}
	if info, serr := os.Lstat(path); serr == nil && !info.Mode().IsRegular() {
		err = strange(path, info.Mode(), "a regular file", err)
	} else if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%s cannot be opened: %w: give this user (uid %d) the right to read and write it, or remove it when no server runs: the server makes it anew",
			path, cause(err), os.Geteuid())
	} else {
		err = fmt.Errorf("%s cannot be opened: %w", path, cause(err))
	}
	return nil, err
}

// makeShards makes the directory of the journals, if it is not there.
func makeShards(path string) error {
	err := os.Mkdir(path, 0o700)
	if err == nil {
		return nil
	}
	if info, serr := os.Stat(path); serr == nil && info.IsDir() {
		return nil
	}
	if info, serr := os.Lstat(path); serr == nil {
		return strange(path, info.Mode(), "a directory", nil)
	}
	return fmt.Errorf("make the state directory: %w", err)
}

// strange is the error for what stands in the place of a file or directory of ours; err is
// what the system says, if anything.
func strange(path string, mode fs.FileMode, expected string, err error) error {
	what := "a device or socket"
	switch {
	case mode.IsRegular():
		what = "a file"
	case mode.IsDir():
		what = "a directory"
	case mode&fs.ModeSymlink != 0:
		what = "a symbolic link"
		if expected == "a directory" {
			what += " to no directory"
		}
	case mode&fs.ModeNamedPipe != 0:
		what = "a FIFO"
	}
	text := fmt.Sprintf("%s is %s, %s is expected: move it away and start the server again, which makes it anew", path, what, expected)
	if err == nil {
		return errors.New(text)
	}
	return fmt.Errorf("%s (%w)", text, cause(err))
}

// maxFile is the length of the longest small file of the directory, bytes. What this
// package writes is far shorter.
const maxFile = 4096

// readFile reads a small file of the directory. It does not wait for a writer, as
// opening a FIFO would, and takes no more than such a file can have: what stands in its place may
// never end.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("this is no regular file (%s)", info.Mode().Type())}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is longer than %d bytes", maxFile)}
	}
	return b, err
}

// writeFile writes a file as a whole or not at all.
func writeFile(path string, data []byte) (err error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
