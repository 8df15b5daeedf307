package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/journal"
	"external-server/internal/support/testlog"
)

// TestDamagedShard: the other shards do not notice.
func TestDamagedShard(t *testing.T) {
	var log testlog.Buffer
	opts := newOptions(t)
	opts.Logger = log.Logger()
	for n := 1; n <= 5; n++ {
		d := open(t, opts)
		s := openShard(t, d, 2)
		if n > 1 && (!errors.Is(s.Declined, journal.ErrDamaged) || !log.Has("level=WARN", "shard=2", "connect anew", fmt.Sprintf("damaged-%d", n-1))) {
			t.Errorf("declined %v: %s", s.Declined, &log)
		}
		other := openShard(t, d, 3)
		if other.Declined != nil {
			t.Error(other.Declined)
		}
		put(t, s, "one")
		put(t, s, "two")
		put(t, other, "three")
		if err := d.Close(false); err != nil {
			t.Fatal(err)
		}
		segment := filepath.Join(opts.Dir, "shards", "02", "0000000000000001.segment")
		b, err := os.ReadFile(segment)
		if err != nil {
			t.Fatal(err)
		}
		b[70] ^= 1
		if err := os.WriteFile(segment, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := filepath.Glob(filepath.Join(opts.Dir, "damaged-*")); err != nil || len(names) != 3 {
		t.Errorf("kept are %v, %v", names, err)
	}
}

// TestBrokenJournal: a journal that could not be written to its end is not resumed
// from, unless it has begun anew.
func TestBrokenJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// In a bubble the page is not written while it is copied.
		opts := newOptions(t)
		d := open(t, opts)
		var faults int
		s, err := d.OpenShard(1, ShardOptions{NewFold: newLines, SegmentBytes: 100, OnFault: func(error) { faults++ }})
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, "one")
		path := filepath.Join(opts.Dir, "shards", "01")
		if err := os.Rename(path, path+"x"); err != nil { // the next segment has no place
			t.Fatal(err)
		}
		s.Append([]byte(strings.Repeat("x", 100)))
		if err := s.Flush(); err == nil || faults != 1 {
			t.Fatalf("error %v, %d faults", err, faults)
		}
		if err := os.Rename(path+"x", path); err != nil {
			t.Fatal(err)
		}
		now := openShard(t, open(t, killed(t, opts)), 1)
		if !errors.Is(now.Declined, ErrUnfinished) {
			t.Errorf("declined: %v", now.Declined)
		}
		want(t, now.Replayed())
		s.Restart()
		put(t, s, "anew")
		if err := d.Close(false); err != nil {
			t.Fatal(err)
		}
		now = openShard(t, open(t, opts), 1)
		want(t, now.Replayed(), "anew")
		if now.Declined != nil {
			t.Error(now.Declined)
		}
	})
}

// TestDirectoryVanishes: one warning, and everything goes on.
func TestDirectoryVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		opts := newOptions(t)
		opts.Logger, opts.clock = log.Logger(), newMachine().clock()
		d, err := Open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		s := openShard(t, d, 0)
		put(t, s, "one")
		s.Serving(true)
		pass(2 * time.Second)
		if d.Trouble() != nil {
			t.Error(d.Trouble())
		}
		away := opts.Dir + "-away"
		if err := os.Rename(opts.Dir, away); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		put(t, s, "two")
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || d.Trouble() == nil || !log.Has("served on", opts.Dir) {
			t.Errorf("%d warnings, trouble %v: %s", n, d.Trouble(), &log)
		}
		if err := os.Rename(away, opts.Dir); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if d.Trouble() != nil || !log.Has("level=INFO", "can be used again") {
			t.Errorf("trouble %v: %s", d.Trouble(), &log)
		}
		if err := os.Truncate(filepath.Join(opts.Dir, "alive"), 0); err != nil { // would end a process that had mapped it
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if err := d.Close(false); err != nil {
			t.Fatal(err)
		}
		d2 := open(t, opts)
		if _, known := d2.Down(); !known || !d2.Clean() {
			t.Error("the page was not written again")
		}
	})
}

// TestFinal: after a final stop the next process begins clean, as the same one.
func TestFinal(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	for n := range 2 {
		s := openShard(t, d, n)
		put(t, s, "one")
		s.Serving(true)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	d2 := open(t, opts)
	openShard(t, d2, 1).Serving(true)
	if err := d2.Close(true); err != nil {
		t.Fatal(err)
	}
	d3 := open(t, opts)
	if _, known := d3.Down(); known || d3.Identity() != d.Identity() {
		t.Errorf("a time is known: %v; identity %s, before %s", known, d3.Identity(), d.Identity())
	}
	for n := range 2 {
		want(t, openShard(t, d3, n).Replayed())
	}
}

// TestReadOnlyAndFullDisk: a first start on a disk that takes nothing is an error
// that names the directory; on a disk that fills up the journal breaks, and the next
// process knows (RES-19).
func TestReadOnlyAndFullDisk(t *testing.T) {
	base := t.TempDir()
	if err := syscall.Mount("tmpfs", base, "tmpfs", 0, "size=256k"); err != nil {
		t.Logf("mounting is not possible here: %v; TestBrokenJournal takes the same path", err)
		return
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(base, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	opts := Options{Dir: filepath.Join(base, "state"), Shards: 4}
	d := open(t, opts)
	s := openShard(t, d, 0)
	put(t, s, "one")
	if err := os.WriteFile(filepath.Join(base, "other"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	s.Append(make([]byte, 8192))
	if err := s.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	d = open(t, opts) // the page has its place
	if s := openShard(t, d, 0); !errors.Is(s.Declined, ErrUnfinished) {
		t.Errorf("declined: %v", s.Declined)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	fresh := Options{Dir: filepath.Join(base, "fresh"), Shards: 4}
	refused(t, fresh, syscall.ENOSPC)
	if err := syscall.Mount("", base, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refused(t, opts, nil, "read-only")
	refused(t, Options{Dir: filepath.Join(base, "new"), Shards: 4}, syscall.EROFS, "cannot be made")
}

// TestManyDamagedShards: they are one warning.
func TestManyDamagedShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		opts := newOptions(t)
		d := open(t, opts)
		for n := range 4 {
			s := openShard(t, d, n)
			put(t, s, "one")
			s.mark(false) // as after a disk that was full
		}
		opts = killed(t, opts)
		opts.Logger = log.Logger()
		next := open(t, opts)
		for n := range 4 {
			if s := openShard(t, next, n); !errors.Is(s.Declined, ErrUnfinished) {
				t.Errorf("declined: %v", s.Declined)
			}
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings: %s", n, &log)
		}
		if err := d.Close(false); err != nil {
			t.Error(err)
		}
	})
}
