package spool

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// two makes a spool with a record in each of two segments, and returns their paths.
func two(t *testing.T) (opts Options, first, second string) {
	t.Helper()
	opts = Options{Dir: t.TempDir(), SegmentBytes: 1}
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1, 3)
	first, second = s.path(1), s.path(2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return opts, first, second
}

// TestHugeSegment: a file that is longer than any segment takes no more memory than one, and
// costs no record before its end.
func TestHugeSegment(t *testing.T) {
	for name, which := range map[string]int{"first": 0, "last": 1} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			opts, first, second := two(t)
			opts.Logger = log.Logger()
			path := []string{first, second}[which]
			if err := os.Truncate(path, 1<<36); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			testwait.Returns(t, func() {
				s := openAt(t, opts)
				if got := drain(t, s, 10); !slices.Equal(got, []string{string(record(1)), string(record(2))}) {
					t.Errorf("there is %q", got)
				}
			})
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
				t.Errorf("%d MiB were allocated", used>>20)
			}
			if !log.Has("level=WARN", path) {
				t.Errorf("log: %s", &log)
			}
		})
	}
}

// TestNoFiles: what stands in the place of a file and never answers is refused at once.
func TestNoFiles(t *testing.T) {
	opts, first, _ := two(t)
	s := openAt(t, opts)
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(first, 0o600); err != nil { // while it is open
		t.Fatal(err)
	}
	testwait.Returns(t, func() {
		if _, err := s.Peek(1, 1); err == nil || !strings.Contains(err.Error(), first+" is no regular file") {
			t.Errorf("read: %v", err)
		}
		if err := s.look(1, false); err == nil || !strings.Contains(err.Error(), first+" is no regular file") {
			t.Errorf("looked through: %v", err)
		}
	})
	dir := t.TempDir()
	position := filepath.Join(dir, "position")
	if err := syscall.Mkfifo(position, 0o600); err != nil {
		t.Fatal(err)
	}
	testwait.Returns(t, func() {
		if s, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), position+" is no regular file") {
			t.Errorf("opened %v: %v", s, err)
		}
	})
}
