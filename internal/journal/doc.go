// Package journal keeps small records in order, in files that survive the end of
// the process. It knows bytes only: what they mean is the business of a Fold.
//
// # Use
//
// Append copies records into a batch in memory. Flush writes the batch with one
// write(2) as one frame: after a crash either all records of a batch are there or
// none. Open replays what is there into a Fold.
//
// # On disk
//
// A journal is a directory with segments (NNNNNNNNNNNNNNNN.segment, hexadecimal,
// ascending) and at most one snapshot that counts (NNNNNNNNNNNNNNNN.snapshot: the
// state after the segment of that number). Every process begins a segment of its
// own; nothing is appended to a file of an earlier process and nothing is cut away.
//
// A file begins with a header of 64 bytes: magic, format version, shard, identity
// of the state directory, number, number of its first batch, kind, flags, CRC32C.
// Magic, version and CRC stay where they are in all versions. Frames follow, each
// with a header of 24 bytes (marker, length, number of the batch, CRC32C of the
// payload, CRC32C of this header beginning with that of the file's header) and the
// payload: records, each with its length as uvarint. A snapshot ends with a frame
// without payload. Integers are little endian.
//
// # What is believed
//
// Batches are numbered without gaps. A segment ends at its first bad frame, which
// is what a crash leaves, if the next segment begins with the next batch, or if it
// is the last one and no frame follows. Anything else is ErrDamaged: what comes
// after the damage is not believed. Files of another shard or directory are
// ErrForeign, those of a newer format ErrNewer. Open changes none of them.
//
// # Promises
//
// Flush has returned nil: the batch is there after the process was killed. The
// machine's end may cost what the kernel has not written yet, unless Options.Sync
// is set. A journal that cannot be written is broken: it does nothing more, costs
// nothing and is not to be resumed from (Options.Mark), until Restart.
//
// One journal has one owner at a time; locking is the state directory's business.
package journal
