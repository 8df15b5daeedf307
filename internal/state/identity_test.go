package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"external-server/internal/journal"
	"external-server/internal/support/testlog"
)

// TestNewerFormat: a directory of a newer version is left as it is, and the newer
// version finds it so.
func TestNewerFormat(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	put(t, openShard(t, d, 0), "one")
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(opts.Dir, "identity.json")
	ours, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, `{"format":%d,"identity":{"of":"another kind"}}`, Format+1), 0o600); err != nil {
		t.Fatal(err)
	}
	before := content(t, opts.Dir)
	refused(t, opts, ErrNewer, path, "nothing is changed")
	if now := content(t, opts.Dir); now != before {
		t.Errorf("changed:\n%s\nbefore:\n%s", now, before)
	}
	if err := os.WriteFile(path, ours, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, openShard(t, open(t, opts), 0).Replayed(), "one")
}

// content is everything in a directory.
func content(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %q\n", path, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestIdentityFile: an identity that is damaged or for another number of shards is
// told with what to do.
func TestIdentityFile(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	if !validIdentity(d.Identity()) || d.Shards() != 4 {
		t.Errorf("identity %q, %d shards", d.Identity(), d.Shards())
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	other := opts
	other.Shards = 8
	refused(t, other, ErrShards, "made with 4, this server uses 8", "stop --final", "remove the directory")
	path := filepath.Join(opts.Dir, "identity.json")
	for _, text := range []string{"", "{", "[]", `{"format":0}`, `{"format":1,"identity":"../../../../../etc","shards":4}`, `{"format":1,"identity":"abcdefghijklmnop","shards":-1}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, opts, nil, path+" is damaged", "remove the directory")
	}
}

// TestLostDirectory: a directory that was removed comes back with another identity,
// and a journal of the old one in it is not taken.
func TestLostDirectory(t *testing.T) {
	var log testlog.Buffer
	opts := newOptions(t)
	opts.Logger = log.Logger()
	d := open(t, opts)
	put(t, openShard(t, d, 0), "one")
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(opts.Dir, "identity.json")); err != nil {
		t.Fatal(err)
	}
	d2 := open(t, opts)
	s := openShard(t, d2, 0)
	if d2.Identity() == d.Identity() || !errors.Is(s.Declined, journal.ErrForeign) && !errors.Is(s.Declined, ErrUnfinished) {
		t.Errorf("identity %s and %s, declined %v", d.Identity(), d2.Identity(), s.Declined)
	}
	if _, known := d2.Down(); known || !log.Has("level=WARN", "no session is resumed", d.Identity()) {
		t.Errorf("known %v: %s", known, &log)
	}
	want(t, s.Replayed())
}
