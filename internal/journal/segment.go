package journal

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// write appends one batch to the files; under io.
func (j *Journal) write(batch []byte) error {
	size := int64(len(batch) - fileHeader)
	begins := j.file == nil || j.current.size+size > j.opts.SegmentBytes
	if begins {
		size = int64(len(batch))
	}
	before := j.bytes.Load()
	if j.fresh {
		before = 0 // the others are removed when this one is written
	}
	if before+size > j.opts.MaxBytes {
		return fmt.Errorf("%w: %s needs more than %d bytes for what its cars' sessions and modules still need", ErrFull, j.opts.Dir, j.opts.MaxBytes)
	}
	sequence := j.sequence.Load() + 1
	out := batch[fileHeader:]
	if begins {
		if err := j.startSegment(batch, sequence); err != nil {
			return err
		}
		out = batch
	}
	putFrame(batch[fileHeader:], j.seed, sequence)
	_, err := j.file.Write(out)
	if err != nil && j.fresh && errors.Is(err, syscall.ENOSPC) {
		// The disk may be full of the files that this segment replaces.
		j.removeBelow(j.current.number, 0)
		if err = j.file.Truncate(0); err == nil {
			_, err = j.file.WriteAt(out, 0)
			if err == nil {
				_, err = j.file.Seek(0, 2)
			}
		}
	}
	if err == nil && j.opts.Sync {
		err = unix.Fdatasync(int(j.file.Fd()))
		if err == nil && begins {
			err = syncDir(j.opts.Dir)
		}
	}
	if err != nil {
		return fmt.Errorf("write the journal %s: %w", j.file.Name(), err)
	}
	j.current.size += size
	j.sequence.Store(sequence)
	j.bytes.Store(before + size)
	if j.opts.Written != nil {
		j.opts.Written()
	}
	if j.fresh {
		j.fresh, j.purge, j.base, j.sealed, j.snapshot = false, true, sequence, nil, part{}
		if j.opts.Mark != nil {
			j.opts.Mark(true)
		}
	}
	if begins {
		j.failed = false
		j.startWork()
	}
	return nil
}

// startSegment makes the next segment and puts its header in front of the batch.
func (j *Journal) startSegment(batch []byte, first uint64) error {
	if j.file != nil {
		j.closeFile()
		j.sealed = append(j.sealed, j.current)
	}
	if j.unread {
		if err := j.enter(); err != nil {
			return err
		}
	}
	number := j.last + 1
	if number >= maxNumber {
		return fmt.Errorf("write the journal: %s has a file with the highest number that there is: remove it", j.opts.Dir)
	}
	f, err := os.OpenFile(segmentPath(j.opts.Dir, number), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		j.unread = j.unread || errors.Is(err, os.ErrNotExist) // the directory is gone
		return fmt.Errorf("write the journal: %w", err)
	}
	h := header{
		version: Version, shard: uint32(j.opts.Shard), identity: j.opts.Identity,
		number: number, first: first, kind: kindSegment, fresh: j.fresh,
	}
	h.encode(batch)
	j.file, j.current, j.seed, j.last = f, part{number: number}, h.crc, number
	return nil
}

func (j *Journal) closeFile() {
	if j.file != nil {
		_ = j.file.Close() // its writes were checked
		j.file = nil
	}
}
