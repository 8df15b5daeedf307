package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// errEarly ends a compaction early.
var errEarly = errors.New("the journal is being closed or has begun anew")

// manySegments is the number of sealed segments that are worth a compaction
// whatever their size: a process that is restarted often makes many.
const manySegments = 8

// due tells whether the sealed segments should become a snapshot; under io. They
// weigh at least as much as the snapshot, so that a large state is not written
// again and again.
func (j *Journal) due() bool {
	if len(j.sealed) == 0 || j.failed || j.fresh {
		return false
	}
	var bytes int64
	for _, p := range j.sealed {
		bytes += p.size
	}
	return bytes >= max(j.opts.SegmentBytes/2, j.snapshot.size) ||
		len(j.sealed) >= manySegments && j.snapshot.size < j.opts.SegmentBytes ||
		j.bytes.Load() > j.opts.MaxBytes/2
}

// startWork starts the goroutine that compacts and removes, if there is something
// to do; under io. Close waits for it.
func (j *Journal) startWork() {
	if j.working || j.closed || j.off.Load() || !j.purge && !j.due() {
		return
	}
	j.working = true
	j.work.Go(j.compactAndPurge)
}

func (j *Journal) compactAndPurge() {
	if j.opts.Turn != nil {
		j.opts.Turn.Lock()
		defer j.opts.Turn.Unlock()
	}
	for j.step() {
	}
}

// step does one piece of work and tells whether there may be more.
func (j *Journal) step() bool {
	j.io.Lock()
	purge, due, epoch, base := j.purge && !j.fresh, j.due(), j.epoch.Load(), j.base
	if j.off.Load() || j.closing.Load() || !purge && !due {
		j.working = false
		j.io.Unlock()
		return false
	}
	segments, snapshot := j.sealed, j.snapshot // never changed in place
	from := j.current.number                   // the oldest segment that counts
	if len(segments) > 0 {
		from = segments[0].number
	} else if j.file == nil {
		from = j.last + 1
	}
	j.purge = j.purge && !purge
	j.io.Unlock()

	if purge {
		j.removeBelow(from, snapshot.number)
	}
	if !due {
		return true
	}
	made, err := j.compact(epoch, base, snapshot, segments)
	j.io.Lock()
	switch {
	case j.epoch.Load() != epoch: // the files do not count any more
		j.purge = true
	case err == nil:
		for _, p := range segments {
			j.bytes.Add(-p.size)
		}
		j.bytes.Add(made.size - snapshot.size)
		j.sealed = append([]part(nil), j.sealed[len(segments):]...)
		j.snapshot, j.purge = made, true
	case errors.Is(err, errEarly):
	case errors.Is(err, ErrDamaged):
		// What was written is not there: nothing must be resumed from it.
		err = j.breaks(err)
		j.io.Unlock()
		if j.opts.OnFault != nil {
			j.opts.OnFault(err)
		}
		return true
	default:
		j.failed = true
		j.log.Warn("the journal cannot be compacted, it grows until the next attempt", "directory", j.opts.Dir, "error", err)
	}
	j.io.Unlock()
	return true
}

// pointless tells whether a compaction should end early: because the journal is being
// closed, or because it has begun anew since the epoch, so that the files do not count
// any more and their room may be needed.
func (j *Journal) pointless(epoch uint64) bool { return j.closing.Load() || j.epoch.Load() != epoch }

// compact writes the snapshot that takes the place of an earlier one and of the
// sealed segments. Without an earlier one base is the first batch.
func (j *Journal) compact(epoch, base uint64, snapshot part, segments []part) (part, error) {
	r := found{next: base, fold: j.opts.NewFold(), snapshot: snapshot}
	if snapshot.number != 0 {
		if err := r.readSnapshot(j.opts); err != nil {
			return part{}, err
		}
	}
	for i := range segments {
		if j.pointless(epoch) {
			return part{}, errEarly
		}
		if err := r.readSegments(j.opts, segments[i:i+1]); err != nil {
			return part{}, err
		}
	}
	number := segments[len(segments)-1].number
	path := snapshotPath(j.opts.Dir, number)
	size, err := j.writeSnapshot(path+tmpSuffix, r.fold, epoch, number, r.next)
	if err == nil {
		err = os.Rename(path+tmpSuffix, path)
	}
	if err == nil {
		err = syncDir(j.opts.Dir)
	}
	if err != nil {
		_ = os.Remove(path + tmpSuffix) // what remains is removed by the next Open
		return part{}, err
	}
	return part{number, size}, nil
}

// writeSnapshot writes the state of the fold and waits until it is on the medium.
func (j *Journal) writeSnapshot(path string, fold Fold, epoch, number, next uint64) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := header{
		version: Version, shard: uint32(j.opts.Shard), identity: j.opts.Identity,
		number: number, first: next, kind: kindSnapshot,
	}
	head := make([]byte, fileHeader)
	h.encode(head)
	w := snapshotWriter{j: j, f: f, epoch: epoch, seed: h.crc, batch: 1, buf: make([]byte, frameHeader, snapshotPayload)}
	if _, err := f.Write(head); err != nil {
		return 0, err
	}
	w.size = fileHeader
	if err := w.emitAll(fold); err != nil {
		return 0, err
	}
	w.frame()                               // what is left
	w.frame()                               // the end
	if w.err == nil && j.pointless(epoch) { // the medium may take its time
		w.err = errEarly
	}
	if w.err != nil {
		return 0, w.err
	}
	return w.size, f.Sync()
}

// snapshotWriter cuts records into frames.
type snapshotWriter struct {
	j     *Journal
	f     *os.File
	epoch uint64
	seed  uint32
	batch uint64
	buf   []byte
	size  int64
	ended bool
	err   error
}

func (w *snapshotWriter) emitAll(fold Fold) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the state cannot be written: %v", p)
		}
	}()
	fold.Snapshot(w.emit)
	return nil
}

func (w *snapshotWriter) emit(record []byte) {
	if w.err != nil {
		return
	}
	if len(w.buf)+len(record) > snapshotPayload && len(w.buf) > frameHeader {
		w.frame()
	}
	w.buf = appendRecord(w.buf, record)
}

// frame writes what is collected; with nothing collected, the end of the snapshot.
func (w *snapshotWriter) frame() {
	if w.err != nil || w.ended {
		return
	}
	w.ended = len(w.buf) == frameHeader
	switch {
	case w.j.pointless(w.epoch):
		w.err = errEarly
	case len(w.buf)-frameHeader > maxPayload:
		w.err = fmt.Errorf("%w: a record has %d bytes", ErrFull, len(w.buf)-frameHeader)
	case w.size+int64(len(w.buf)) > w.j.opts.MaxBytes:
		w.err = fmt.Errorf("%w: the state needs more than %d bytes", ErrFull, w.j.opts.MaxBytes)
	default:
		putFrame(w.buf, w.seed, w.batch)
		_, w.err = w.f.Write(w.buf)
	}
	w.size += int64(len(w.buf))
	w.batch++
	w.buf = w.buf[:frameHeader]
}

// removeBelow removes segments below a number, snapshots other than the one that
// counts, and what interrupted compactions have left. What cannot be removed is
// tried again by the next Open.
func (j *Journal) removeBelow(segment, snapshot uint64) {
	l, err := list(j.opts.Dir)
	if err != nil {
		return
	}
	var errs []error
	for _, p := range l.segments {
		if p.number < segment {
			errs = append(errs, os.Remove(segmentPath(j.opts.Dir, p.number)))
		}
	}
	for _, p := range l.snapshots {
		if p.number != snapshot && p.number < segment {
			errs = append(errs, os.Remove(snapshotPath(j.opts.Dir, p.number)))
		}
	}
	for _, path := range l.tmp {
		errs = append(errs, os.Remove(path))
	}
	if err := errors.Join(errs...); err != nil {
		j.log.Warn("files of the journal that are not needed any more cannot be removed", "directory", j.opts.Dir, "error", err)
	}
}

// Remove removes the files of the journal in a directory, and the directory if
// nothing else is in it. A directory that is not there is no error, nor is something else
// in its place.
func Remove(dir string) error {
	l, err := list(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	errs := []error{err}
	for _, p := range l.segments {
		errs = append(errs, os.Remove(segmentPath(dir, p.number)))
	}
	for _, p := range l.snapshots {
		errs = append(errs, os.Remove(snapshotPath(dir, p.number)))
	}
	for _, path := range l.tmp {
		errs = append(errs, os.Remove(path))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the journal: %w", err)
	}
	if left, err := os.ReadDir(dir); err == nil && len(left) == 0 {
		if err := os.Remove(dir); err != nil {
			return fmt.Errorf("remove the journal: %w", err)
		}
	}
	return nil
}

// syncDir puts the names of files on the medium.
func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
