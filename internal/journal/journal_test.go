package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// TestReopen: what was flushed is there in the next process, what was not is not.
func TestReopen(t *testing.T) {
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprintf("sync=%v", sync), func(t *testing.T) { testReopen(t, sync) })
	}
}

func testReopen(t *testing.T, sync bool) {
	opts := options(t.TempDir() + "/07")
	opts.Sync = sync
	j := open(t, opts)
	want(t, j.Replayed(), table{})
	if j.Replayed() != nil {
		t.Error("the state is returned twice")
	}
	put(t, j, "a=1", "b=2")
	put(t, j, "a=3", "b")
	if j.Sequence() != 2 {
		t.Errorf("the last batch is number %d", j.Sequence())
	}
	j.Append([]byte("c=1"))
	want(t, replayed(t, opts), table{"a": "3"})
	closeJournal(t, j) // writes the rest
	want(t, replayed(t, opts), table{"a": "3", "c": "1"})
	j.Append([]byte("d=1"))
	if err := j.Flush(); err != nil {
		t.Errorf("after Close: %v", err)
	}
	want(t, replayed(t, opts), table{"a": "3", "c": "1"})
}

// TestCompaction: the files stay small however much is written, and hold the state.
func TestCompaction(t *testing.T) {
	opts := options(t.TempDir())
	opts.SegmentBytes, opts.MaxBytes = 2000, 40000
	turn := &sync.Mutex{}
	opts.Turn = turn
	j := open(t, opts)
	const n = 5000
	for i := 1; i <= n; i++ {
		put(t, j, round(i)...)
		if i%100 == 0 {
			testwait.Until(t, "compaction", func() bool { return j.Bytes() < 10000 })
		}
	}
	closeJournal(t, j)
	want(t, replayed(t, opts), state(n))
	l, err := list(opts.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.snapshots) == 0 || len(l.segments) > 20 {
		t.Errorf("%d snapshots, %d segments", len(l.snapshots), len(l.segments))
	}
}

// TestManyRestarts: a process that is started often leaves few files.
func TestManyRestarts(t *testing.T) {
	opts := options(t.TempDir())
	for i := 1; i <= 40; i++ {
		j := open(t, opts)
		put(t, j, round(i)...)
		testwait.Until(t, "compaction", func() bool {
			l, err := list(opts.Dir)
			return err == nil && len(l.segments)+len(l.snapshots) <= manySegments+2
		})
		closeJournal(t, j)
		want(t, replayed(t, opts), state(i))
	}
}

// TestFlushCoversOthers: a record is on disk when the Flush that follows its
// Append returns, whichever goroutine writes it.
func TestFlushCoversOthers(t *testing.T) {
	opts := options(t.TempDir())
	j := open(t, opts)
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := range 200 {
				j.Append(fmt.Appendf(nil, "w%d=%d", w, i))
				if err := j.Flush(); err != nil {
					t.Error(err)
				}
				if i%50 != 0 {
					continue
				}
				fold, err := Salvage(opts)
				if err != nil && !errors.Is(err, ErrDamaged) { // the tail of a batch under way may be damage or not
					t.Error(err)
				} else if got := fold.(table)[fmt.Sprintf("w%d", w)]; got != fmt.Sprint(i) {
					t.Errorf("after record %d of %d there is %q", i, w, got)
				}
			}
		})
	}
	workers.Wait()
}

// TestRejectedRecords: records that the fold refuses or cannot bear are counted,
// those after them are taken.
func TestRejectedRecords(t *testing.T) {
	var log testlog.Buffer
	opts := options(t.TempDir())
	j := open(t, opts)
	put(t, j, "a=1", "=2", "panic=1", "b=2")
	closeJournal(t, j)
	opts.Logger = log.Logger()
	j = open(t, opts)
	want(t, j.Replayed(), table{"a": "1", "b": "2"})
	if j.Rejected() != 2 || !log.Has("level=WARN", opts.Dir, "records=2", "a record without key") {
		t.Errorf("%d records rejected: %s", j.Rejected(), &log)
	}
}

// TestBroken: a journal that cannot be written says so once, does nothing more,
// and begins anew when it is told to.
func TestBroken(t *testing.T) {
	var m marks
	var faults []error
	opts := options(t.TempDir())
	opts.Mark = m.mark
	opts.OnFault = func(err error) { faults = append(faults, err) }
	opts.SegmentBytes = 100
	j := open(t, opts)
	put(t, j, "a=1")
	next := segmentPath(opts.Dir, 2)
	if err := os.Mkdir(next, 0o700); err != nil { // in the way of the next segment
		t.Fatal(err)
	}
	j.Append([]byte("a=" + strings.Repeat("x", 100)))
	err := j.Flush()
	if err == nil || !strings.Contains(err.Error(), next) {
		t.Fatalf("the error does not name the file: %v", err)
	}
	for range 3 {
		put(t, j, "a=3") // nothing, without error
	}
	if len(faults) != 1 || !errors.Is(faults[0], os.ErrExist) || m.not.Load() != 1 || m.usable.Load() != 0 || j.Err() == nil {
		t.Fatalf("faults %v, marked %d times, Err %v", faults, m.not.Load(), j.Err())
	}
	want(t, replayed(t, opts), table{"a": "1"})
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	j.Restart()
	want(t, replayed(t, opts), table{"a": "1"}) // until something is written
	put(t, j, "b=1")
	put(t, j, "c=1")
	if m.usable.Load() != 1 || j.Err() != nil {
		t.Errorf("marked as usable %d times, Err %v", m.usable.Load(), j.Err())
	}
	waitGone(t, opts, "0000000000000001.segment")
	closeJournal(t, j)
	want(t, replayed(t, opts), table{"b": "1", "c": "1"})
}

// TestBounds: what does not fit breaks the journal with a line that says what to
// look at.
func TestBounds(t *testing.T) {
	opts := options(t.TempDir())
	opts.BatchBytes = 1000
	j := open(t, opts)
	for range 20 {
		j.Append(make([]byte, 100))
	}
	if err := j.Flush(); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "1000 bytes") {
		t.Errorf("a batch beyond the bound: %v", err)
	}

	opts = options(t.TempDir())
	opts.SegmentBytes, opts.MaxBytes = 2000, 20000
	j = open(t, opts)
	var err error
	for i := 0; err == nil && i < 10000; i++ {
		j.Append(fmt.Appendf(nil, "key%d=%0100d", i, i)) // the state itself grows
		err = j.Flush()
	}
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "20000 bytes") || !strings.Contains(err.Error(), opts.Dir) {
		t.Errorf("a state beyond the bound: %v", err)
	}
	j.Restart()
	put(t, j, "a=1")
	closeJournal(t, j)
	want(t, replayed(t, opts), table{"a": "1"})
}

// TestRemove: a final stop leaves nothing, and no file that is not the journal's
// is touched.
func TestRemove(t *testing.T) {
	opts := options(t.TempDir() + "/07")
	opts.SegmentBytes = 200
	j := open(t, opts)
	for i := range 100 {
		put(t, j, round(i)...)
	}
	other := opts.Dir + "/notes.txt"
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(true); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(opts.Dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if err := Remove(opts.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(opts.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if err := Remove(opts.Dir); err != nil {
		t.Errorf("again: %v", err)
	}
}

// TestFullDisk runs on a file system of 256 KiB.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t)
	if dir == "" {
		return
	}
	var m marks
	opts := options(dir + "/07")
	opts.Mark, opts.SegmentBytes = m.mark, 20000
	j := open(t, opts)
	fill := func() (n int, err error) {
		for n = 1; n < 100000; n++ {
			j.Append(fmt.Appendf(nil, "key%d=%0100d", n, n))
			if err = j.Flush(); err != nil {
				return n, err
			}
		}
		return n, nil
	}
	n, err := fill()
	if !errors.Is(err, syscall.ENOSPC) || n < 500 || m.not.Load() != 1 {
		t.Fatalf("batch %d: %v", n, err)
	}
	// The disk is full of this journal. Beginning anew makes its own room, at once or as
	// soon as a compaction has ended that reads the files.
	testwait.Until(t, "the journal begins anew", func() bool {
		j.Restart()
		for _, record := range []string{"a=1", "b=" + strings.Repeat("x", 30000), "b"} {
			j.Append([]byte(record))
			if err := j.Flush(); err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			} else if err != nil {
				return false
			}
		}
		return true
	})
	if usable, not := m.usable.Load(), m.not.Load(); usable < 1 || usable > not {
		t.Errorf("marked as usable %d times, as not usable %d times", usable, not)
	}
	closeJournal(t, j)
	want(t, replayed(t, opts), table{"a": "1"})
}

// smallDisk returns a directory on a file system of 256 KiB of its own, none where
// mounting is not possible.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Logf("mounting is not possible here (%v); TestBroken takes the same path", err)
		return ""
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// watched is a table that tells when a compaction begins to read, lets it wait, and
// counts what it reads.
type watched struct {
	table
	applied *atomic.Int64
}

func (w watched) Apply(record []byte) error {
	w.applied.Add(1)
	return w.table.Apply(record)
}

// TestRestartEndsCompaction: a compaction of files that do not count any more ends before
// it reads them and writes a snapshot of them.
func TestRestartEndsCompaction(t *testing.T) {
	opts := options(t.TempDir())
	opts.SegmentBytes = 1500
	begun, goOn := make(chan struct{}), make(chan struct{})
	var opened atomic.Bool
	var applied atomic.Int64
	opts.NewFold = func() Fold {
		if opened.Swap(true) { // Open makes the first
			begun <- struct{}{}
			<-goOn
		}
		return watched{table{}, &applied}
	}
	j := open(t, opts)
	for n := 1; ; n++ {
		put(t, j, round(n)...)
		select {
		case <-begun:
		default:
			if n > 1000 {
				t.Fatal("no compaction has begun")
			}
			runtime.Gosched()
			continue
		}
		break
	}
	j.Restart()
	put(t, j, "a=1")
	close(goOn)
	testwait.Until(t, "the compaction ends", func() bool {
		j.io.Lock()
		defer j.io.Unlock()
		return !j.working
	})
	if applied.Load() != 0 {
		t.Errorf("the compaction has read %d records that do not count", applied.Load())
	}
	if left, err := filepath.Glob(filepath.Join(opts.Dir, "*snapshot*")); err != nil || len(left) != 0 {
		t.Errorf("there are %v, %v", left, err)
	}
}
