package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Errors a caller decides on. Open has changed nothing when it returns one of them.
var (
	// ErrNewer: the files were written by a newer version of the program.
	ErrNewer = errors.New("written by a newer version")
	// ErrForeign: a file belongs to another shard or another state directory.
	ErrForeign = errors.New("the file belongs elsewhere")
	// ErrDamaged: a file is damaged or missing; the error is a *DamageError.
	ErrDamaged = errors.New("the journal is damaged")
)

// DamageError says where a journal is damaged. It is an ErrDamaged.
type DamageError struct {
	File   string // or the directory
	Offset int64  // in bytes
	Reason string
}

func (e *DamageError) Error() string {
	if e.Offset == 0 {
		return fmt.Sprintf("the journal is damaged: %s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("the journal is damaged: %s, offset %d: %s", e.File, e.Offset, e.Reason)
}

// Is makes it an ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

const (
	segmentSuffix  = ".segment"
	snapshotSuffix = ".snapshot"
	tmpSuffix      = ".tmp"
	maxNumber      = 1 << 62 // of files and batches; no journal ever gets there
)

// part is one file of a journal.
type part struct {
	number uint64
	size   int64
}

// found is what a directory holds.
type found struct {
	snapshot part   // number 0: none
	segments []part // those that count, ascending
	last     uint64 // the highest number of a file
	bytes    int64  // of snapshot and segments
	stale    bool   // there are files that do not count any more
	base     uint64 // the first batch, without a snapshot
	next     uint64 // the batch that comes next
	rejected int
	reject   error // the first reason
	fold     Fold
}

// listing is the files of a journal by kind, ascending.
type listing struct {
	segments, snapshots []part
	tmp                 []string
	last                uint64 // the highest number that a name has, whatever has that name
}

func list(dir string) (listing, error) {
	var l listing
	entries, err := os.ReadDir(dir)
	if err != nil {
		return l, err
	}
	for _, e := range entries {
		stem, kind, _ := strings.Cut(e.Name(), ".")
		kind = "." + kind
		n, err := strconv.ParseUint(stem, 16, 64)
		if err != nil || len(stem) != 16 || n == 0 || n >= maxNumber {
			continue
		}
		l.last = max(l.last, n)
		if !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return l, err
		}
		switch p := (part{n, info.Size()}); kind {
		case segmentSuffix:
			l.segments = append(l.segments, p)
		case snapshotSuffix:
			l.snapshots = append(l.snapshots, p)
		case snapshotSuffix + tmpSuffix:
			l.tmp = append(l.tmp, filepath.Join(dir, e.Name()))
		}
	}
	return l, nil // ReadDir sorts by name, and so by number
}

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x", number)+segmentSuffix)
}

func snapshotPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x", number)+snapshotSuffix)
}

// replay reads the files of a directory. With ErrDamaged found.fold has what comes
// before the damage.
func replay(opts Options) (found, error) {
	r := found{base: 1, next: 1, fold: opts.NewFold()}
	l, last, err := opts.listOwn()
	if err != nil {
		return r, err
	}
	r.last = last
	segments, err := countingSegments(opts, l, &r)
	if err != nil {
		return r, err
	}
	r.stale = len(l.tmp) > 0 || len(segments) < len(l.segments) ||
		len(l.snapshots) > 1 || len(l.snapshots) == 1 && r.snapshot.number == 0
	if r.snapshot.number != 0 {
		if err := r.readSnapshot(opts); err != nil {
			return r, err
		}
	}
	if err := r.readSegments(opts, segments); err != nil {
		return r, err
	}
	if r.next <= opts.AtLeast {
		return r, &DamageError{File: opts.Dir, Reason: fmt.Sprintf(
			"the last batch is number %d, although number %d had been written: files were cut, removed or replaced by older ones",
			r.next-1, opts.AtLeast)}
	}
	return r, nil
}

// listOwn lists the files of the journal, which all are ours to judge, and returns the
// highest number in use.
func (opts *Options) listOwn() (l listing, last uint64, err error) {
	if l, err = list(opts.Dir); err != nil {
		return l, 0, fmt.Errorf("read the journal: %w", err)
	}
	for i, parts := range [][]part{l.snapshots, l.segments} {
		for _, p := range parts {
			path := snapshotPath(opts.Dir, p.number)
			if i == 1 {
				path = segmentPath(opts.Dir, p.number)
			}
			if err := opts.owns(path, p.number); err != nil {
				return l, 0, err
			}
		}
	}
	return l, l.last, nil
}

// owns tells whether a file may be read by this version and for this shard. What
// is no header at all passes: that is for the replay to judge.
func (opts *Options) owns(path string, number uint64) error {
	f, err := openFile(path)
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	h, ok, err := readHeader(f, path)
	switch {
	case errors.Is(err, ErrDamaged) || err == nil && !ok:
		return nil
	case err != nil:
		return err
	case h.version > Version:
		return fmt.Errorf("%w: %s has format %d, this version reads up to %d", ErrNewer, path, h.version, Version)
	case h.identity != opts.Identity:
		return fmt.Errorf("%w: %s is of the state directory %q, this one is %q", ErrForeign, path, h.identity, opts.Identity)
	case int(h.shard) != opts.Shard:
		return fmt.Errorf("%w: %s is of shard %d, here is the place of shard %d", ErrForeign, path, h.shard, opts.Shard)
	case h.number != number:
		return fmt.Errorf("%w: %s is file number %d of its shard", ErrForeign, path, h.number)
	}
	return nil
}

// countingSegments returns the segments that count, and notes the snapshot that they follow.
func countingSegments(opts Options, l listing, r *found) ([]part, error) {
	if n := len(l.snapshots); n > 0 {
		r.snapshot = l.snapshots[n-1]
	}
	segments := l.segments
	for len(segments) > 0 && segments[0].number <= r.snapshot.number {
		segments = segments[1:]
	}
	for i, p := range slices.Backward(segments) {
		f, err := openFile(segmentPath(opts.Dir, p.number))
		if err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		h, ok, err := readHeader(f, f.Name())
		_ = f.Close() // only read
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		if err == nil && ok && h.fresh {
			r.snapshot = part{}
			r.base, r.next = max(h.first, 1), max(h.first, 1)
			return segments[i:], nil
		}
	}
	return segments, nil
}

// openFile opens a file of the journal for reading. It does not wait for a writer, as opening
// a FIFO would; what is no file fails when it is read.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// readHeader reads the header of a file. Not ok is a file that a crash has left
// before anything was in it.
func readHeader(f *os.File, path string) (h header, ok bool, err error) {
	var b [fileHeader]byte
	n, err := f.ReadAt(b[:], 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return h, false, fmt.Errorf("read the journal: %w", err)
	case n < fileHeader, b == [fileHeader]byte{}:
		return h, false, nil
	}
	if h, err = parseHeader(b[:]); err != nil {
		return h, false, &DamageError{File: path, Reason: err.Error()}
	}
	return h, true, nil
}

func (r *found) readSnapshot(opts Options) error {
	path := snapshotPath(opts.Dir, r.snapshot.number)
	f, err := openFile(path)
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	h, ok, err := readHeader(f, path)
	switch {
	case err != nil:
		return err
	case !ok || h.kind != kindSnapshot || h.first >= maxNumber:
		return &DamageError{File: path, Reason: "this is no snapshot"}
	}
	s := scan{f: f, path: path, seed: h.crc, next: 1}
	if err := s.run(r.apply); err != nil {
		return err
	}
	if !s.ended || s.at != r.snapshot.size {
		return &DamageError{File: path, Offset: s.at, Reason: "the snapshot is not complete"}
	}
	r.bytes += r.snapshot.size
	r.next = h.first
	return nil
}

func (r *found) readSegments(opts Options, segments []part) error {
	var open *DamageError // of the last segment: whether it is a crash's doing is not known yet
	for i, p := range segments {
		path := segmentPath(opts.Dir, p.number)
		f, err := openFile(path)
		if err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		h, ok, err := readHeader(f, path)
		if err == nil && ok {
			open, err = r.readSegment(f, path, h, open, i == len(segments)-1 || headless(opts.Dir, segments[i+1:]))
		}
		_ = f.Close() // only read
		if err != nil {
			return err
		}
		r.segments = append(r.segments, p)
		r.bytes += p.size
	}
	return nil
}

// headless tells whether all these segments end before their header does.
func headless(dir string, segments []part) bool {
	return !slices.ContainsFunc(segments, func(p part) bool {
		f, err := openFile(segmentPath(dir, p.number))
		if err != nil {
			return true // reading it fails, too, and is reported
		}
		defer func() { _ = f.Close() }() // only read
		_, ok, err := readHeader(f, f.Name())
		return ok || err != nil
	})
}

// readSegment reads one segment; before is where the one before it ended badly.
func (r *found) readSegment(f *os.File, path string, h header, before *DamageError, last bool) (open *DamageError, err error) {
	switch {
	case h.kind != kindSegment:
		return nil, &DamageError{File: path, Reason: "this is no segment"}
	case h.first >= maxNumber:
		return nil, &DamageError{File: path, Reason: "the number of its first batch is too large"}
	case h.first != r.next && before != nil:
		return nil, before
	case h.first != r.next:
		return nil, &DamageError{File: path, Reason: fmt.Sprintf(
			"it begins with batch %d, number %d was expected: what lies between is missing", h.first, r.next)}
	}
	s := scan{f: f, path: path, seed: h.crc, next: r.next}
	if err := s.run(r.apply); err != nil {
		return nil, err
	}
	r.next = s.next
	if s.ended {
		s.bad = "there is a batch without records"
	}
	if s.bad == "" {
		return nil, nil
	}
	damage := &DamageError{File: path, Offset: s.at, Reason: s.bad}
	if !last {
		return damage, nil
	}
	follows, err := s.follows()
	if err != nil {
		return nil, err
	}
	if follows {
		damage.Reason += "; others follow"
		return nil, damage
	}
	return nil, nil
}

// apply gives the records of one batch to the fold.
func (r *found) apply(payload []byte) error {
	return records(payload, func(record []byte) {
		if err := apply(r.fold, record); err != nil {
			r.rejected++
			if r.reject == nil {
				r.reject = err
			}
		}
	})
}

func apply(fold Fold, record []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the record cannot be applied: %v", p)
		}
	}()
	return fold.Apply(record)
}
