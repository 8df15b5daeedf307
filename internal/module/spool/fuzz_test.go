package spool

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzOpen: whatever the files hold, the spool opens or says why not, never
// returns what was not in them, and works afterwards.
func FuzzOpen(f *testing.F) {
	whole := appendFileHeader(nil, 1)
	for n := range 5 {
		whole = appendRecord(whole, record(n))
	}
	at := position{generation: 1, segment: 1, offset: fileHeader}.append(nil)
	f.Add([]byte(nil), []byte(nil), []byte(nil))
	f.Add(whole, []byte(nil), at)
	f.Add(whole[:len(whole)-3], whole, at)
	f.Add(whole, whole[:20], position{generation: 2, segment: 1, offset: 60}.append(at))
	f.Add(append([]byte("garbage"), whole...), markerBytes, []byte("position"))
	f.Add(whole, whole, position{generation: 1, segment: 1<<64 - 1, offset: fileHeader}.append(nil))
	f.Fuzz(func(t *testing.T, first, second, position []byte) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{
			"0000000000000001.spool": first, "0000000000000002.spool": second, "position": position,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := openAt(t, Options{Dir: dir})
		fill(t, s, 0, 3)
		got := drain(t, s, 2)
		if n := len(got); n < 3 {
			t.Fatalf("%d records, three were appended", n)
		}
		check(t, got[len(got)-3:], want(0, 3))
		fill(t, s, 3, 5)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		check(t, drain(t, openAt(t, Options{Dir: dir}), 1), want(3, 5))
	})
}
