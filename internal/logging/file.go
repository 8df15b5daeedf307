package logging

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// rotatingFile is the output of the file sink (LOG-5, LOG-6). It is used by one
// goroutine. Before every batch it looks whether the path still is the file it
// has open, so that a directory that was removed or a file that another program
// renamed is noticed and replaced.
type rotatingFile struct {
	path string
	max  int64 // bytes; 0: never rotated
	keep int
	file *os.File // nil: to be opened
	size int64
}

// openFile opens or creates the log file. Its errors name the key of the
// configuration.
func openFile(s Sink, name string) (*rotatingFile, error) {
	dir := s.Dir
	if dir == "" {
		dir = "."
	}
	if s.MaxBytes < 0 || s.Keep < 0 {
		return nil, fmt.Errorf("logging.file: maximal size %d bytes and %d old files; neither may be negative", s.MaxBytes, s.Keep)
	}
	const key = "logging.file.path" // log_files_directory in format A
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: directory %s does not exist; create it or correct the path", key, dir)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	case !info.IsDir():
		return nil, fmt.Errorf("%s: %s is not a directory; give the directory of the log file", key, dir)
	}
	f := &rotatingFile{path: filepath.Join(dir, name), max: s.MaxBytes, keep: s.Keep}
	if err := f.open(); err != nil {
		return nil, fmt.Errorf("%s: log file cannot be written: %w", key, err)
	}
	return f, nil
}

func (f *rotatingFile) open() error {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if !info.Mode().IsRegular() && f.max > 0 {
		return errors.Join(fmt.Errorf("%s is not a regular file and cannot be rotated", f.path), file.Close())
	}
	f.file, f.size = file, info.Size()
	return nil
}

// check makes sure that f.file is what the path names, and learns its size.
func (f *rotatingFile) check() error {
	if f.file != nil {
		here, err := os.Stat(f.path)
		if err == nil {
			var opened os.FileInfo
			if opened, err = f.file.Stat(); err == nil && os.SameFile(here, opened) {
				f.size = opened.Size()
				return nil
			}
		}
		_ = f.file.Close() // it has no name any more
		f.file = nil
	}
	return f.open()
}

func (f *rotatingFile) write(lines []byte) (int, error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	written := 0
	for written < len(lines) {
		chunk := f.fitting(lines[written:])
		if len(chunk) == 0 {
			if err := f.rotate(); err != nil {
				return written, fmt.Errorf("rotation: %w", err)
			}
			continue
		}
		n, err := f.file.Write(chunk)
		f.size += int64(n)
		if err != nil {
			return written + f.wholeLines(chunk[:n]), err
		}
		written += n
	}
	return written, nil
}

// fitting returns the leading lines that the file takes without exceeding its
// maximal size; an empty file takes one line of any length.
func (f *rotatingFile) fitting(lines []byte) []byte {
	room := f.max - f.size
	if f.max == 0 || int64(len(lines)) <= room {
		return lines
	}
	if room > 0 {
		if end := bytes.LastIndexByte(lines[:room], '\n') + 1; end > 0 {
			return lines[:end]
		}
	}
	if f.size == 0 {
		return lines[:bytes.IndexByte(lines, '\n')+1]
	}
	return nil
}

// wholeLines takes the part of a line that was written before a failure out of
// the file again, because the line will be written once more. It returns the
// length of what stays.
func (f *rotatingFile) wholeLines(part []byte) int {
	whole := bytes.LastIndexByte(part, '\n') + 1
	if whole == len(part) {
		return whole
	}
	keep := f.size - int64(len(part)-whole)
	if f.file.Truncate(keep) != nil {
		return len(part) // go on in the middle of the line instead
	}
	f.size = keep
	return whole
}

// rotate makes room for a new file: the oldest is removed, the others move up.
// Old files beyond keep, of a time when more were kept, go as well.
func (f *rotatingFile) rotate() error {
	if err := f.file.Close(); err != nil {
		f.file = nil
		return err
	}
	f.file = nil
	if f.keep == 0 {
		if err := os.Remove(f.path); err != nil {
			return err
		}
		return f.open()
	}
	for n := f.keep; ; n++ {
		err := os.Remove(f.old(n))
		if errors.Is(err, fs.ErrNotExist) && n > f.keep {
			break
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for n := f.keep - 1; n >= 0; n-- {
		if err := os.Rename(f.old(n), f.old(n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return f.open()
}

// old returns the name of the n-th old file; 0 is the current one.
func (f *rotatingFile) old(n int) string {
	if n == 0 {
		return f.path
	}
	return f.path + "." + strconv.Itoa(n)
}

func (f *rotatingFile) close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}
