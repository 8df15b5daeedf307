package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// written returns the files of a journal of n rounds that has a snapshot, sealed
// segments and an open one, by path below the directory.
func written(t testing.TB, opts Options, n int) map[string][]byte {
	t.Helper()
	opts.SegmentBytes = 1 << 20
	j := open(t, opts)
	half := n / 2
	for i := 1; i <= half; i++ {
		put(t, j, round(i)...)
	}
	closeJournal(t, j)
	// A compaction, by hand: when the goroutine does it is up to the scheduler.
	j = open(t, opts)
	made, err := j.compact(0, 1, part{}, j.sealed)
	if err != nil || made.number != 1 {
		t.Fatal(made, err)
	}
	if err := os.Remove(segmentPath(opts.Dir, 1)); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
	for i := half + 1; i <= n; i++ { // in two processes
		if i == half+1 || i == n-2 {
			closeJournal(t, j)
			j = open(t, opts)
		}
		put(t, j, round(i)...)
	}
	closeJournal(t, j)
	files := map[string][]byte{}
	entries, err := os.ReadDir(opts.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(opts.Dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if len(files) != 3 {
		t.Fatalf("%d files, expected a snapshot and two segments", len(files))
	}
	return files
}

const (
	snapshotFile = "0000000000000001.snapshot"
	sealedFile   = "0000000000000002.segment"
	lastFile     = "0000000000000003.segment"
)

// lay writes files into a new directory and returns options for it.
func lay(t testing.TB, files map[string][]byte) Options {
	t.Helper()
	opts := options(t.TempDir())
	relay(t, opts, files)
	return opts
}

func relay(t testing.TB, opts Options, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(opts.Dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryPrefix: a crash leaves a beginning of the last file. Whatever its length,
// whole batches are there and no parts, and the next process goes on behind them.
func TestEveryPrefix(t *testing.T) {
	const n = 12
	files := written(t, options(t.TempDir()), n)
	opts := lay(t, files)
	whole := files[lastFile]
	lost := map[int]bool{}
	for size := range len(whole) {
		relay(t, opts, map[string][]byte{lastFile: whole[:size]})
		j, err := Open(opts)
		if err != nil {
			t.Fatalf("%d of %d bytes: %v", size, len(whole), err)
		}
		batch := int(j.Sequence())
		lost[batch] = true
		want(t, j.Replayed(), state(batch))
		put(t, j, "next=1")
		put(t, j, "next=2")
		closeJournal(t, j)
		after := state(batch)
		after["next"] = "2"
		want(t, replayed(t, opts), after)
		if err := os.Remove(segmentPath(opts.Dir, 4)); err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(lost, map[int]bool{n - 3: true, n - 2: true, n - 1: true}) {
		t.Errorf("the last batches were %v", lost)
	}
}

// TestCut: files that a crash does not leave like this are told with file and
// offset, and nothing is changed.
func TestCut(t *testing.T) {
	files := written(t, options(t.TempDir()), 12)
	for _, name := range []string{snapshotFile, sealedFile} {
		opts := lay(t, files)
		for size := range len(files[name]) {
			relay(t, opts, map[string][]byte{name: files[name][:size]})
			_, err := Open(opts)
			if d, ok := errors.AsType[*DamageError](err); !ok || !errors.Is(err, ErrDamaged) || d.Offset > int64(size) {
				t.Fatalf("%s with %d bytes: %v", name, size, err)
			}
			if now, err := os.ReadFile(filepath.Join(opts.Dir, name)); err != nil || len(now) != size {
				t.Fatalf("%s with %d bytes has %d afterwards, %v", name, size, len(now), err)
			}
		}
	}
}

// TestBitFlips: a bit that is wrong anywhere is found. It ends the journal at the
// batch before, if that batch is the last one, or is damage; the number of the last
// batch makes damage of both.
func TestBitFlips(t *testing.T) {
	const n = 12
	files := written(t, options(t.TempDir()), n)
	opts := lay(t, files)
	for name, whole := range files {
		for i := range whole {
			flipped := append([]byte(nil), whole...)
			flipped[i] ^= 1 << (i % 8)
			relay(t, opts, map[string][]byte{name: flipped})
			opts.AtLeast = 0
			fold, err := Salvage(opts)
			switch {
			case errors.Is(err, ErrDamaged), errors.Is(err, ErrNewer), errors.Is(err, ErrForeign):
			case err != nil:
				t.Fatalf("%s, byte %d: %v", name, i, err)
			case name != lastFile || !maps.Equal(fold.(table), state(n-1)):
				t.Fatalf("%s, byte %d: not found, and the state is %v", name, i, fold)
			}
			opts.AtLeast = n
			if _, err := Open(opts); err == nil {
				t.Fatalf("%s, byte %d: not found with the number of the last batch", name, i)
			}
		}
		relay(t, opts, map[string][]byte{name: whole})
	}
	want(t, replayed(t, opts), state(n))
}

// TestSalvage: what comes before the damage can be had.
func TestSalvage(t *testing.T) {
	files := written(t, options(t.TempDir()), 12)
	files[sealedFile][fileHeader+frameHeader+3] ^= 1 // its first batch
	opts := lay(t, files)
	fold, err := Salvage(opts)
	want(t, fold, state(6))
	d, ok := errors.AsType[*DamageError](err)
	if !ok || d.File != filepath.Join(opts.Dir, sealedFile) || d.Offset != fileHeader || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("%v", err)
	}
}

// TestOtherFiles: files that are missing, older, renamed, of another shard, of
// another directory or of a newer version are not read.
func TestOtherFiles(t *testing.T) {
	const n = 12
	files := written(t, options(t.TempDir()), n)
	other := func(change func(*Options)) map[string][]byte {
		opts := options(t.TempDir())
		change(&opts)
		return written(t, opts, n)
	}
	newer := append([]byte(nil), files[lastFile]...)
	h, err := parseHeader(newer)
	if err != nil {
		t.Fatal(err)
	}
	h.version = Version + 1
	h.encode(newer)
	twice := append([]byte(nil), files[lastFile]...)
	twice = append(twice, files[lastFile][fileHeader:]...)
	for name, c := range map[string]struct {
		change func(map[string][]byte)
		err    error
		say    string
	}{
		"newer version": {func(f map[string][]byte) { f[lastFile] = newer }, ErrNewer, fmt.Sprintf("format %d", Version+1)},
		"another shard": {func(f map[string][]byte) { f[lastFile] = other(func(o *Options) { o.Shard = 8 })[lastFile] }, ErrForeign, "shard 8"},
		"another directory": {func(f map[string][]byte) {
			f[snapshotFile] = other(func(o *Options) { o.Identity = "other" })[snapshotFile]
		}, ErrForeign, `"other"`},
		"renamed":          {func(f map[string][]byte) { f["0000000000000004.segment"] = f[sealedFile] }, ErrForeign, "file number 2"},
		"no snapshot":      {func(f map[string][]byte) { delete(f, snapshotFile) }, ErrDamaged, "batch 7, number 1 was expected"},
		"segment missing":  {func(f map[string][]byte) { delete(f, sealedFile) }, ErrDamaged, "batch 10, number 7 was expected"},
		"last one missing": {func(f map[string][]byte) { delete(f, lastFile) }, ErrDamaged, "number 9, although number 12"},
		"nothing left":     {func(f map[string][]byte) { clear(f) }, ErrDamaged, "number 0, although number 12"},
		"batches twice":    {func(f map[string][]byte) { f[lastFile] = twice }, ErrDamaged, "although number 13"},
		"a segment as snapshot": {func(f map[string][]byte) {
			delete(f, snapshotFile)
			f["0000000000000002.snapshot"] = f[sealedFile]
		}, ErrDamaged, "no snapshot"},
		"text":  {func(f map[string][]byte) { f[lastFile] = []byte(strings.Repeat("not a journal ", 20)) }, ErrDamaged, "no file of a journal"},
		"empty": {func(f map[string][]byte) { f[sealedFile] = nil }, ErrDamaged, "batch 10, number 7"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := maps.Clone(files)
			c.change(changed)
			opts := lay(t, changed)
			opts.AtLeast = n
			if name == "batches twice" {
				opts.AtLeast = n + 1
			}
			_, err := Open(opts)
			if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), opts.Dir) {
				t.Errorf("%v; expected %v with %q", err, c.err, c.say)
			}
			for file, b := range changed {
				if now, err := os.ReadFile(filepath.Join(opts.Dir, file)); err != nil || string(now) != string(b) {
					t.Errorf("%s was changed, %v", file, err)
				}
			}
		})
	}
}

// TestLeftovers: what an interrupted compaction or Restart leaves is passed over
// and goes with the next work.
func TestLeftovers(t *testing.T) {
	const n = 12
	first := options(t.TempDir())
	j := open(t, first)
	for i := 1; i <= n/2; i++ {
		put(t, j, round(i)...)
	}
	closeJournal(t, j)
	covered, err := os.ReadFile(segmentPath(first.Dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	files := written(t, options(t.TempDir()), n)
	files["0000000000000001.segment"] = covered // removal was interrupted
	files["0000000000000002.snapshot.tmp"] = []byte("a beginning")
	opts := lay(t, files)
	j = open(t, opts)
	want(t, j.Replayed(), state(n))
	waitGone(t, opts, "0000000000000001.segment", "0000000000000002.snapshot.tmp")
	closeJournal(t, j)
	want(t, replayed(t, opts), state(n))

	// A new beginning of which older files remain.
	j = open(t, opts)
	j.Restart()
	put(t, j, "a=new")
	waitGone(t, opts, snapshotFile, sealedFile, lastFile)
	closeJournal(t, j)
	relay(t, opts, files)
	j = open(t, opts)
	want(t, j.Replayed(), table{"a": "new"})
	put(t, j, "b=new")
	waitGone(t, opts, snapshotFile, sealedFile, lastFile)
	closeJournal(t, j)
	want(t, replayed(t, opts), table{"a": "new", "b": "new"})
}

// TestZeros: a loss of power may leave zeros behind the last batch, or instead of
// a file.
func TestZeros(t *testing.T) {
	const n = 12
	files := written(t, options(t.TempDir()), n)
	files[lastFile] = append(files[lastFile], make([]byte, 9000)...)
	files["0000000000000004.segment"] = make([]byte, 300)
	want(t, replayed(t, lay(t, files)), state(n))
}

// TestHugeLengths: a length that a stranger wrote makes the replay allocate nothing.
func TestHugeLengths(t *testing.T) {
	files := written(t, options(t.TempDir()), 12)
	h, err := parseHeader(files[lastFile])
	if err != nil {
		t.Fatal(err)
	}
	b := append([]byte(nil), files[lastFile][:fileHeader]...)
	b = append(b, make([]byte, frameHeader)...)
	binary.LittleEndian.PutUint64(b[fileHeader+8:], 10)
	putFrame(b[fileHeader:], h.crc, 10)
	forge := func(length uint32) {
		binary.LittleEndian.PutUint32(b[fileHeader+4:], length)
		reseal(b[fileHeader:], h.crc)
	}
	opts := lay(t, files)
	for _, length := range []uint32{1, maxPayload, maxPayload + 1, 1<<32 - 1} {
		forge(length)
		relay(t, opts, map[string][]byte{lastFile: b})
		allocated := testing.AllocsPerRun(1, func() { want(t, replayed(t, opts), state(9)) })
		if allocated > 5000 {
			t.Errorf("length %d: %v allocations", length, allocated)
		}
	}
	// A record that is longer than its batch, in a batch whose checksums are right.
	payload := binary.AppendUvarint(nil, 1<<62)
	b = append(b[:fileHeader+frameHeader], payload...)
	putFrame(b[fileHeader:], h.crc, 10)
	relay(t, opts, map[string][]byte{lastFile: b})
	if _, err := Open(opts); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "longer than the batch") {
		t.Error(err)
	}
}
