package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// scan reads the frames of one file.
type scan struct {
	f     *os.File
	path  string
	seed  uint32
	next  uint64 // the batch that comes next
	at    int64  // behind the last good frame
	ended bool   // by a frame without payload
	bad   string // what is wrong at the offset; empty: the file ends there
}

// run visits the payload of each frame up to the first bad one. The payload is
// only valid during the call. The error is one of reading, or of visit with its
// place.
func (s *scan) run(visit func(payload []byte) error) error {
	info, err := s.f.Stat()
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	size := info.Size()
	s.at = fileHeader
	in := bufio.NewReaderSize(io.NewSectionReader(s.f, s.at, size-s.at), 64<<10)
	var head [frameHeader]byte
	var payload []byte
	for s.at < size {
		if size-s.at < frameHeader {
			s.bad = "a batch is cut off"
			return nil
		}
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return s.failed(err)
		}
		f, ok := parseFrame(head[:], s.seed)
		switch {
		case !ok:
			s.bad = "there is no batch"
		case f.batch != s.next:
			s.bad = fmt.Sprintf("there is batch %d, number %d was expected", f.batch, s.next)
		case int64(f.length) > size-s.at-frameHeader:
			s.bad = "a batch is cut off"
		}
		if s.bad != "" {
			return nil
		}
		if cap(payload) < f.length {
			payload = make([]byte, f.length)
		}
		payload = payload[:f.length]
		if _, err := io.ReadFull(in, payload); err != nil {
			return s.failed(err)
		}
		if crc32.Checksum(payload, castagnoli) != f.crc {
			s.bad = "the checksum of a batch is wrong"
			return nil
		}
		if err := visit(payload); err != nil {
			return &DamageError{File: s.path, Offset: s.at, Reason: err.Error()}
		}
		s.at += frameHeader + int64(f.length)
		s.next++
		if s.ended = f.length == 0; s.ended {
			return nil
		}
	}
	return nil
}

// failed is an error of reading. A file that became shorter meanwhile is one, too.
func (s *scan) failed(err error) error {
	return fmt.Errorf("read %s at offset %d: %w", s.path, s.at, err)
}

// follows tells whether a frame begins behind the bad place. Its header is proof
// enough: its checksum holds what only this file has.
func (s *scan) follows() (bool, error) {
	const window = 256 << 10
	buf := make([]byte, window)
	for at := s.at + 1; ; at += window - frameHeader + 1 {
		n, err := s.f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, s.failed(err)
		}
		b := buf[:n]
		for len(b) >= frameHeader {
			i := bytes.Index(b, markerBytes)
			if i < 0 || len(b)-i < frameHeader {
				break
			}
			if f, ok := parseFrame(b[i:i+frameHeader], s.seed); ok && f.batch >= s.next {
				return true, nil
			}
			b = b[i+1:]
		}
		if n < window {
			return false, nil
		}
	}
}
