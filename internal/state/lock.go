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
	Host string `json:"host"`
	// Space is where ID holds; "": the process is of an older version.
	Space   process.Space `json:"space,omitzero"`
	Since   time.Time     `json:"since"`
	Version string        `json:"version"`
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

// ended tells for certain that the process has ended. Its lock may be held all the same: a
// library that ran in it can have left a process behind, with all that was open.
func (h holder) ended() bool {
	here, err := process.Here()
	return err == nil && h.Space == here && process.Ended(h.ID)
}

// locked is the lock of a directory that this process has. Those who try to take it do so
// one at a time: a lock file whose process has ended is replaced, and that must not be one
// that another has just taken and that does not name it yet.
type locked struct{ file, turn *os.File }

// named says that the file names this process.
func (l *locked) named() {
	if l.turn != nil {
		_ = l.turn.Close() // nothing was written
		l.turn = nil
	}
}

// Close gives the lock back.
func (l *locked) Close() error {
	l.named()
	return l.file.Close()
}

// acquire waits until the lock is free and takes it. It tells waiting once who has it.
func acquire(ctx context.Context, dir string, waiting func(string)) (*locked, error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for told := false; ; {
		l, who, err := tryLock(dir)
		if l != nil || err != nil {
			return l, err
		}
		if !told && waiting != nil {
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

// tryLock takes the lock, or returns who has it.
func tryLock(dir string) (taken *locked, who holder, err error) {
	turn, err := openFile(filepath.Join(dir, "lock.turn"))
	if err != nil {
		return nil, holder{}, err
	}
	defer func() {
		if taken == nil {
			_ = turn.Close() // nothing was written
		}
	}()
	path := filepath.Join(dir, "lock")
	if ok, err := flock(turn); err != nil || !ok {
		return nil, readHolderOf(path), err
	}
	for {
		f, err := openFile(path)
		if err != nil {
			return nil, holder{}, err
		}
		ok, err := flock(f)
		if ok && samePath(f, path) {
			return &locked{file: f, turn: turn}, holder{}, nil
		}
		who := readHolder(f)
		err = errors.Join(err, f.Close())
		switch {
		case err != nil:
			return nil, holder{}, err
		case ok: // somebody has removed it
		case !who.ended():
			return nil, who, nil
		default:
			if err := os.Remove(path); err != nil {
				return nil, holder{}, fmt.Errorf("lock the state directory: %w", err)
			}
		}
	}
}

// flock tells whether the file is locked now, for this process alone.
func flock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return true, nil
}

// Holder returns the process that has the directory, and its description for people. It
// changes nothing. ErrFree: there is none, or no such directory.
func Holder(dir string) (id process.ID, description string, err error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return id, "", ErrFree
	}
	if err != nil {
		if info, serr := os.Lstat(path); serr == nil && !info.Mode().IsRegular() {
			err = strange(path, info.Mode(), "a regular file", err)
		}
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
	if h.ended() {
		return id, "", ErrFree
	}
	return h.ID, h.String(), nil
}

// AtWork tells whether the process that has the directory renews its page, as every server
// does once per second: it is neither halted nor hung. It looks for 3 s at most, or until ctx ends.
func AtWork(ctx context.Context, dir string) bool {
	path := filepath.Join(dir, "alive")
	look := func() (at time.Time, page string) {
		if info, err := os.Lstat(path); err == nil {
			at = info.ModTime()
		}
		data, err := readFile(path)
		if err != nil {
			return at, ""
		}
		return at, string(data)
	}
	at, page := look()
	late := time.NewTimer(3 * stampInterval)
	defer late.Stop()
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-late.C:
			return false
		case <-tick.C:
		}
		if now, text := look(); !now.Equal(at) || text != page {
			return true
		}
	}
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

func readHolderOf(path string) holder {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return holder{}
	}
	defer f.Close()
	return readHolder(f)
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
func writeHolder(l *locked, version string) error {
	f := l.file
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	self, err := process.Self()
	if err != nil {
		return err
	}
	here, err := process.Here()
	if err != nil {
		return err
	}
	data, err := json.Marshal(holder{ID: self, Host: host, Space: here, Since: time.Now().UTC().Truncate(time.Second), Version: version})
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(append(data, '\n'), 0); err != nil {
		return err
	}
	l.named()
	return nil
}
