package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"external-server/internal/state/process"
)

// lockPoll is how often a standby looks whether the directory is free.
const lockPoll = 50 * time.Millisecond

// holder is the content of the file lock, for people and for Holder.
type holder struct {
	process.ID
	Host    string    `json:"host"`
	Since   time.Time `json:"since"`
	Version string    `json:"version"`
}

func (h holder) String() string {
	if h.PID == 0 {
		return "a process that has not said its name"
	}
	s := fmt.Sprintf("process %d on %s, since %s", h.PID, printable(h.Host), h.Since.Format(time.RFC3339))
	if h.Version != "" {
		s += ", version " + printable(h.Version)
	}
	return s
}

// printable bounds what a file may put into a line of the log.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 100)]
}

// acquire waits until the lock is free and takes it. It tells waiting once who has it.
func acquire(ctx context.Context, dir string, waiting func(string)) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for told := false; ; {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock the state directory: %w", err)
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && samePath(f, path) {
			return f, nil
		}
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		who := readHolder(f)
		_ = f.Close() // nothing was written
		if err != nil && !told && waiting != nil {
			waiting(who.String())
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the state directory %s, in use by %s: %w", dir, who, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// Holder returns the process that has the directory, and its description for people. It
// changes nothing. ErrFree: there is none, or no such directory.
func Holder(dir string) (id process.ID, description string, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return id, "", ErrFree
	}
	if err != nil {
		return id, "", fmt.Errorf("look who has the state directory: %w", err)
	}
	defer f.Close()
	// A shared lock, for a moment: a process that wants the directory meanwhile tries again.
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); {
	case err == nil:
		return id, "", ErrFree
	case !errors.Is(err, syscall.EWOULDBLOCK):
		return id, "", fmt.Errorf("look who has the state directory: lock %s: %w", f.Name(), err)
	}
	h := readHolder(f)
	return h.ID, h.String(), nil
}

// ErrFree: no process has the state directory.
var ErrFree = errors.New("no process has the state directory")

// samePath tells whether the open file is still the one with this name.
func samePath(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

func readHolder(f *os.File) (h holder) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil || json.Unmarshal(data, &h) != nil {
		return holder{}
	}
	return h
}

// writeHolder says in the lock file whose it is. The file stays the same, because
// the lock is its.
func writeHolder(f *os.File, version string) error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	self, err := process.Self()
	if err != nil {
		return err
	}
	data, err := json.Marshal(holder{ID: self, Host: host, Since: time.Now().UTC().Truncate(time.Second), Version: version})
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(append(data, '\n'), 0)
	return err
}
