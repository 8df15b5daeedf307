package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Peek returns the oldest records that were not acknowledged, at most n and,
// beyond the first, at most size bytes; possibly fewer than there are, none only
// when there are none or with an error. The caller owns them. Damaged places are
// passed over with a warning. What cannot be read just now, as without a free file
// descriptor, is no damage: that is the error, and the next call tries again.
func (s *Spool) Peek(n int, size int64) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peeked = s.peeked[:0]
	for !s.closed && len(s.segments) > 0 {
		if s.at.offset < s.segments[0].end {
			records, err := s.peekSegment(n, size)
			if err != nil {
				return nil, fmt.Errorf("read the spool: %w", err)
			}
			if len(records) > 0 {
				return records, nil
			}
		}
		if len(s.segments) == 1 {
			break
		}
		s.next()
	}
	s.count = 0 // also when damage has made fewer of them
	return nil, nil
}

// peekSegment reads from the first segment. Without any whole record there it
// moves the position to the end.
func (s *Spool) peekSegment(n int, size int64) ([][]byte, error) {
	seg := &s.segments[0]
	path := s.path(seg.number)
	f, own, err := s.reader(seg)
	switch {
	case errors.Is(err, os.ErrNotExist):
		s.damage(path, s.at.offset, "it is gone and is skipped", err)
		s.at.offset = seg.end
		return nil, nil
	case err != nil:
		return nil, err
	}
	if own {
		defer func() { _ = f.Close() }() // only read
	}
	var records [][]byte
	bad := int64(-1) // where damage begins that has not been reported
	at := s.at.offset
	buf, err := readAt(f, at, min(seg.end-at, size+recordHeader)) // what is at the offset at
	for len(records) < n && at < seg.end {
		kind, length, data := parseRecord(buf)
		whole := max(int64(length), recordHeader)
		if kind == recordShort && at+whole <= seg.end { // the buffer ends here, the file does not
			if len(records) > 0 {
				break // left for the next call
			}
			var more []byte
			if more, err = readAt(f, at, min(seg.end-at, max(whole, size))); len(more) > len(buf) {
				buf = more
				continue
			}
		}
		if err != nil && (kind == recordNone || kind == recordShort) && len(records) == 0 {
			return nil, err // what is missing may be all right
		}
		skip := int64(length)
		switch {
		case kind == recordGood:
			if bad >= 0 {
				s.damage(path, bad, "a record is damaged and skipped", nil)
				bad = -1
			}
			records = append(records, data)
			s.peeked = append(s.peeked, at+skip)
		case bad < 0:
			bad = at
		}
		if kind == recordNone || kind == recordShort {
			skip = int64(resync(buf))
		}
		if len(buf) == 0 { // the file is shorter than it was
			break
		}
		at, buf = at+skip, buf[skip:]
	}
	if bad >= 0 && len(records) == 0 {
		s.damage(path, bad, "the rest of the file is damaged and skipped", nil)
		s.at.offset = seg.end
	}
	return records, nil
}

// readAt returns up to n bytes, fewer at the end of the file or with an error.
func readAt(f *os.File, at, n int64) ([]byte, error) {
	b := make([]byte, n)
	got, err := f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		err = nil // what is missing shows as damage
	}
	return b[:got], err
}

// reader returns a file to read the segment from, and whether it is to be closed.
func (s *Spool) reader(seg *segment) (f *os.File, own bool, err error) {
	if len(s.segments) == 1 && s.file != nil {
		return s.file, false, nil
	}
	f, err = openSegment(s.path(seg.number))
	return f, true, err
}

func (s *Spool) damage(path string, offset int64, text string, err error) {
	s.skipped++
	args := []any{"file", path, "offset", offset}
	if err != nil {
		args = append(args, "error", err)
	}
	s.log.Warn("spool: "+text, args...)
}

// Ack forgets the first n records of the last Peek. After an error they are
// forgotten all the same, but may come again after a restart.
func (s *Spool) Ack(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if n > len(s.peeked) {
		return fmt.Errorf("acknowledged %d of %d records", n, len(s.peeked))
	}
	if n == 0 {
		return nil
	}
	s.at.offset = s.peeked[n-1]
	s.peeked = append(s.peeked[:0], s.peeked[n:]...)
	s.count = max(0, s.count-n)
	seg := &s.segments[0]
	switch {
	case s.at.offset < seg.end:
	case len(s.segments) > 1:
		return s.drop(1)
	case seg.end >= min(drainedBytes, s.opts.SegmentBytes):
		s.count = 0
		return s.drop(1)
	}
	return s.savePosition()
}

// next leaves the first segment, of which nothing is left to read.
func (s *Spool) next() {
	if err := s.drop(1); err != nil {
		s.log.Warn("spool: a file that is done with cannot be removed", "error", err)
	}
}

// drop removes the first n segments; the position moves behind them first.
func (s *Spool) drop(n int) error {
	gone := s.segments[:n]
	s.at.segment, s.at.offset = gone[n-1].number+1, fileHeader
	err := s.savePosition()
	for _, seg := range gone {
		s.bytes -= seg.end
		if rerr := os.Remove(s.path(seg.number)); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("spool: %w", rerr))
		}
	}
	s.segments = append([]segment(nil), s.segments[n:]...)
	if len(s.segments) == 0 {
		s.closeFile()
		s.sealed = false
	}
	return err
}

// savePosition writes the slot that does not hold the current position.
func (s *Spool) savePosition() error {
	s.at.generation++
	s.moved = true
	var b [slotSize]byte
	s.at.append(b[:0])
	if _, err := s.lock.WriteAt(b[:], int64(s.at.generation%2)*slotSize); err != nil {
		return fmt.Errorf("write %s: %w", s.lock.Name(), err)
	}
	return nil
}

// changed arranges for a sync within the interval.
func (s *Spool) changed() {
	if s.dirty {
		return
	}
	s.dirty = true
	s.syncs.Add(1)
	if s.timer == nil {
		s.timer = time.AfterFunc(s.opts.SyncInterval, s.sync)
	} else {
		s.timer.Reset(s.opts.SyncInterval)
	}
}

// sync runs in the timer's goroutine. Writing goes on meanwhile. A drained
// spool does not keep its segment open: there may be many thousands of them.
func (s *Spool) sync() {
	defer s.syncs.Done()
	s.mu.Lock()
	s.dirty = false
	newFile := s.newFile
	s.newFile = false
	var f *os.File
	if last := s.last(); last != nil && s.file != nil {
		if s.count == 0 {
			s.closeFile()
		} else if dup, err := openSegment(s.path(last.number)); err == nil {
			f = dup
		}
	}
	s.mu.Unlock()
	if f != nil {
		s.syncFile(f)
		_ = f.Close() // only synced
	}
	if newFile {
		if d, err := os.Open(s.opts.Dir); err == nil {
			s.syncFile(d)
			_ = d.Close() // only synced
		}
	}
}

func (s *Spool) syncFile(f *os.File) {
	if err := f.Sync(); err != nil && s.syncErr.CompareAndSwap(false, true) {
		s.log.Warn("spool: what was written is not yet safe from a loss of power", "file", f.Name(), "error", err)
	}
}
