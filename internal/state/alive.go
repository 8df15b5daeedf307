package state

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pageMagic  = "FLALIVE1"
	pageBytes  = 4096
	pageShards = 512 // where the shards begin
	pageShard  = 32  // bytes per shard; MaxShards of them fit
	flagClean  = 1   // the process that wrote it stopped in order
	flagBroken = 1   // of a shard: its journal is not to be resumed from
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// page is the content of the file alive.
type page struct {
	clean    bool
	identity string
	boot     [16]byte // id of the machine's boot
	poison   uint32   // deaths soon after a resume
	early    uint32   // deaths at once after a resume
	shards   [MaxShards]shardPage
}

// shardPage is what the page says of one shard.
type shardPage struct {
	served   int64  // CLOCK_BOOTTIME in ns when the shard was last served; 0: never
	sequence uint64 // the last batch of its journal then
	broken   bool
}

func (p *page) encode() []byte {
	b := make([]byte, pageBytes)
	copy(b, pageMagic)
	if p.clean {
		binary.LittleEndian.PutUint32(b[12:], flagClean)
	}
	copy(b[16:32], p.identity)
	copy(b[32:48], p.boot[:])
	binary.LittleEndian.PutUint32(b[48:], p.poison)
	binary.LittleEndian.PutUint32(b[52:], p.early)
	for i, s := range p.shards {
		b := b[pageShards+i*pageShard:]
		binary.LittleEndian.PutUint64(b, uint64(s.served))
		binary.LittleEndian.PutUint64(b[8:], s.sequence)
		if s.broken {
			binary.LittleEndian.PutUint32(b[16:], flagBroken)
		}
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

func decodePage(b []byte) (page, error) {
	switch {
	case len(b) != pageBytes:
		return page{}, fmt.Errorf("it has %d bytes, expected %d", len(b), pageBytes)
	case string(b[:8]) != pageMagic:
		return page{}, errors.New("it does not begin as such a file does")
	case binary.LittleEndian.Uint32(b[8:]) != crc32.Checksum(b[12:], castagnoli):
		return page{}, errors.New("its checksum is wrong")
	}
	p := page{
		clean:    binary.LittleEndian.Uint32(b[12:])&flagClean != 0,
		identity: strings.TrimRight(string(b[16:32]), "\x00"),
		boot:     [16]byte(b[32:48]),
		poison:   binary.LittleEndian.Uint32(b[48:]),
		early:    binary.LittleEndian.Uint32(b[52:]),
	}
	for i := range p.shards {
		b := b[pageShards+i*pageShard:]
		p.shards[i] = shardPage{
			served:   int64(binary.LittleEndian.Uint64(b)),
			sequence: binary.LittleEndian.Uint64(b[8:]),
			broken:   binary.LittleEndian.Uint32(b[16:])&flagBroken != 0,
		}
	}
	return p, nil
}

// readPage reads the page. Not there is no error: fresh is true then.
func readPage(f *os.File) (p page, fresh bool, err error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, pageBytes+1))
	if err != nil {
		return p, false, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if len(b) == 0 {
		return p, true, nil
	}
	if p, err = decodePage(b); err != nil {
		return page{}, false, fmt.Errorf("%s is damaged: %w", f.Name(), err)
	}
	return p, false, nil
}

// clock is the time of the machine since its boot, sleep included.
type clock struct {
	now  func() (int64, error) // in ns
	boot func() ([16]byte, error)
}

func machineClock() clock { return clock{now: bootTime, boot: bootID} }

func bootTime() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return ts.Nano(), nil
}

func bootID() (id [16]byte, err error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("read the id of the machine's boot: %w", err)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(data)), "-", ""))
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("the id of the machine's boot is %q", printable(string(data)))
	}
	return [16]byte(b), nil
}

// down is how long ago the shard was served, as the page of the process before says.
func (p *page) down(shard int, now int64, boot [16]byte) (time.Duration, bool) {
	served := p.shards[shard].served
	if served <= 0 || p.boot != boot || boot == [16]byte{} || served > now {
		return 0, false
	}
	return time.Duration(now - served), true
}
