package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
)

// ErrFull: the journal needs more than Options.MaxBytes, or one batch more than
// Options.BatchBytes.
var ErrFull = errors.New("the journal is full")

// Fold makes a state of records. It is used by one goroutine at a time.
type Fold interface {
	// Apply takes one record, in order. The record is only valid during the call.
	// An error means that the record is unknown or broken; it is counted and the
	// next one follows.
	Apply(record []byte) error
	// Snapshot emits records that give the same state when they are applied to an
	// empty Fold. emit copies them.
	Snapshot(emit func(record []byte))
}

// Options of Open; zero values mean the defaults where there is one.
type Options struct {
	Dir      string // made when missing, with mode 0700; its parent must exist
	Shard    int    // stands in every file
	Identity string // of the state directory, at most IdentityBytes; stands in every file

	SegmentBytes int64 // where a segment ends, default 4 MiB
	MaxBytes     int64 // all files together, default 256 MiB
	BatchBytes   int   // what is appended between two Flush, default 32 MiB, at most 64 MiB
	Sync         bool  // Flush also waits for the medium

	// AtLeast is the number of a batch that is known to have been written
	// (Sequence). A journal that ends before it is ErrDamaged.
	AtLeast uint64

	// NewFold makes an empty Fold. It is called by Open and by the goroutine that
	// compacts.
	NewFold func() Fold

	// Mark notes, in a place other than these files, whether the journal may be
	// resumed from. It is called with false by the call that breaks the journal,
	// and with true after Restart when the first batch is written. Nil: not noted.
	Mark func(usable bool)
	// OnFault is told why the journal is broken, once each time, on the goroutine
	// that met the fault. It may call Restart, not Close. Nil: it is not told.
	OnFault func(error)

	// Written is called after each batch that was written, on the goroutine that wrote it. It must
	// not wait, nor use the journal. Nil: it is not called.
	Written func()

	// Turn is held while a journal is compacted, so that those who share it do it
	// one after the other. Nil: none.
	Turn sync.Locker

	Logger *slog.Logger // default: none
}

// Journal is an open journal. Its methods may be called from several goroutines.
type Journal struct {
	opts     Options
	log      *slog.Logger
	rejected int

	// What is appended: under mu, which is never held while the disk works.
	mu       sync.Mutex
	batch    []byte // room for both headers, then records
	spare    []byte
	overflow bool

	appended atomic.Uint64 // calls of Append that put something into a batch
	flushed  atomic.Uint64 // those whose batch is written or given up
	off      atomic.Bool   // broken or closed: Append and Flush do nothing
	closing  atomic.Bool   // compaction is to end early
	sequence atomic.Uint64 // the last batch written
	bytes    atomic.Int64
	epoch    atomic.Uint64 // number of Restarts; written under io and mu

	// The files: under io.
	io       sync.Mutex
	fold     Fold // until Replayed
	file     *os.File
	current  part   // the segment that file is
	seed     uint32 // of its frames
	last     uint64 // the highest number in use
	fresh    bool   // the next segment begins anew
	base     uint64 // the first batch, while there is no snapshot
	sealed   []part
	snapshot part
	purge    bool // there are files that do not count any more
	unread   bool // what is in the directory is not known, see Broken
	failed   bool // the last compaction; tried again with the next segment
	working  bool
	broken   error
	closed   bool
	work     sync.WaitGroup
}

// batchStart is where the records of a batch begin in its buffer.
const batchStart = fileHeader + frameHeader

// keepBuffer is the size from which a buffer is not used again, in bytes.
const keepBuffer = 1 << 20

// Open reads what is in the directory and opens the journal for appending. Errors
// name the file; ErrNewer, ErrForeign and ErrDamaged mean that what is there
// cannot be resumed from, and has been left as it is (see Salvage).
func Open(opts Options) (*Journal, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	if err := makeDir(opts.Dir); err != nil {
		return nil, err
	}
	r, err := replay(opts)
	if err != nil {
		return nil, err
	}
	if r.rejected > 0 {
		opts.Logger.Warn("records of the journal are not understood and are passed over",
			"directory", opts.Dir, "records", r.rejected, "error", r.reject)
	}
	j := &Journal{
		opts: opts, log: opts.Logger, rejected: r.rejected, fold: r.fold,
		batch: make([]byte, batchStart, 4096), spare: make([]byte, batchStart, 4096),
		last: r.last, base: r.base, sealed: r.segments, snapshot: r.snapshot, purge: r.stale,
	}
	j.sequence.Store(r.next - 1)
	j.bytes.Store(r.bytes)
	j.io.Lock()
	defer j.io.Unlock()
	j.startWork()
	return j, nil
}

// Salvage returns what the files of a journal that Open refuses held before the
// damage, and Open's error. It changes nothing. The state is an older one than
// the process had: it is no base to answer from.
func Salvage(opts Options) (Fold, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	r, err := replay(opts)
	return r.fold, err
}

func (opts Options) complete() (Options, error) {
	if opts.NewFold == nil || opts.Dir == "" || len(opts.Identity) > IdentityBytes || opts.Shard < 0 {
		return opts, fmt.Errorf("open a journal: a directory, a Fold, a shard and an identity of at most %d bytes are needed", IdentityBytes)
	}
	if opts.SegmentBytes <= 0 {
		opts.SegmentBytes = 4 << 20
	}
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = 256 << 20
	}
	if opts.BatchBytes <= 0 {
		opts.BatchBytes = 32 << 20
	}
	opts.BatchBytes = min(opts.BatchBytes, maxPayload)
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return opts, nil
}

// Replayed returns what Open has found, once; nil afterwards. The caller owns it.
func (j *Journal) Replayed() Fold {
	j.io.Lock()
	defer j.io.Unlock()
	fold := j.fold
	j.fold = nil
	return fold
}

// Rejected is how many records the Fold did not take when Open read them.
func (j *Journal) Rejected() int { return j.rejected }

// Sequence is the number of the last batch written. It survives the process and
// never becomes smaller.
func (j *Journal) Sequence() uint64 { return j.sequence.Load() }

// Bytes is the size of all files that count.
func (j *Journal) Bytes() int64 { return j.bytes.Load() }

// Err is why the journal is broken, nil when it is not.
func (j *Journal) Err() error {
	j.io.Lock()
	defer j.io.Unlock()
	return j.broken
}

// Append puts copies of the records into the batch of the next Flush. It does not
// touch the disk and never waits for it. What does not fit breaks the journal at
// the next Flush. When the journal is broken or closed it does nothing.
func (j *Journal) Append(records ...[]byte) {
	if len(records) == 0 || j.off.Load() {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.append(records)
}

// AppendAt is Append for records that build on those before: it appends nothing when the
// journal has begun anew since the epoch (Restart), and returns the epoch that it is in.
// The owner then appends its complete state at that one. The first epoch is 0. A journal
// that is broken or closed accepts the records and keeps none.
func (j *Journal) AppendAt(epoch uint64, records ...[]byte) (now uint64, ok bool) {
	if j.off.Load() {
		return epoch, true
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if now = j.epoch.Load(); now != epoch {
		return now, false
	}
	if len(records) > 0 {
		j.append(records)
	}
	return epoch, true
}

// append puts records into the batch; under mu.
func (j *Journal) append(records [][]byte) {
	for _, r := range records {
		if len(j.batch)-batchStart+len(r)+10 > j.opts.BatchBytes {
			j.overflow = true
			break
		}
		j.batch = appendRecord(j.batch, r)
	}
	j.appended.Add(1)
}

// Flush writes everything appended so far as one batch, and returns when it is
// written, also if another goroutine does it. With nothing to write it costs two
// atomic loads. The error is returned once, by the call that met it; the journal
// is broken then.
func (j *Journal) Flush() error {
	if j.flushed.Load() == j.appended.Load() {
		return nil
	}
	j.io.Lock()
	err := j.flush()
	j.io.Unlock()
	if err != nil && j.opts.OnFault != nil {
		j.opts.OnFault(err)
	}
	return err
}

// flush writes the batch; under io.
func (j *Journal) flush() error {
	j.mu.Lock()
	n := j.appended.Load()
	batch, overflow := j.batch, j.overflow
	j.batch, j.spare, j.overflow = j.spare, nil, false
	j.mu.Unlock()
	defer func() {
		if cap(batch) > keepBuffer {
			batch = make([]byte, batchStart, 4096)
		}
		j.spare = batch[:batchStart] // under io like this function
		j.flushed.Store(n)
	}()
	if j.off.Load() || len(batch) == batchStart && !overflow {
		return nil
	}
	if overflow {
		return j.breaks(fmt.Errorf("%w: more than %d bytes in %s wait to be written at once", ErrFull, j.opts.BatchBytes, j.opts.Dir))
	}
	if err := j.write(batch); err != nil {
		return j.breaks(err)
	}
	return nil
}

// breaks ends the use of the journal until Restart; under io. It returns the error.
func (j *Journal) breaks(err error) error {
	j.broken = err
	j.off.Store(true)
	j.closeFile()
	if j.opts.Mark != nil {
		j.opts.Mark(false)
	}
	return err
}

// Restart begins anew, whether the journal is broken or not: what was appended and
// not written is forgotten, and with the first batch that is written now all
// earlier ones cease to count. Until then they count as before. The owner appends
// its complete state next. On a disk that is full of those files their room is used. It
// comes a moment later when a compaction reads them, which ends early: the owner tries
// again. After Close it does nothing.
func (j *Journal) Restart() {
	j.io.Lock()
	defer j.io.Unlock()
	if j.closed {
		return
	}
	j.closeFile()
	j.mu.Lock()
	j.batch, j.overflow = j.batch[:batchStart], false
	j.flushed.Store(j.appended.Load())
	j.broken, j.fresh = nil, true
	j.epoch.Add(1)
	j.off.Store(false)
	j.mu.Unlock()
}

// Close writes what was appended, ends the compaction and closes the files. With
// remove it removes them instead. Append and Flush do nothing afterwards. Calls
// after the first return nil.
func (j *Journal) Close(remove bool) error {
	j.closing.Store(true)
	var err error
	if !remove {
		err = j.Flush()
	}
	j.io.Lock()
	again := j.closed
	j.closed = true
	j.off.Store(true)
	if !again && j.file != nil {
		err = errors.Join(err, j.file.Close())
		j.file = nil
	}
	j.io.Unlock()
	j.work.Wait()
	if again || !remove {
		return err
	}
	return errors.Join(err, Remove(j.opts.Dir))
}
