package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"external-server/internal/support/testwait"
)

// table is a Fold of "key=value" (set) and "key" (delete).
type table map[string]string

func newTable() Fold { return table{} }

func (t table) Apply(record []byte) error {
	key, value, set := strings.Cut(string(record), "=")
	switch {
	case key == "":
		return errors.New("a record without key")
	case key == "panic":
		panic("a defect")
	case set:
		t[key] = value
	default:
		delete(t, key)
	}
	return nil
}

func (t table) Snapshot(emit func([]byte)) {
	for _, key := range slices.Sorted(maps.Keys(t)) {
		emit([]byte(key + "=" + t[key]))
	}
}

const testIdentity = "abcdefghijklmnop"

func options(dir string) Options {
	return Options{Dir: dir, Shard: 7, Identity: testIdentity, NewFold: newTable}
}

func open(t testing.TB, opts Options) *Journal {
	t.Helper()
	j, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(false); err != nil {
			t.Error(err)
		}
	})
	return j
}

func closeJournal(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(false); err != nil {
		t.Fatal(err)
	}
}

// put appends records and flushes them.
func put(t testing.TB, j *Journal, records ...string) {
	t.Helper()
	for _, r := range records {
		j.Append([]byte(r))
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, fold Fold, state table) {
	t.Helper()
	if got, ok := fold.(table); !ok || !maps.Equal(got, state) {
		t.Fatalf("the journal has %v, expected %v", fold, state)
	}
}

// replayed opens the journal anew and returns what it finds.
func replayed(t testing.TB, opts Options) table {
	t.Helper()
	j, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	fold := j.Replayed()
	closeJournal(t, j)
	return fold.(table)
}

// rounds returns the batch of one round: all values are the round's number.
func round(n int) []string {
	return []string{fmt.Sprintf("a=%d", n), fmt.Sprintf("b=%d", n), fmt.Sprintf("row%d=%d", n%50, n)}
}

// state is what the rounds up to n leave.
func state(n int) table {
	s := table{}
	for i := max(1, n-49); i <= n; i++ { // later rounds overwrite earlier ones
		for _, r := range round(i) {
			_ = s.Apply([]byte(r))
		}
	}
	return s
}

// marks counts what Options.Mark is told.
type marks struct{ usable, not atomic.Int64 }

func (m *marks) mark(usable bool) {
	if usable {
		m.usable.Add(1)
	} else {
		m.not.Add(1)
	}
}

// reseal makes the checksum of a frame's header right again.
func reseal(b []byte, seed uint32) {
	binary.LittleEndian.PutUint32(b[20:], crc32.Update(seed, castagnoli, b[:20]))
}

// waitGone waits until the files are removed.
func waitGone(t testing.TB, opts Options, names ...string) {
	t.Helper()
	for _, name := range names {
		testwait.Until(t, name+" goes", func() bool {
			_, err := os.Stat(filepath.Join(opts.Dir, name))
			return errors.Is(err, os.ErrNotExist)
		})
	}
}
