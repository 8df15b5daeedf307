package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Broken returns a journal that cannot be opened, as one that err has broken: nothing is
// replayed, Append and Flush do nothing until Restart, and Options.Mark is told. OnFault is
// not: the caller knows. After Restart the directory is made, if it is gone, and what is in
// it ceases to count with the first batch, unless it belongs elsewhere.
func Broken(opts Options, err error) (*Journal, error) {
	opts, invalid := opts.complete()
	if invalid != nil {
		return nil, invalid
	}
	j := &Journal{
		opts: opts, log: opts.Logger, unread: true,
		batch: make([]byte, batchStart, 4096), spare: make([]byte, batchStart, 4096),
	}
	j.sequence.Store(opts.AtLeast)
	j.io.Lock()
	defer j.io.Unlock()
	_ = j.breaks(err) // the same
	return j, nil
}

// Check breaks the journal if the file that it writes is not in its place any more: no other
// process would find what is written. It costs two system calls.
func (j *Journal) Check() error {
	j.io.Lock()
	err := j.check()
	j.io.Unlock()
	if err != nil && j.opts.OnFault != nil {
		j.opts.OnFault(err)
	}
	return err
}

// check is Check; under io.
func (j *Journal) check() error {
	if j.file == nil || j.off.Load() {
		return nil
	}
	name := j.file.Name()
	is, err := j.file.Stat()
	if err != nil {
		return j.breaks(fmt.Errorf("the journal: %w", err))
	}
	at, err := os.Lstat(name)
	if err == nil && os.SameFile(is, at) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // it is there, or cannot be looked for: what is written may still count
	}
	j.unread = true
	return j.breaks(fmt.Errorf("the journal %s was removed or replaced while the server runs", name))
}

// enter makes the directory of a journal that could not be opened, and finds what number
// its next file has; under io.
func (j *Journal) enter() error {
	if err := makeDir(j.opts.Dir); err != nil {
		return err
	}
	_, last, err := j.opts.listOwn()
	if err != nil {
		return err
	}
	j.last, j.unread = last, false
	return nil
}

// makeDir makes the directory of a journal, if it is not there.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the journal: %w", err)
	}
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &DamageError{File: dir, Reason: "it is expected to be a directory and is " + kind(info.Mode())}
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR):
		return &DamageError{File: dir, Reason: "it is expected to be a directory and is a symbolic link that leads nowhere"}
	}
	return fmt.Errorf("make the journal: %w", err)
}

// kind names what a file is, for people.
func kind(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}
