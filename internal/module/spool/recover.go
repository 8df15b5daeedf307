package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// recover reads the position and looks through the segments.
func (s *Spool) recover() error {
	known, fresh, err := s.readPosition()
	if err != nil {
		return err
	}
	numbers, err := s.list()
	if err != nil {
		return err
	}
	for len(numbers) > 0 && numbers[0] < s.at.segment { // acknowledged, the removal was interrupted
		if err := os.Remove(s.path(numbers[0])); err != nil {
			return fmt.Errorf("open the spool: %w", err)
		}
		numbers = numbers[1:]
	}
	// Nothing was acknowledged before the first segment's beginning: that is where
	// a spool without position starts.
	if begun := fresh && len(numbers) > 0 && numbers[0] == 1; !known && !begun && len(numbers) > 0 {
		s.log.Warn("the position of the spool is lost, its records are delivered from the beginning", "directory", s.opts.Dir)
	}
	for i, n := range numbers {
		if i == 0 && n != s.at.segment {
			s.at.segment, s.at.offset = n, fileHeader
		}
		if err := s.look(n, i == len(numbers)-1); err != nil {
			return err
		}
	}
	// What is behind the position in its own segment only counts if it is there.
	if len(s.segments) > 0 {
		s.at.offset = min(s.at.offset, s.segments[0].end)
	}
	return nil
}

// readPosition tells whether the position is known, and whether none was ever
// written.
func (s *Spool) readPosition() (known, fresh bool, err error) {
	b, err := io.ReadAll(io.NewSectionReader(s.lock, 0, 2*slotSize))
	if err != nil {
		return false, false, fmt.Errorf("read %s: %w", s.lock.Name(), err)
	}
	s.at = position{segment: 1, offset: fileHeader}
	for i := 0; i+slotSize <= len(b); i += slotSize {
		if p, ok := parsePosition(b[i:]); ok && (!known || p.generation > s.at.generation) {
			s.at, known = p, true
		}
	}
	fresh = !slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
	if len(b) < 2*slotSize { // now, so that a full disk never prevents an acknowledgement
		if _, err := s.lock.WriteAt(make([]byte, 2*slotSize-len(b)), int64(len(b))); err != nil {
			return false, false, fmt.Errorf("write %s: %w", s.lock.Name(), err)
		}
	}
	return known, fresh, nil
}

// list returns the numbers of the segments in ascending order.
func (s *Spool) list() ([]uint64, error) {
	entries, err := os.ReadDir(s.opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	var numbers []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".spool")
		if !ok || len(name) != 16 || !e.Type().IsRegular() {
			continue
		}
		if n, err := strconv.ParseUint(name, 16, 64); err == nil && n > 0 && n < maxNumber {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// readSegment reads a segment, and no more than one can have: what stands in its place may
// never end. length is that of the file.
func (s *Spool) readSegment(path string) (b []byte, length int64, err error) {
	f, err := openSegment(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	longest := max(s.opts.SegmentBytes, fileHeader+recordHeader+MaxRecord)
	b, err = readAt(f, 0, min(info.Size(), longest))
	return b, max(info.Size(), int64(len(b))), err
}

// openSegment opens a segment for reading. It does not wait for a writer, as opening a FIFO
// would.
func openSegment(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := regular(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// regular is an error unless the open file is a regular one.
func regular(f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Mode().IsRegular() {
		return err
	}
	return fmt.Errorf("%s is no regular file: move it away, the spool makes it anew", f.Name())
}

// look counts the records of one segment that were not acknowledged. What
// follows the last whole record of the last segment is cut away.
func (s *Spool) look(number uint64, last bool) error {
	path := s.path(number)
	b, length, err := s.readSegment(path)
	if err != nil {
		return fmt.Errorf("open the spool: %w", err)
	}
	from := int64(fileHeader)
	if number == s.at.segment {
		from = s.at.offset
	}
	if from > int64(len(b)) {
		from = int64(len(b))
	}
	end := from
	for off := from; off < int64(len(b)); {
		kind, size, _ := parseRecord(b[off:])
		switch {
		case kind == recordGood:
			s.count++
			off += int64(size)
			end = off
		case kind == recordBad:
			off += int64(size)
		default:
			off += int64(resync(b[off:]))
		}
	}
	if cut := length - end; cut > 0 && last {
		s.log.Warn("the end of the spool is cut off, as after a crash; what was not confirmed is dropped",
			"file", path, "offset", end, "bytes", cut)
		if err := os.Truncate(path, end); err != nil {
			return fmt.Errorf("open the spool: %w", err)
		}
	} else if !last {
		end = int64(len(b)) // damage in the middle is reported when it is passed
		if length > end {
			s.damage(path, end, "the file is longer than any that the spool writes, the rest is skipped", nil)
		}
	}
	if end < fileHeader { // not even a header: nothing may be appended behind it
		s.sealed = last
	}
	s.segments = append(s.segments, segment{number: number, end: end})
	s.bytes += end
	return nil
}
