package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Version is the format that this package writes, and the newest it reads.
const Version = 1

// IdentityBytes is the length of Options.Identity.
const IdentityBytes = 16

const (
	fileMagic   = "FLEETJNL"
	fileHeader  = 64
	frameMarker = 0x9E4A7CD1
	frameHeader = 24
	// maxPayload is the most one frame holds, in bytes.
	maxPayload = 64 << 20
	// snapshotPayload is where the frames of a snapshot are cut, in bytes.
	snapshotPayload = 256 << 10
)

const (
	kindSegment  = 1
	kindSnapshot = 2
	flagFresh    = 1 // nothing before this segment counts
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var markerBytes = binary.LittleEndian.AppendUint32(nil, frameMarker)

// header is the beginning of a file.
type header struct {
	version  uint32
	shard    uint32
	identity string
	number   uint64
	first    uint64 // of a segment: its first batch; of a snapshot: the first one it does not hold
	kind     uint32
	fresh    bool
	crc      uint32 // set by parseHeader and put
}

// encode writes the header to the first 64 bytes of b.
func (h *header) encode(b []byte) {
	copy(b, fileMagic)
	binary.LittleEndian.PutUint32(b[8:], h.version)
	binary.LittleEndian.PutUint32(b[12:], h.shard)
	clear(b[16:32])
	copy(b[16:32], h.identity)
	binary.LittleEndian.PutUint64(b[32:], h.number)
	binary.LittleEndian.PutUint64(b[40:], h.first)
	binary.LittleEndian.PutUint32(b[48:], h.kind)
	var flags uint32
	if h.fresh {
		flags = flagFresh
	}
	binary.LittleEndian.PutUint32(b[52:], flags)
	binary.LittleEndian.PutUint32(b[56:], 0)
	h.crc = crc32.Checksum(b[:60], castagnoli)
	binary.LittleEndian.PutUint32(b[60:], h.crc)
}

var (
	errNoMagic   = errors.New("this is no file of a journal")
	errHeaderCRC = errors.New("the checksum of its header is wrong")
)

// parseHeader reads the first 64 bytes of a file.
func parseHeader(b []byte) (header, error) {
	if string(b[:8]) != fileMagic {
		return header{}, errNoMagic
	}
	h := header{
		version:  binary.LittleEndian.Uint32(b[8:]),
		shard:    binary.LittleEndian.Uint32(b[12:]),
		identity: string(bytes.TrimRight(b[16:32], "\x00")),
		number:   binary.LittleEndian.Uint64(b[32:]),
		first:    binary.LittleEndian.Uint64(b[40:]),
		kind:     binary.LittleEndian.Uint32(b[48:]),
		fresh:    binary.LittleEndian.Uint32(b[52:])&flagFresh != 0,
		crc:      binary.LittleEndian.Uint32(b[60:]),
	}
	if h.crc != crc32.Checksum(b[:60], castagnoli) {
		return header{}, errHeaderCRC
	}
	return h, nil
}

// putFrame writes the header of a frame to the first 24 bytes of b; the payload
// is the rest of b.
func putFrame(b []byte, seed uint32, batch uint64) {
	payload := b[frameHeader:]
	binary.LittleEndian.PutUint32(b, frameMarker)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(b[8:], batch)
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(payload, castagnoli))
	binary.LittleEndian.PutUint32(b[20:], crc32.Update(seed, castagnoli, b[:20]))
}

// frame is what the header of a frame says.
type frame struct {
	length int
	batch  uint64
	crc    uint32 // of the payload
}

// parseFrame reads the 24 bytes of a frame's header.
func parseFrame(b []byte, seed uint32) (f frame, ok bool) {
	length := binary.LittleEndian.Uint32(b[4:])
	if binary.LittleEndian.Uint32(b) != frameMarker || length > maxPayload ||
		binary.LittleEndian.Uint32(b[20:]) != crc32.Update(seed, castagnoli, b[:20]) {
		return frame{}, false
	}
	return frame{
		length: int(length),
		batch:  binary.LittleEndian.Uint64(b[8:]),
		crc:    binary.LittleEndian.Uint32(b[16:]),
	}, true
}

func appendRecord(b, record []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(record)))
	return append(b, record...)
}

// records calls visit with each record of a payload. The slices belong to the
// payload.
func records(payload []byte, visit func(record []byte)) error {
	for len(payload) > 0 {
		length, n := binary.Uvarint(payload)
		if n <= 0 || length > uint64(len(payload)-n) {
			return fmt.Errorf("a record in it is longer than the batch")
		}
		payload = payload[n:]
		visit(payload[:length:length])
		payload = payload[length:]
	}
	return nil
}
