package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/journal"
)

// lines is a Fold that keeps its records.
type lines struct{ all []string }

func newLines() journal.Fold { return &lines{} }

func (l *lines) Apply(record []byte) error {
	l.all = append(l.all, string(record))
	return nil
}

func (l *lines) Snapshot(emit func([]byte)) {
	for _, r := range l.all {
		emit([]byte(r))
	}
}

// machine is a clock that follows the bubble's time from its beginning on.
type machine struct {
	start time.Time
	boot  byte
}

func newMachine() *machine { return &machine{start: time.Now().Add(-time.Hour), boot: 1} }

func (m machine) clock() *clock {
	return &clock{
		now:  func() (int64, error) { return int64(time.Since(m.start)), nil },
		boot: func() ([16]byte, error) { return [16]byte{m.boot}, nil },
	}
}

// pass lets the time of the bubble pass, and everything happen that it causes.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func open(t testing.TB, opts Options) *Dir {
	t.Helper()
	d, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(false); err != nil {
			t.Error(err)
		}
	})
	return d
}

func openShard(t testing.TB, d *Dir, number int) *Shard {
	t.Helper()
	s, err := d.OpenShard(number, ShardOptions{NewFold: newLines})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Shard, records ...string) {
	t.Helper()
	for _, r := range records {
		s.Append([]byte(r))
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, fold journal.Fold, records ...string) {
	t.Helper()
	if l, ok := fold.(*lines); !ok || strings.Join(l.all, "|") != strings.Join(records, "|") {
		t.Fatalf("there is %+v, expected %q", fold, records)
	}
}

// killed returns options for a copy of the directory as it is at this moment: what
// is there if the process is killed now.
func killed(t testing.TB, opts Options) Options {
	t.Helper()
	to := filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(to, os.DirFS(opts.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to, 0o700); err != nil {
		t.Fatal(err)
	}
	opts.Dir = to
	return opts
}

func newOptions(t testing.TB) Options {
	return Options{Dir: filepath.Join(t.TempDir(), "state"), Shards: 4, Version: "1.2.3"}
}

// TestKilledAndStopped: what was flushed is there in the next process, which knows
// how long the cars were not served, and whether the one before stopped in order.
func TestKilledAndStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		opts := newOptions(t)
		opts.clock = m.clock()
		d := open(t, opts)
		if _, known := d.Down(); known || d.Clean() || d.Poisoned() {
			t.Error("a new directory knows of a process before")
		}
		s := openShard(t, d, 1)
		put(t, s, "one", "two")
		s.Serving(true)
		pass(3500 * time.Millisecond)
		opts = killed(t, opts)
		pass(2500 * time.Millisecond)
		d2 := open(t, opts)
		s2 := openShard(t, d2, 1)
		if down, known := s2.Down(); !known || down != 3*time.Second {
			t.Errorf("down for %v, known %v", down, known)
		}
		if down, known := d2.Down(); !known || down != 3*time.Second || d2.Clean() {
			t.Errorf("down for %v, known %v, clean %v", down, known, d2.Clean())
		}
		if _, known := openShard(t, d2, 2).Down(); known {
			t.Error("a shard that was never served has a time")
		}
		want(t, s2.Replayed(), "one", "two")
		if d2.Identity() != d.Identity() || s2.Declined != nil {
			t.Errorf("identity %s, before %s, declined %v", d2.Identity(), d.Identity(), s2.Declined)
		}
		s2.Append([]byte("three"))
		s2.Serving(true)
		pass(time.Second)
		if err := d2.Close(false); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		d3 := open(t, opts)
		if down, known := d3.Down(); !known || down != 2*time.Second || !d3.Clean() {
			t.Errorf("down for %v, known %v, clean %v", down, known, d3.Clean())
		}
		want(t, openShard(t, d3, 1).Replayed(), "one", "two", "three")
	})
}
