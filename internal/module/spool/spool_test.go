package spool

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func openAt(t testing.TB, opts Options) *Spool {
	t.Helper()
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func record(n int) []byte { return fmt.Appendf(nil, "record %d %s", n, strings.Repeat("x", n%50)) }

func fill(t testing.TB, s *Spool, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := s.Append(record(n)); err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
	}
}

// drain reads everything in steps of n and acknowledges it.
func peek(t testing.TB, s *Spool, n int, size int64) [][]byte {
	t.Helper()
	records, err := s.Peek(n, size)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func drain(t testing.TB, s *Spool, n int) []string {
	t.Helper()
	var out []string
	for {
		records := peek(t, s, n, 1<<20)
		if len(records) == 0 {
			if s.Len() != 0 {
				t.Fatalf("nothing to read and %d left", s.Len())
			}
			return out
		}
		for _, r := range records {
			out = append(out, string(r))
		}
		if err := s.Ack(len(records)); err != nil {
			t.Fatal(err)
		}
	}
}

func want(from, to int) []string {
	out := []string{}
	for n := from; n < to; n++ {
		out = append(out, string(record(n)))
	}
	return out
}

// check compares without printing thousands of records.
func check(t testing.TB, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for n := range min(len(got), len(want)) {
		if got[n] != want[n] {
			t.Fatalf("%d records instead of %d; number %d is %.40q, want %.40q", len(got), len(want), n, got[n], want[n])
		}
	}
	t.Fatalf("%d records, want %d", len(got), len(want))
}

func TestOrderAcrossRestarts(t *testing.T) {
	defer goleak.VerifyNone(t)
	opts := Options{Dir: filepath.Join(t.TempDir(), "a", "b"), SegmentBytes: 500}
	var got []string
	next := 0
	for range 12 {
		s := openAt(t, opts)
		if s.Len() != next-len(got) {
			t.Fatalf("%d records after a restart, want %d", s.Len(), next-len(got))
		}
		fill(t, s, next, next+100)
		next += 100
		for range 5 { // segments are short, so is what one Peek returns
			records := peek(t, s, 13, 1<<20)
			for _, r := range records[:len(records)/2] {
				got = append(got, string(r))
			}
			if err := s.Ack(len(records) / 2); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := openAt(t, opts)
	got = append(got, drain(t, s, 7)...)
	check(t, got, want(0, next))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(opts.Dir, "*.spool")); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
}

// TestBounds: the files never exceed MaxBytes, and there is room again after
// acknowledgements, whatever sizes come.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, Options{Dir: dir, MaxBytes: 2000})
	size := func() (n int64) {
		files, err := filepath.Glob(filepath.Join(dir, "*.spool"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			st, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			n += st.Size()
		}
		return n
	}
	full := 0
	for n := range 1000 {
		data := bytes.Repeat([]byte{byte(n)}, n*37%1900)
		for {
			err := s.Append(data)
			if err == nil {
				break
			}
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			full++
			if records := peek(t, s, 1, 1); len(records) != 1 {
				t.Fatalf("full and nothing to read, at %d", n)
			}
			if err := s.Ack(1); err != nil {
				t.Fatal(err)
			}
		}
		if size() > 2000 || size() != s.Bytes() {
			t.Fatalf("%d bytes on disk, %d counted, 2000 allowed", size(), s.Bytes())
		}
	}
	if full == 0 {
		t.Error("it was never full")
	}
	for _, n := range []int{1969, 2000, MaxRecord + 1} {
		if err := s.Append(make([]byte, n)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, Options{Dir: dir})
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("opened twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openAt(t, Options{Dir: dir})
	if err := s.Append(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close: %v", err)
	}
	if err := s.Ack(0); !errors.Is(err, ErrClosed) {
		t.Errorf("Ack after Close: %v", err)
	}
}

func TestOpenFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: filepath.Join(file, "x")}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("directory below a file: %v", err)
	}
}

// TestDamage: a torn tail is cut, a damaged record is passed over with a warning
// that names file and offset; whatever is whole arrives in order.
func TestDamage(t *testing.T) {
	size := func(n int) int { return recordHeader + len(record(n)) }
	offset := func(n int) int { // of record n in the only segment
		o := fileHeader
		for i := range n {
			o += size(i)
		}
		return o
	}
	const all = 40
	without := func(gone ...int) (out []string) {
		for n := range all {
			if !slices.Contains(gone, n) {
				out = append(out, string(record(n)))
			}
		}
		return out
	}
	tests := []struct {
		name   string
		change func(b []byte) []byte
		want   []string
		warn   string
	}{
		{"torn in the data", func(b []byte) []byte { return b[:len(b)-3] }, without(39), fmt.Sprintf("offset=%d", offset(39))},
		{"torn in the header", func(b []byte) []byte { return b[:offset(39)+5] }, without(39), fmt.Sprintf("offset=%d", offset(39))},
		{"torn in the marker", func(b []byte) []byte { return b[:offset(39)+2] }, without(39), fmt.Sprintf("offset=%d", offset(39))},
		{"zeros behind", func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, without(), fmt.Sprintf("offset=%d", offset(40))},
		{"data", func(b []byte) []byte { b[offset(7)+recordHeader+1] ^= 1; return b }, without(7), fmt.Sprintf("offset=%d", offset(7))},
		{"length", func(b []byte) []byte { b[offset(9)+4] ^= 0xff; return b }, without(9), fmt.Sprintf("offset=%d", offset(9))},
		{"marker of two in a row", func(b []byte) []byte { b[offset(3)] ^= 1; b[offset(4)] ^= 1; return b }, without(3, 4), fmt.Sprintf("offset=%d", offset(3))},
		{"the first and the last", func(b []byte) []byte {
			b[offset(0)+recordHeader] ^= 1
			b[offset(39)+recordHeader] ^= 1
			return b
		}, without(0, 39), fmt.Sprintf("offset=%d", fileHeader)},
		{"a hole", func(b []byte) []byte { clear(b[offset(10)+3 : offset(20)+3]); return b }, without(10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20), fmt.Sprintf("offset=%d", offset(10))},
		{"bytes put in between", func(b []byte) []byte { return slices.Insert(b, offset(5), []byte("some bytes\xe3\xa7")...) }, without(), fmt.Sprintf("offset=%d", offset(5))},
		{"everything", func(b []byte) []byte { clear(b); return b }, nil, fmt.Sprintf("offset=%d", fileHeader)},
		{"the file's header", func(b []byte) []byte { clear(b[:fileHeader]); return b }, without(), ""},
		{"empty file", func([]byte) []byte { return nil }, nil, ""},
	}
	for _, tt := range tests {
		for _, step := range []int{1, 3, 1000} {
			t.Run(fmt.Sprintf("%s, %d at a time", tt.name, step), func(t *testing.T) {
				var log bytes.Buffer
				opts := Options{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
				s := openAt(t, opts)
				fill(t, s, 0, all)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				path := s.path(1)
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, tt.change(b), 0o600); err != nil {
					t.Fatal(err)
				}
				s = openAt(t, opts)
				fill(t, s, 100, 110)
				got := drain(t, s, step)
				check(t, got, append(slices.Clone(tt.want), want(100, 110)...))
				if tt.warn != "" && (!strings.Contains(log.String(), tt.warn) || !strings.Contains(log.String(), path)) {
					t.Errorf("log %q does not name %s and %s", log.String(), path, tt.warn)
				}
			})
		}
	}
}

// TestLostPosition: without the position everything comes again; with one slot
// damaged, the other one counts.
func TestLostPosition(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(b []byte) []byte
		from   int
	}{
		"whole":            {func(b []byte) []byte { return b }, 6},
		"newer slot":       {func(b []byte) []byte { b[5] ^= 1; return b }, 5},
		"older slot":       {func(b []byte) []byte { b[slotSize+5] ^= 1; return b }, 6},
		"both":             {func(b []byte) []byte { clear(b); return b }, 0},
		"gone":             {func([]byte) []byte { return nil }, 0},
		"far behind":       {func([]byte) []byte { return position{generation: 9, segment: 1, offset: 1 << 40}.append(nil) }, 10},
		"a later segment":  {func([]byte) []byte { return position{generation: 9, segment: 5, offset: 99}.append(nil) }, 10},
		"within a record":  {func([]byte) []byte { return position{generation: 9, segment: 1, offset: fileHeader + 1}.append(nil) }, 1},
		"an absurd number": {func([]byte) []byte { return position{generation: 9, segment: 1<<64 - 1, offset: 16}.append(nil) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Dir: t.TempDir()}
			s := openAt(t, opts)
			fill(t, s, 0, 10)
			for range 6 {
				peek(t, s, 1, 1)
				if err := s.Ack(1); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(opts.Dir, "position")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, tt.change(b), 0o600); err != nil {
				t.Fatal(err)
			}
			s = openAt(t, opts)
			fill(t, s, 10, 12)
			check(t, drain(t, s, 3), append(want(tt.from, 10), want(10, 12)...))
		})
	}
}

// TestNothingAcknowledged: a stop before the first acknowledgement is ordinary and
// leaves nothing to say, a damaged position is.
func TestNothingAcknowledged(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		var log bytes.Buffer
		opts := Options{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
		s := openAt(t, opts)
		fill(t, s, 0, 3)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if damaged {
			if err := os.WriteFile(filepath.Join(opts.Dir, "position"), []byte("garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s = openAt(t, opts)
		check(t, drain(t, s, 3), want(0, 3))
		if warned := strings.Contains(log.String(), "position of the spool"); warned != damaged {
			t.Errorf("damaged %t: %s", damaged, log.String())
		}
	}
}

// TestLargeRecords: more than one read of the file per record.
func TestLargeRecords(t *testing.T) {
	s := openAt(t, Options{Dir: t.TempDir(), MaxBytes: 64 << 20})
	var want []string
	for n := range 6 {
		data := bytes.Repeat([]byte{byte('a' + n)}, 100_000*n+3)
		want = append(want, string(data))
		if err := s.Append(data); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for s.Len() > 0 {
		records := peek(t, s, 100, 1000)
		for _, r := range records {
			got = append(got, string(r))
		}
		if err := s.Ack(len(records)); err != nil {
			t.Fatal(err)
		}
	}
	check(t, got, want)
}

// TestConcurrent: one goroutine appends, one takes, the timer syncs.
func TestConcurrent(t *testing.T) {
	defer goleak.VerifyNone(t)
	const all = 3000
	s := openAt(t, Options{Dir: t.TempDir(), MaxBytes: 20000, SyncInterval: 1})
	var writer sync.WaitGroup
	room := make(chan struct{}, 1)
	writer.Go(func() {
		for n := range all {
			for {
				err := s.Append(record(n))
				if err == nil {
					break
				}
				if !errors.Is(err, ErrFull) {
					t.Error(err)
					return
				}
				<-room
			}
		}
	})
	var got []string
	for len(got) < all && !t.Failed() {
		records := peek(t, s, 17, 1000)
		for _, r := range records {
			got = append(got, string(r))
		}
		if err := s.Ack(len(records)); err != nil {
			t.Fatal(err)
		}
		select {
		case room <- struct{}{}:
		default:
		}
	}
	writer.Wait()
	check(t, got, want(0, all))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
