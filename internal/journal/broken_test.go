package journal

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// strangers put something in the place of a journal's directory.
var strangers = map[string]func(path string) error{
	"is a file":          func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
	"is a FIFO":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
	"is a device":        func(path string) error { return os.Symlink("/dev/null", path) },
	"that leads nowhere": func(path string) error { return os.Symlink(path+"-gone", path) },
	"symbolic link":      func(path string) error { return os.Symlink(path, path) },
}

// TestNoDirectory: what stands in the place of the directory is damage, told with its path
// and what it is. A journal goes on there as a broken one, and begins as soon as the place
// is free.
func TestNoDirectory(t *testing.T) {
	for what, put := range strangers {
		t.Run(what, func(t *testing.T) {
			var marks []bool
			opts := options(filepath.Join(t.TempDir(), "journal"))
			opts.AtLeast = 9
			opts.Mark = func(usable bool) { marks = append(marks, usable) }
			if err := put(opts.Dir); err != nil {
				t.Fatal(err)
			}
			j, err := Open(opts)
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), opts.Dir) || !strings.Contains(err.Error(), what) {
				t.Fatalf("opened %v: %v", j, err)
			}
			if j, err = Broken(opts, err); err != nil {
				t.Fatal(err)
			}
			anew := func() error {
				j.Append([]byte("lost=1"))
				if err := j.Flush(); err != nil || j.Replayed() != nil {
					t.Errorf("replayed, or flushed: %v", err)
				}
				j.Restart()
				j.Append([]byte("a=1"))
				return j.Flush()
			}
			if err := anew(); !errors.Is(err, ErrDamaged) || !errors.Is(j.Err(), ErrDamaged) {
				t.Errorf("begun anew: %v", err)
			}
			if err := Remove(opts.Dir); err != nil {
				t.Errorf("nothing is there to remove: %v", err)
			}
			if err := os.Remove(opts.Dir); err != nil {
				t.Fatal(err)
			}
			if err := anew(); err != nil || j.Err() != nil || j.Sequence() != 10 {
				t.Errorf("begun anew: %v, %v, batch %d", err, j.Err(), j.Sequence())
			}
			closeJournal(t, j)
			if len(marks) != 3 || marks[0] || marks[1] || !marks[2] {
				t.Errorf("marked %v", marks)
			}
			opts.AtLeast = 10
			if got := open(t, opts).Replayed().(table); !maps.Equal(got, table{"a": "1"}) {
				t.Errorf("there is %v", got)
			}
		})
	}
}

// TestBrokenOverFiles: a journal that could not be opened takes the place of the files that
// are there, and of none that belong elsewhere.
func TestBrokenOverFiles(t *testing.T) {
	opts := options(t.TempDir())
	j := open(t, opts)
	put(t, j, "old=1")
	closeJournal(t, j)
	if j, err := Broken(opts, syscall.EMFILE); err != nil {
		t.Fatal(err)
	} else {
		j.Restart()
		put(t, j, "new=1")
		closeJournal(t, j)
	}
	j = open(t, opts)
	if got := j.Replayed().(table); !maps.Equal(got, table{"new": "1"}) {
		t.Errorf("there is %v", got)
	}
	closeJournal(t, j)
	opts.Shard++
	j, err := Broken(opts, syscall.EMFILE)
	if err != nil {
		t.Fatal(err)
	}
	j.Restart()
	j.Append([]byte("other=1"))
	if err := j.Flush(); !errors.Is(err, ErrForeign) {
		t.Errorf("begun anew over the files of another shard: %v", err)
	}
	closeJournal(t, j)
}

// TestFileBecomesFIFO: what takes the place of a file after the directory was listed is an
// error, and is not waited for.
func TestFileBecomesFIFO(t *testing.T) {
	opts := options(t.TempDir())
	path := segmentPath(opts.Dir, 1)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r := found{next: 1, fold: opts.NewFold(), snapshot: part{number: 1}}
	if err := os.Symlink(path, snapshotPath(opts.Dir, 1)); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"owner": opts.owns(path, 1), "segment": r.readSegments(opts, []part{{number: 1}}), "snapshot": r.readSnapshot(opts),
	} {
		if err == nil || !strings.Contains(err.Error(), opts.Dir) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestDirectoryInThePlaceOfASegment: the next segment has another name.
func TestDirectoryInThePlaceOfASegment(t *testing.T) {
	opts := options(t.TempDir())
	if err := os.Mkdir(segmentPath(opts.Dir, 1), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, open(t, opts), "a=1")
	highest := options(t.TempDir())
	if err := os.Mkdir(segmentPath(highest.Dir, maxNumber-1), 0o700); err != nil {
		t.Fatal(err)
	}
	j := open(t, highest)
	j.Append([]byte("a=1"))
	if err := j.Flush(); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("written: %v", err)
	}
}

// TestCheck: a file that is not in its place any more breaks the journal, and it begins anew,
// in a directory that is made anew if need be.
func TestCheck(t *testing.T) {
	for what, remove := range map[string]func(dir string) error{
		"file":      func(dir string) error { return os.Remove(segmentPath(dir, 1)) },
		"directory": os.RemoveAll,
		"replaced": func(dir string) error {
			return errors.Join(os.Remove(segmentPath(dir, 1)), os.WriteFile(segmentPath(dir, 1), nil, 0o600))
		},
	} {
		t.Run(what, func(t *testing.T) {
			faults := 0
			opts := options(filepath.Join(t.TempDir(), "journal"))
			opts.OnFault = func(error) { faults++ }
			j, err := Open(opts)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Check(); err != nil {
				t.Errorf("nothing was written: %v", err)
			}
			j.Append([]byte("a=1"))
			if err := errors.Join(j.Flush(), j.Check(), remove(opts.Dir)); err != nil {
				t.Fatal(err)
			}
			if err := j.Check(); err == nil || !strings.Contains(err.Error(), opts.Dir) || faults != 1 {
				t.Errorf("check: %v, %d faults", err, faults)
			}
			if err := j.Check(); err != nil || faults != 1 {
				t.Errorf("told again: %v, %d faults", err, faults)
			}
			j.Restart()
			j.Append([]byte("b=2"))
			if err := errors.Join(j.Flush(), j.Check(), j.Close(false)); err != nil {
				t.Fatal(err)
			}
			if j, err = Open(opts); err != nil {
				t.Fatal(err)
			}
			if got := j.Replayed().(table); !maps.Equal(got, table{"b": "2"}) {
				t.Errorf("%v is known", got)
			}
			if err := j.Close(false); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCheckSeesNothing: a file that cannot be looked for, for example because somebody has
// taken away the right to enter the directory for a moment, is no reason to give the journal up.
func TestCheckSeesNothing(t *testing.T) {
	opts := options(filepath.Join(t.TempDir(), "journal"))
	j := open(t, opts)
	j.Append([]byte("a=1"))
	if err := errors.Join(j.Flush(), os.Rename(opts.Dir, opts.Dir+"-away"), os.Symlink(opts.Dir, opts.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := j.Check(); err != nil {
		t.Error(err)
	}
	j.Append([]byte("b=2"))
	if err := errors.Join(j.Flush(), os.Remove(opts.Dir), os.Rename(opts.Dir+"-away", opts.Dir), j.Check(), j.Close(false)); err != nil {
		t.Fatal(err)
	}
	if got := open(t, opts).Replayed().(table); !maps.Equal(got, table{"a": "1", "b": "2"}) {
		t.Errorf("%v is known", got)
	}
}
