package journal

import (
	"errors"
	"testing"
)

// FuzzReplay: whatever the files hold, Open refuses them with a reason or goes on
// behind them, and what it writes is read by the next one.
func FuzzReplay(f *testing.F) {
	files := written(f, options(f.TempDir()), 8)
	f.Add(files[snapshotFile], files[sealedFile], files[lastFile], uint64(0))
	f.Add(files[snapshotFile], files[sealedFile], files[lastFile][:len(files[lastFile])-5], uint64(8))
	f.Add([]byte(nil), []byte(nil), []byte(nil), uint64(1))
	f.Add([]byte(nil), files[sealedFile], files[lastFile][:40], uint64(0))
	fresh := header{version: Version, shard: 7, identity: testIdentity, number: 3, first: 1<<64 - 1, kind: kindSegment, fresh: true}
	b := append([]byte(nil), files[lastFile]...)
	fresh.encode(b)
	f.Add(files[snapshotFile], files[sealedFile], b, uint64(0))
	f.Add([]byte("garbage"), append(append([]byte(nil), b...), markerBytes...), b[:fileHeader], uint64(0))
	f.Fuzz(func(t *testing.T, snapshot, sealed, last []byte, atLeast uint64) {
		opts := lay(t, map[string][]byte{snapshotFile: snapshot, sealedFile: sealed, lastFile: last})
		opts.AtLeast = atLeast
		j, err := Open(opts)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) && !errors.Is(err, ErrForeign) {
				t.Fatal(err)
			}
			return
		}
		before := j.Replayed().(table)
		put(t, j, "fuzz=1")
		closeJournal(t, j)
		before["fuzz"] = "1"
		want(t, replayed(t, opts), before)
	})
}

// FuzzFrames: frames whose checksums are right, in a file of this journal, with
// any payload, number and order.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x03a=1\x01b"), uint64(1), []byte("\x03c=2"), uint64(2))
	f.Add([]byte(""), uint64(1), []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a"), uint64(1))
	f.Add([]byte("\x05a=1"), uint64(1<<63), []byte("\x00"), uint64(1<<64-1))
	f.Fuzz(func(t *testing.T, first []byte, firstBatch uint64, second []byte, secondBatch uint64) {
		h := header{version: Version, shard: 7, identity: testIdentity, number: 1, first: 1, kind: kindSegment}
		b := make([]byte, fileHeader)
		h.encode(b)
		for _, one := range []struct {
			payload []byte
			batch   uint64
		}{{first, firstBatch}, {second, secondBatch}} {
			at := len(b)
			b = append(append(b, make([]byte, frameHeader)...), one.payload...)
			putFrame(b[at:], h.crc, one.batch)
		}
		opts := lay(t, map[string][]byte{"0000000000000001.segment": b})
		j, err := Open(opts)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		before := j.Replayed().(table)
		put(t, j, "fuzz=1")
		closeJournal(t, j)
		before["fuzz"] = "1"
		want(t, replayed(t, opts), before)
	})
}
