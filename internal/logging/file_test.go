package logging

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"external-server/internal/support/testwait"
)

// newFileLogs returns logs with a file sink in dir and no console, and what is
// written to standard error.
func newFileLogs(t *testing.T, s Sink) (*Logs, *screen) {
	t.Helper()
	var out screen
	s.Use, s.Level = true, slog.LevelInfo
	l, err := New(Options{File: s, Stderr: &out, Component: component})
	if err != nil {
		t.Fatal(err)
	}
	return l, &out
}

// flush waits until everything is written.
func flush(t *testing.T, l *Logs) {
	t.Helper()
	check(t, l.Flush(t.Context()))
}

// LOG-5, LOG-6: no file exceeds its size, no line is torn, the newest old file
// is .1, and what is older than Keep files is gone.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "external_server.log")
	// An old file of a time when more were kept.
	check(t, os.WriteFile(path+".4", []byte("old\n"), 0o600))
	const limit = 1000
	l, out := newFileLogs(t, Sink{Dir: dir, MaxBytes: limit, Keep: 3})
	log := l.Logger()
	log.Info("n", "n", 0)
	flush(t, l)
	length := len(read(t, path)) // of a line with a number of one digit
	perFile := limit / length
	total := 5*perFile - 1
	for i := 1; i < total; i++ {
		log.Info("n", "n", i%10)
	}
	check(t, l.Close())
	if got := out.String(); got != "" {
		t.Errorf("standard error shows %q", got)
	}
	for i, want := range []int{perFile - 1, perFile, perFile, perFile} {
		name := path
		if i > 0 {
			name = fmt.Sprintf("%s.%d", path, i)
		}
		content := read(t, name)
		if len(content) > limit {
			t.Errorf("%s has %d bytes, more than %d", name, len(content), limit)
		}
		if n := strings.Count(content, "\n"); n != want || !strings.HasSuffix(content, "\n") {
			t.Errorf("%s has %d lines, want %d", name, n, want)
		}
	}
	files, err := os.ReadDir(dir)
	check(t, err)
	if len(files) != 4 {
		t.Errorf("files left: %v", files)
	}
}

// The size is exact to the byte, also over a restart.
func TestRotationIsExact(t *testing.T) {
	for _, c := range []struct {
		name      string
		max       int64
		keep      int
		writes    []string // each by a writer of its own
		now, old1 string
	}{
		{"last byte", 8, 1, []string{"abc\n", "def\n"}, "abc\ndef\n", ""},
		{"one byte more", 7, 1, []string{"abc\n", "def\n"}, "def\n", "abc\n"},
		{"within one batch", 8, 1, []string{"abc\ndef\nghi\n"}, "ghi\n", "abc\ndef\n"},
		{"a line larger than the limit", 5, 1, []string{"abc\n", "defghijk\n", "l\n"}, "l\n", "defghijk\n"},
		{"no limit", 0, 1, []string{"abc\n", strings.Repeat("x", 100) + "\n"}, "abc\n" + strings.Repeat("x", 100) + "\n", ""},
		{"nothing kept", 7, 0, []string{"abc\n", "def\n"}, "def\n", ""},
		{"file already larger", 5, 1, []string{"abcdefgh\n", "i\n"}, "i\n", "abcdefgh\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, w := range c.writes {
				f, err := openFile(Sink{Dir: dir, MaxBytes: c.max, Keep: c.keep}, "x.log")
				if err != nil {
					t.Fatal(err)
				}
				n, err := f.write([]byte(w))
				if n != len(w) || err != nil {
					t.Fatalf("write: %d, %v", n, err)
				}
				check(t, f.close())
			}
			path := filepath.Join(dir, "x.log")
			if got := read(t, path); got != c.now {
				t.Errorf("file holds %q, want %q", got, c.now)
			}
			old, err := os.ReadFile(path + ".1")
			if (err == nil) != (c.old1 != "") || string(old) != c.old1 {
				t.Errorf("old file holds %q (%v), want %q", old, err, c.old1)
			}
		})
	}
}

// A line of which the disk took only a part is not left torn.
func TestPartialLineIsTakenBack(t *testing.T) {
	f, err := openFile(Sink{Dir: t.TempDir()}, "x.log")
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.write([]byte("whole\nhalf of"))
	if err != nil {
		t.Fatal(err)
	}
	f.size = int64(n)
	if got := f.wholeLines([]byte("whole\nhalf of")); got != len("whole\n") {
		t.Errorf("%d bytes stay", got)
	}
	if _, err := f.write([]byte("half of a line\n")); err != nil {
		t.Error(err)
	}
	check(t, f.close())
	if got := read(t, f.path); got != "whole\nhalf of a line\n" {
		t.Errorf("file holds %q", got)
	}
}

// Many goroutines, a small file: every line is there once, whole, and in the
// order of its goroutine.
func TestNothingIsLostOnTheWay(t *testing.T) {
	dir := t.TempDir()
	l, _ := newFileLogs(t, Sink{Dir: dir, MaxBytes: 20_000, Keep: 1000})
	const writers, lines = 8, 500
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			log := l.Logger().With("writer", w)
			for i := range lines {
				log.Info("text", "i", i)
			}
		})
	}
	wg.Wait()
	check(t, l.Close())
	paths, err := filepath.Glob(filepath.Join(dir, "external_server.log*"))
	check(t, err)
	var all bytes.Buffer
	for n := len(paths) - 1; n >= 0; n-- {
		name := filepath.Join(dir, "external_server.log")
		if n > 0 {
			name += fmt.Sprintf(".%d", n)
		}
		all.WriteString(read(t, name))
	}
	next := make([]int, writers)
	for line := range strings.Lines(all.String()) {
		var w, i int
		if _, err := fmt.Sscanf(line[strings.LastIndex(line, "\t"):], "\ttext writer=%d i=%d\n", &w, &i); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if i != next[w] {
			t.Fatalf("writer %d: line %d instead of %d", w, i, next[w])
		}
		next[w]++
	}
	for w, n := range next {
		if n != lines {
			t.Errorf("writer %d: %d lines", w, n)
		}
	}
}

// A directory that vanishes costs one warning; the lines wait for its return.
func TestDirectoryRemovedAndBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	check(t, os.Mkdir(dir, 0o700))
	l, out := newFileLogs(t, Sink{Dir: dir})
	log := l.Logger()
	log.Info("before")
	flush(t, l)
	check(t, os.RemoveAll(dir))
	log.Info("meanwhile 1")
	testwait.Until(t, "a warning", func() bool { return strings.Contains(out.String(), "log cannot be written") })
	log.Info("meanwhile 2")
	check(t, os.Mkdir(dir, 0o700))
	flush(t, l)
	path := filepath.Join(dir, "external_server.log")
	if got := read(t, path); !strings.Contains(got, "meanwhile 1") || !strings.Contains(got, "meanwhile 2") {
		t.Errorf("the new file holds %q", got)
	}
	check(t, l.Close())
	got := out.String()
	if strings.Count(got, "\n") != 2 || !strings.Contains(got, path) || !strings.Contains(got, "can be written again") {
		t.Errorf("standard error shows %q", got)
	}
	if _, lost := l.Lost(); lost != 0 {
		t.Errorf("%d lines lost", lost)
	}
}

// A file that another program renamed is left alone and a new one begun.
func TestRenamedByOthers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "external_server.log")
	l, _ := newFileLogs(t, Sink{Dir: dir})
	l.Logger().Info("one")
	flush(t, l)
	check(t, os.Rename(path, path+"-20260101"))
	l.Logger().Info("two")
	check(t, l.Close())
	if one, two := read(t, path+"-20260101"), read(t, path); !strings.Contains(one, "\tone\n") || strings.Contains(one, "two") || !strings.Contains(two, "\ttwo\n") {
		t.Errorf("files hold %q and %q", one, two)
	}
}

// A file that another program emptied has room again.
func TestTruncatedByOthers(t *testing.T) {
	f, err := openFile(Sink{Dir: t.TempDir(), MaxBytes: 10, Keep: 1}, "x.log")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := f.write([]byte("12345678\n")); err != nil {
			t.Error(err)
		}
		check(t, os.Truncate(f.path, 0))
	}
	check(t, f.close())
	if _, err := os.Stat(f.path + ".1"); err == nil {
		t.Error("the file was rotated although it was empty")
	}
}

// Disk full: one warning on the console, the lines wait, Close says what is lost.
func TestDiskFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Fatalf("the test needs /dev/full: %v", err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "external_server.log")
	check(t, os.Symlink("/dev/full", path))
	l, out := newFileLogs(t, Sink{Dir: dir})
	log := l.Logger()
	log.Info("one")
	testwait.Until(t, "a warning", func() bool { return strings.Contains(out.String(), "no space left") })
	log.Info("two")
	check(t, os.Remove(path))
	flush(t, l)
	if got := read(t, path); !strings.Contains(got, "\tone\n") || !strings.Contains(got, "\ttwo\n") {
		t.Errorf("after the disk had room again the file holds %q", got)
	}
	check(t, os.Remove(path))
	check(t, os.Symlink("/dev/full", path))
	log.Info("three")
	log.Info("four")
	err := l.Close()
	if err == nil || !strings.Contains(err.Error(), "2 log lines") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("close: %v", err)
	}
	if _, lost := l.Lost(); lost != 2 {
		t.Errorf("%d lines lost, want 2", lost)
	}
}
