package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Errors a caller decides on.
var (
	// ErrFull: the record would exceed Options.MaxBytes. There is room again
	// after acknowledgements.
	ErrFull = errors.New("the spool is full")
	// ErrLocked: the spool is open already, here or in another process.
	ErrLocked = errors.New("the spool is in use")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("the spool is closed")
	// ErrTooLarge: the record would not even fit into an empty spool.
	ErrTooLarge = errors.New("the record is larger than the spool")
)

// Options of Open; zero values mean the defaults.
type Options struct {
	Dir          string        // made when missing, with mode 0700
	MaxBytes     int64         // all segments together, default DefaultMaxBytes
	SegmentBytes int64         // default an eighth of MaxBytes, at most 4 MiB
	SyncInterval time.Duration // default 1 s
	Logger       *slog.Logger  // default: none
}

// drainedBytes is the size from which a segment is removed as soon as all of it
// was acknowledged; below, removing and making files would cost more than it
// saves.
const drainedBytes = 64 << 10

// Spool is an open spool. Its methods may be called from several goroutines.
type Spool struct {
	opts Options
	log  *slog.Logger

	mu       sync.Mutex
	closed   bool
	lock     *os.File // the position file, locked
	at       position // first record that was not acknowledged
	segments []segment
	file     *os.File // the last segment, nil: not open
	sealed   bool     // nothing more may be appended to the last segment
	peeked   []int64  // ends of the records that Peek returned
	buf      []byte
	count    int    // records that were not acknowledged
	bytes    int64  // size of all segments
	skipped  uint64 // damaged places passed over
	dirty    bool   // something was written since the last sync
	newFile  bool   // a file was made since the last sync
	moved    bool   // the position was written since Open
	timer    *time.Timer
	syncs    sync.WaitGroup
	syncErr  atomic.Bool // logged already
}

// segment is one file.
type segment struct {
	number uint64
	end    int64 // behind the last whole record
}

// DefaultMaxBytes is how large a spool gets, in bytes, unless told.
const DefaultMaxBytes = 64 << 20

// Open opens or makes the spool and finds what was not acknowledged. Errors name
// the file; ErrLocked means that another process, or instance, has it.
func Open(opts Options) (_ *Spool, err error) {
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.SegmentBytes <= 0 {
		opts.SegmentBytes = min(opts.MaxBytes/8, 4<<20)
	}
	opts.SegmentBytes = max(opts.SegmentBytes, fileHeader+recordHeader)
	if opts.SyncInterval <= 0 {
		opts.SyncInterval = time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the spool: %w", err)
	}
	s := &Spool{opts: opts, log: opts.Logger}
	if s.lock, err = os.OpenFile(filepath.Join(opts.Dir, "position"), os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600); err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Close())
		}
	}()
	if err := regular(s.lock); err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", s.lock.Name(), err)
	}
	if err := s.recover(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Spool) path(number uint64) string {
	return filepath.Join(s.opts.Dir, fmt.Sprintf("%016x.spool", number))
}

// Append stores a copy of data. When it returns nil the record survives the end
// of the process. ErrFull means to try again after acknowledgements; other
// errors come from the disk, after which the next call may succeed again.
func (s *Spool) Append(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	size := int64(recordHeader + len(data))
	if len(data) > MaxRecord || size+fileHeader > s.opts.MaxBytes {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(data))
	}
	if s.count == 0 && s.bytes+size > s.opts.MaxBytes { // what is there is done with
		if err := s.drop(len(s.segments)); err != nil {
			return err
		}
	}
	last := s.last()
	fresh := last == nil || s.sealed || last.end > fileHeader && last.end+size > s.opts.SegmentBytes
	need := size
	if fresh {
		need += fileHeader
	}
	if s.bytes+need > s.opts.MaxBytes {
		return ErrFull
	}
	s.buf = s.buf[:0]
	if fresh {
		if err := s.newSegment(); err != nil {
			return err
		}
		last = s.last()
		s.buf = appendFileHeader(s.buf, last.number)
	} else if err := s.openLast(); err != nil {
		return err
	}
	s.buf = appendRecord(s.buf, data)
	_, err := s.file.WriteAt(s.buf, last.end)
	if cap(s.buf) > drainedBytes {
		s.buf = nil // one large record must not hold its memory
	}
	if err != nil {
		return s.undo(last, fresh, err)
	}
	last.end += need
	s.bytes += need
	s.count++
	s.changed()
	return nil
}

// undo removes what a failed write may have left, or gives the segment up.
func (s *Spool) undo(last *segment, fresh bool, err error) error {
	err = fmt.Errorf("write the spool: %w", err)
	if fresh {
		s.closeFile()
		s.segments = s.segments[:len(s.segments)-1]
		s.sealed = true // of the segment before, which stays as it is
		return errors.Join(err, os.Remove(s.path(last.number)))
	}
	if terr := s.file.Truncate(last.end); terr != nil {
		s.sealed = true
		return errors.Join(err, terr)
	}
	return err
}

func (s *Spool) last() *segment {
	if len(s.segments) == 0 {
		return nil
	}
	return &s.segments[len(s.segments)-1]
}

// newSegment makes the next file; its header is written with its first record.
func (s *Spool) newSegment() error {
	number := s.at.segment
	if last := s.last(); last != nil {
		number = last.number + 1
	}
	f, err := os.OpenFile(s.path(number), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write the spool: %w", err)
	}
	if s.file != nil && s.dirty {
		s.syncFile(s.file)
	}
	s.closeFile()
	s.file, s.newFile, s.sealed = f, true, false
	s.segments = append(s.segments, segment{number: number})
	if len(s.segments) == 1 {
		s.at.segment, s.at.offset = number, fileHeader
	}
	return nil
}

func (s *Spool) openLast() error {
	if s.file != nil {
		return nil
	}
	f, err := os.OpenFile(s.path(s.last().number), os.O_RDWR, 0)
	if err != nil {
		s.sealed = true // whatever happened to it, the next record goes elsewhere
		return fmt.Errorf("write the spool: %w", err)
	}
	s.file = f
	return nil
}

func (s *Spool) closeFile() {
	if s.file != nil {
		_ = s.file.Close() // written and synced with errors checked
		s.file = nil
	}
}

// Len is the number of records that were not acknowledged.
func (s *Spool) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Bytes is the size of all segments on disk.
func (s *Spool) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// Skipped is how many damaged places were passed over since Open.
func (s *Spool) Skipped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.skipped
}

// Close puts everything on the medium and releases the spool. Records that were
// not acknowledged stay for the next Open.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	if s.timer != nil && s.timer.Stop() {
		s.syncs.Done()
	}
	s.mu.Unlock()
	s.syncs.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.count == 0 && len(s.segments) > 0 {
		errs = append(errs, s.drop(len(s.segments)))
	} else if s.file != nil && s.dirty {
		if err := s.file.Sync(); err != nil {
			errs = append(errs, fmt.Errorf("sync the spool: %w", err))
		}
	}
	s.closeFile()
	if s.moved { // thousands of spools that did nothing cost the stop no time
		if err := s.lock.Sync(); err != nil {
			errs = append(errs, fmt.Errorf("sync the spool: %w", err))
		}
	}
	errs = append(errs, s.lock.Close()) // also releases the lock
	return errors.Join(errs...)
}
