package spool

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

const (
	marker       = 0x51F0A7E3
	recordHeader = 16
	fileMagic    = "FLSPOOL1"
	fileHeader   = 16 // magic and the segment's number
	// MaxRecord is the most data one record takes, in bytes.
	MaxRecord = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var markerBytes = binary.LittleEndian.AppendUint32(nil, marker)

func appendFileHeader(b []byte, number uint64) []byte {
	b = append(b, fileMagic...)
	return binary.LittleEndian.AppendUint64(b, number)
}

func appendRecord(b, data []byte) []byte {
	start := len(b)
	b = append(b, markerBytes...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(data, castagnoli))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	return append(b, data...)
}

// parsed tells what is at the beginning of a buffer.
type parsed int

const (
	recordGood  parsed = iota // a record; size and data are set
	recordBad                 // a header whose data is damaged; size is set
	recordShort               // the beginning of something that is cut off; size is set if known
	recordNone                // no header
)

// parseRecord looks at one record. It does not copy.
func parseRecord(b []byte) (kind parsed, size int, data []byte) {
	if len(b) < recordHeader {
		if bytes.HasPrefix(b, markerBytes) || bytes.HasPrefix(markerBytes, b) {
			return recordShort, 0, nil
		}
		return recordNone, 0, nil
	}
	header := b[:recordHeader]
	length := binary.LittleEndian.Uint32(header[4:])
	switch {
	case binary.LittleEndian.Uint32(header) != marker,
		binary.LittleEndian.Uint32(header[12:]) != crc32.Checksum(header[:12], castagnoli),
		length > MaxRecord:
		return recordNone, 0, nil
	}
	size = recordHeader + int(length)
	if len(b) < size {
		return recordShort, size, nil
	}
	data = b[recordHeader:size]
	if crc32.Checksum(data, castagnoli) != binary.LittleEndian.Uint32(header[8:]) {
		return recordBad, size, nil
	}
	return recordGood, size, data
}

// resync returns the offset, at least 1, of the next marker in b or of the
// beginning of one at the end of b, or len(b).
func resync(b []byte) int {
	if len(b) < 2 {
		return len(b)
	}
	if i := bytes.Index(b[1:], markerBytes); i >= 0 {
		return i + 1
	}
	for n := min(len(markerBytes), len(b)) - 1; n > 0; n-- {
		if bytes.HasSuffix(b, markerBytes[:n]) {
			return len(b) - n
		}
	}
	return len(b)
}

const (
	slotSize  = 32
	maxNumber = 1 << 62 // of segments; no spool ever gets there
)

// position is the first record that was not acknowledged.
type position struct {
	generation uint64 // the higher one of two slots counts
	segment    uint64
	offset     int64
}

func (p position) append(b []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, marker)
	b = binary.LittleEndian.AppendUint64(b, p.generation)
	b = binary.LittleEndian.AppendUint64(b, p.segment)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.offset))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

func parsePosition(b []byte) (p position, ok bool) {
	if len(b) < slotSize || binary.LittleEndian.Uint32(b) != marker ||
		binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli) {
		return position{}, false
	}
	p.generation = binary.LittleEndian.Uint64(b[4:])
	p.segment = binary.LittleEndian.Uint64(b[12:])
	p.offset = int64(binary.LittleEndian.Uint64(b[20:]))
	return p, p.offset >= fileHeader && p.segment > 0 && p.segment < maxNumber
}
