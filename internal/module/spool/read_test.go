package spool

import (
	"os"
	"path/filepath"
	"testing"

	"external-server/internal/support/testlog"
)

// TestUnreadableForAMoment: a file that cannot be opened or read just now, as
// without a free file descriptor or with a disk that fails, is not damage. The
// caller learns it and gets the records later.
func TestUnreadableForAMoment(t *testing.T) {
	for name, obstruct := range map[string]func(path string) error{
		"open fails": func(path string) error { return os.Symlink(filepath.Base(path), path) }, // a loop
		"read fails": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			opts := Options{Dir: t.TempDir(), SegmentBytes: 1000, Logger: log.Logger()}
			s := openAt(t, opts)
			fill(t, s, 0, 100)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openAt(t, opts)
			path := s.path(s.segments[0].number)
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
			if err := obstruct(path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if records, err := s.Peek(100, 1<<20); err == nil || len(records) > 0 {
					t.Fatalf("%d records, error %v", len(records), err)
				}
			}
			if s.Len() != 100 || s.Skipped() != 0 || log.Has("level=WARN") {
				t.Errorf("%d records left, %d damaged places: %s", s.Len(), s.Skipped(), &log)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".away", path); err != nil {
				t.Fatal(err)
			}
			check(t, drain(t, s, 100), want(0, 100))
		})
	}
}

// TestMissingFile: a segment that somebody removed is passed over.
func TestMissingFile(t *testing.T) {
	opts := Options{Dir: t.TempDir(), SegmentBytes: 1000}
	s := openAt(t, opts)
	fill(t, s, 0, 100)
	first := len(peek(t, s, 100, 1<<20)) // what the first segment holds
	if err := os.Remove(s.path(s.segments[0].number)); err != nil {
		t.Fatal(err)
	}
	check(t, drain(t, s, 100), want(first, 100))
	if s.Skipped() != 1 {
		t.Errorf("%d damaged places", s.Skipped())
	}
}
