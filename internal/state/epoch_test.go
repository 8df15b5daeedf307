package state

import (
	"os"
	"path/filepath"
	"testing"
)

// TestShardIsClosedAndOpenedAgain: a shard that is given away and taken back within one
// process keeps its journal, or begins empty when it was removed.
func TestShardIsClosedAndOpenedAgain(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	put(t, openShard(t, d, 1), "one")
	put(t, openShard(t, d, 2), "other")
	if err := d.CloseShard(1, false); err != nil {
		t.Fatal(err)
	}
	s := openShard(t, d, 1)
	want(t, s.Replayed(), "one")
	put(t, s, "two")
	if err := d.CloseShard(1, true); err != nil {
		t.Fatal(err)
	}
	s = openShard(t, d, 1)
	want(t, s.Replayed())
	if s.Declined != nil {
		t.Error(s.Declined)
	}
	put(t, s, "three")
	if err := d.CloseShard(3, true); err != nil { // never opened
		t.Error(err)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	d = open(t, opts)
	want(t, openShard(t, d, 1).Replayed(), "three")
	want(t, openShard(t, d, 2).Replayed(), "other")
}

// TestEpoch: the journal counts under the epoch that was noted last, and under the one
// before, which the broker knows until the new one is published.
func TestEpoch(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	if d.Under(1, 0) || d.Under(1, 7) {
		t.Error("a journal without note counts")
	}
	for _, e := range []int64{5, 7, 7, 9} {
		if err := d.SetEpoch(1, e); err != nil {
			t.Fatal(err)
		}
	}
	under := func(d *Dir, epoch int64, expected bool) {
		t.Helper()
		if d.Under(1, epoch) != expected {
			t.Errorf("under %d: %v", epoch, !expected)
		}
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	d = open(t, opts)
	under(d, 9, true)
	under(d, 7, true)
	under(d, 5, false)
	under(d, 11, false)
	if err := os.WriteFile(filepath.Join(opts.Dir, "shards", "01.epoch"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	under(d, 9, false)
	if err := d.SetEpoch(1, 13); err != nil {
		t.Fatal(err)
	}
	under(d, 13, true)
	if err := d.CloseShard(1, true); err != nil {
		t.Fatal(err)
	}
	under(d, 13, false)
	if err := d.SetEpoch(2, 4); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(true); err != nil {
		t.Fatal(err)
	}
	d = open(t, opts)
	if d.Under(2, 4) {
		t.Error("the epoch has outlived a final stop")
	}
}
