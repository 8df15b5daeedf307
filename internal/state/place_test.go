package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/journal"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

// inPlace put something in the place of a file or directory.
var inPlace = map[string]func(path string) error{
	"file":     func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
	"FIFO":     func(path string) error { return syscall.Mkfifo(path, 0o600) },
	"dangling": func(path string) error { return os.Symlink(path+"-gone", path) },
	"loop":     func(path string) error { return os.Symlink(path, path) },
}

// TestNoJournalThere: what stands in the place of one journal is set aside with one warning
// that names it; the others are resumed from.
func TestNoJournalThere(t *testing.T) {
	for kind, stand := range inPlace {
		t.Run(kind, func(t *testing.T) {
			var log testlog.Buffer
			opts := newOptions(t)
			d := open(t, opts)
			put(t, openShard(t, d, 2), "two")
			if err := d.Close(false); err != nil {
				t.Fatal(err)
			}
			if err := stand(d.shardPath(1)); err != nil {
				t.Fatal(err)
			}
			opts.Logger = log.Logger()
			d = open(t, opts)
			aside := filepath.Join(opts.Dir, "damaged-1", "01")
			s := openShard(t, d, 1)
			if !errors.Is(s.Declined, journal.ErrDamaged) || s.SetAside != aside {
				t.Errorf("declined %v, set aside as %q", s.Declined, s.SetAside)
			}
			if !log.Has("level=WARN", d.shardPath(1), "expected to be a directory", "remove it", aside) || strings.Count(log.String(), "level=WARN") != 1 {
				t.Errorf("log: %s", &log)
			}
			if _, err := os.Lstat(aside); err != nil {
				t.Error(err)
			}
			want(t, openShard(t, d, 2).Replayed(), "two")
			put(t, s, "one")
			if err := d.Close(false); err != nil {
				t.Fatal(err)
			}
			want(t, openShard(t, open(t, opts), 1).Replayed(), "one")
		})
	}
}

// TestShardWithoutJournal: what stands in the place of a journal and cannot be moved leaves
// this one shard without; the others are resumed from. What was there before is
// not resumed from later, and the journal begins when the place is free.
func TestShardWithoutJournal(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	put(t, openShard(t, d, 2), "two")
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	// On another file system nothing can be moved into the state directory.
	other := testneed.OtherFileSystem(t, opts.Dir)
	elsewhere := filepath.Join(other, "shards")
	if err := errors.Join(os.CopyFS(elsewhere, os.DirFS(d.shardsPath())), os.RemoveAll(d.shardsPath()), os.Symlink(elsewhere, d.shardsPath())); err != nil {
		t.Fatal(err)
	}
	bad := d.shardPath(1)
	if err := os.WriteFile(bad, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = open(t, opts)
	var faults []error
	s, err := d.OpenShard(1, ShardOptions{NewFold: newLines, OnFault: func(err error) { faults = append(faults, err) }})
	if err != nil {
		t.Fatal(err)
	}
	if len(faults) != 1 || s.Err() == nil || s.SetAside != "" || s.Rest != nil || s.Replayed() != nil {
		t.Fatalf("%d faults, %v, set aside as %q, rest %v", len(faults), s.Err(), s.SetAside, s.Rest)
	}
	for _, words := range []string{bad + ": it is expected to be a directory", "cannot be set aside", "move " + bad + " away"} {
		if !strings.Contains(faults[0].Error(), words) {
			t.Errorf("%q does not say %q", faults[0], words)
		}
	}
	want(t, openShard(t, d, 2).Replayed(), "two")
	s.Append([]byte("nowhere"))
	s.Serving(true)
	put(t, s)
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	put(t, s, "one")
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	if s = openShard(t, open(t, opts), 1); s.Declined != nil {
		t.Error(s.Declined)
	}
	want(t, s.Replayed(), "one")
}

// TestUnreadableJournalIsNotResumedLater: a journal that could not be read in one process,
// which has served its cars, is none to resume from in the next.
func TestUnreadableJournalIsNotResumedLater(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	put(t, openShard(t, d, 1), "old")
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	d = open(t, opts)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // as with too many open files
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	s, err := d.OpenShard(1, ShardOptions{NewFold: newLines})
	if err := errors.Join(err, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(s.Declined, syscall.EMFILE) || !errors.Is(s.Err(), syscall.EMFILE) || s.SetAside != "" {
		t.Errorf("declined %v, broken by %v, set aside as %q", s.Declined, s.Err(), s.SetAside)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	s = openShard(t, open(t, opts), 1)
	want(t, s.Replayed())
	if !errors.Is(s.Declined, ErrUnfinished) {
		t.Errorf("declined: %v", s.Declined)
	}
}

// TestLostPage: a page that says nothing is one warning for the directory, which names where
// the journals are; shards without files set nothing aside.
func TestLostPage(t *testing.T) {
	for kind, spoil := range map[string]func(path string) error{
		"damaged": func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"missing": os.Remove,
	} {
		t.Run(kind, func(t *testing.T) {
			opts := newOptions(t)
			opts.Shards = 32
			for n := 1; n <= 5; n++ {
				var log testlog.Buffer
				opts.Logger = log.Logger()
				d := open(t, opts)
				aside := filepath.Join(opts.Dir, fmt.Sprintf("damaged-%d", n-1))
				journals, to := d.Lost()
				for shard := range opts.Shards {
					s := openShard(t, d, shard)
					if shard%2 == 1 {
						if n > 1 && (s.SetAside != filepath.Join(aside, filepath.Base(d.shardPath(shard))) || !s.Lost) {
							t.Errorf("shard %d is set aside as %q, lost %v", shard, s.SetAside, s.Lost)
						}
						if n > 1 {
							want(t, s.Rest, "one")
						}
						put(t, s, "one")
					} else if s.SetAside != "" || s.Lost {
						t.Errorf("the empty shard %d is set aside as %q", shard, s.SetAside)
					}
				}
				if n > 1 {
					if journals != 16 || to != aside || strings.Count(log.String(), "level=WARN") != 1 || !log.Has("level=WARN", filepath.Join(opts.Dir, "alive"), "written anew", aside) {
						t.Errorf("%d journals in %q: %s", journals, to, &log)
					}
					if there, err := os.ReadDir(aside); err != nil || len(there) != 16 {
						t.Errorf("%d journals are there, %v", len(there), err)
					}
				} else if log.Has("level=WARN") {
					t.Errorf("a new directory: %s", &log)
				}
				if err := d.Close(false); err != nil {
					t.Fatal(err)
				}
				if err := spoil(filepath.Join(opts.Dir, "alive")); err != nil {
					t.Fatal(err)
				}
			}
			names, err := filepath.Glob(filepath.Join(opts.Dir, "damaged-*"))
			if err != nil || len(names) != 3 {
				t.Errorf("kept are %v, %v", names, err)
			}
		})
	}
}

// TestAllTogetherAside: all that one process sets aside is in one directory, so that what its
// warnings name is there; the same shard twice is in two.
func TestAllTogetherAside(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	for n := range opts.Shards {
		put(t, openShard(t, d, n), "one")
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	spoil := func(n int) {
		t.Helper()
		if err := os.Truncate(filepath.Join(d.shardPath(n), "0000000000000001.segment"), 80); err != nil {
			t.Fatal(err)
		}
	}
	for n := range opts.Shards {
		spoil(n)
	}
	d = open(t, opts)
	var told []string
	for n := range opts.Shards {
		told = append(told, openShard(t, d, n).SetAside)
	}
	s := d.shards[0]
	put(t, s, "one")
	put(t, s, "two")
	if err := d.CloseShard(0, false); err != nil {
		t.Fatal(err)
	}
	spoil(0)
	told = append(told, openShard(t, d, 0).SetAside)
	for _, path := range told {
		if _, err := os.Stat(path); err != nil || path == "" {
			t.Errorf("%q: %v", path, err)
		}
	}
	if slices.Sort(told); len(slices.Compact(told)) != opts.Shards+1 {
		t.Errorf("told are %q", told)
	}
}

// TestStrangersAreTold: what stands in the place of a file or directory is told with its
// path, with what is expected there, and what to do.
func TestStrangersAreTold(t *testing.T) {
	directory := func(path string) error { return os.Mkdir(path, 0o700) }
	for _, c := range []struct {
		name  string
		stand func(string) error
		words []string
	}{
		{"lock", inPlace["dangling"], []string{"is a symbolic link, a regular file is expected"}},
		{"lock.turn", inPlace["dangling"], []string{"is a symbolic link, a regular file is expected"}},
		{"alive", inPlace["dangling"], []string{"is a symbolic link, a regular file is expected"}},
		{"lock", directory, []string{"is a directory, a regular file is expected"}},
		{"lock.turn", directory, []string{"is a directory, a regular file is expected"}},
		{"alive", directory, []string{"is a directory, a regular file is expected"}},
		{"lock", inPlace["FIFO"], []string{"is a FIFO, a regular file is expected"}},
		{"lock.turn", inPlace["FIFO"], []string{"is a FIFO, a regular file is expected"}},
		{"alive", inPlace["FIFO"], []string{"is a FIFO, a regular file is expected"}},
		{"shards", inPlace["file"], []string{"is a file, a directory is expected"}},
		{"shards", inPlace["FIFO"], []string{"is a FIFO, a directory is expected"}},
		{"shards", inPlace["dangling"], []string{"is a symbolic link to no directory, a directory is expected"}},
	} {
		t.Run(c.name+" "+c.words[0], func(t *testing.T) {
			opts := newOptions(t)
			if err := os.Mkdir(opts.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(opts.Dir, c.name)
			if err := c.stand(path); err != nil {
				t.Fatal(err)
			}
			testwait.Returns(t, func() {
				refused(t, opts, nil, append(c.words, path+" is", "move it away and start the server again")...)
			})
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			open(t, opts) // what it says helps
		})
	}
	opts := newOptions(t)
	if err := errors.Join(os.Mkdir(opts.Dir, 0o700), os.Symlink("x", filepath.Join(opts.Dir, "lock"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Holder(opts.Dir); err == nil || !strings.Contains(err.Error(), "a regular file is expected") {
		t.Errorf("holder: %v", err)
	}
}
