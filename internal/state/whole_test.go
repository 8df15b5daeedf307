package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/journal"
	"external-server/internal/support/testlog"
)

// serving opens a directory one of whose shards is served and has a record.
func serving(t *testing.T) (opts Options, d *Dir, s *Shard, log *testlog.Buffer) {
	t.Helper()
	log = new(testlog.Buffer)
	opts = newOptions(t)
	opts.Logger, opts.clock = log.Logger(), newMachine().clock()
	d, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	s, err = d.OpenShard(0, ShardOptions{NewFold: func() journal.Fold { return newLines() }})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "one")
	s.Serving(true)
	pass(2 * time.Second)
	return opts, d, s, log
}

// What is removed under a running process is made anew, and the next process goes on.
func TestFilesAreRemoved(t *testing.T) {
	for _, names := range [][]string{{"alive"}, {"lock"}, {"identity.json"}, {"shards"}, {"alive", "lock", "lock.turn", "identity.json", "shards"}} {
		t.Run(strings.Join(names, "+"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts, d, s, log := serving(t)
				identity := d.Identity()
				for _, name := range names {
					if err := os.RemoveAll(filepath.Join(opts.Dir, name)); err != nil {
						t.Fatal(err)
					}
				}
				pass(2 * time.Second)
				if d.Trouble() != nil {
					t.Errorf("trouble: %v", d.Trouble())
				}
				if names[0] != "shards" && !log.Has("level=WARN", "made anew", names[0]) {
					t.Errorf("not told: %s", log)
				}
				if s.Check() != nil { // only where the journal was removed
					s.Restart()
					put(t, s, "one")
				}
				put(t, s, "two")
				pass(2 * time.Second)
				if who, _, err := Holder(opts.Dir); err != nil || who.PID != os.Getpid() {
					t.Errorf("the lock is held by %v, %v", who, err)
				}
				if err := d.Close(false); err != nil {
					t.Fatal(err)
				}
				opts.Logger = nil
				next := open(t, opts)
				if _, known := next.Down(); !known || !next.Clean() || next.Identity() != identity {
					t.Errorf("the next process: %v, down known %v, clean %v", next.Identity(), known, next.Clean())
				}
				now := openShard(t, next, 0)
				if now.Declined != nil {
					t.Error(now.Declined)
				}
				want(t, now.Replayed(), "one", "two")
			})
		})
	}
}

// A directory whose lock was removed and that another process has taken meanwhile is told
// with the name of that process, and nothing is made in it.
func TestLockIsRemovedAndTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts, d, _, log := serving(t)
		for _, name := range []string{"lock", "alive"} {
			if err := os.Remove(filepath.Join(opts.Dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		other := opts
		other.Logger = nil
		open(t, other)
		pass(2 * time.Second)
		if err := d.Trouble(); err == nil || !strings.Contains(err.Error(), "in use by process") || !strings.Contains(err.Error(), "stop one of them") {
			t.Errorf("trouble: %v", err)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings: %s", n, log)
		}
		if err := d.Close(false); err != nil {
			t.Error(err)
		}
	})
}

// A directory that was moved away is not made anew: it would stand in the way of the one
// that is put back.
func TestDirectoryIsNotMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts, d, s, _ := serving(t)
		if err := os.Rename(opts.Dir, opts.Dir+"-away"); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if err := d.Trouble(); err == nil || !strings.Contains(err.Error(), "put it back") {
			t.Errorf("trouble: %v", err)
		}
		if s.Check() == nil {
			t.Error("the journal is in its place")
		}
		s.Restart()
		s.Append([]byte("two"))
		if s.Flush() == nil {
			t.Error("the journal begins anew")
		}
		if _, err := os.Lstat(opts.Dir); err == nil {
			t.Error("the directory was made anew")
		}
		if err := os.Rename(opts.Dir+"-away", opts.Dir); err != nil {
			t.Fatal(err)
		}
		s.Restart()
		put(t, s, "one")
		pass(2 * time.Second)
		if d.Trouble() != nil || s.Check() != nil {
			t.Errorf("trouble: %v, %v", d.Trouble(), s.Check())
		}
		if err := d.Close(false); err != nil {
			t.Error(err)
		}
	})
}
