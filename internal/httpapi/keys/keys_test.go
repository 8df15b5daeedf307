package keys

import (
	"errors"
	"external-server/internal/support/testlog"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "keys.json")
	now := time.Date(2025, 1, 2, 3, 4, 5, 6, time.UTC)
	if keys, err := Read(path); err != nil || len(keys) != 0 {
		t.Errorf("no file: %v %v", keys, err)
	}
	first, err := Add(path, "first", now)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Add(path, "second@example.com", now)
	if err != nil || first == second || len(first) < 43 {
		t.Fatalf("%q %q %v", first, second, err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), first) || strings.Contains(string(text), second) {
		t.Errorf("the file holds a key: %s %v", text, err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	keys, err := Read(path)
	if err != nil || len(keys) != 2 || keys[0].Name != "first" || !keys[0].Created.Equal(now.Truncate(time.Second)) {
		t.Errorf("%v %v", keys, err)
	}
	for _, name := range []string{"first", "", "a b", "a/b", strings.Repeat("x", 65), "ü"} {
		if _, err := Add(path, name, now); err == nil {
			t.Errorf("name %q was accepted", name)
		}
	}
	if err := Remove(path, "third"); err == nil || !strings.Contains(err.Error(), `no key named "third"`) {
		t.Errorf("remove: %v", err)
	}
	if err := Remove(path, "first"); err != nil {
		t.Error(err)
	}
	if keys, err := Read(path); err != nil || len(keys) != 1 || keys[0].Name != "second@example.com" {
		t.Errorf("%v %v", keys, err)
	}
	if files, _ := filepath.Glob(filepath.Dir(path) + "/.keys-*"); len(files) != 0 {
		t.Errorf("left over: %v", files)
	}
}

// TestKeysFileIsReadableForTheServer: adding keys as root leaves a file that
// the group of its folder can read, which is how the server reads its folder. A
// file that exists keeps owner, group and mode.
func TestKeysFileIsReadableForTheServer(t *testing.T) {
	if os.Geteuid() != 0 { // who cannot give files away keeps them
		path := filepath.Join(t.TempDir(), "keys.json")
		if _, err := Add(path, "first", time.Now()); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		return
	}
	const group = 4711
	dir := filepath.Join(t.TempDir(), "etc")
	if err := errors.Join(os.Mkdir(dir, 0o750), os.Chown(dir, 0, group)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "keys.json")
	expect := func(when string, uid, gid uint32, mode os.FileMode) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		owner := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm() != mode || owner.Uid != uid || owner.Gid != gid {
			t.Errorf("%s: %d:%d, mode %o; expected %d:%d, %o", when, owner.Uid, owner.Gid, info.Mode().Perm(), uid, gid, mode)
		}
	}
	if _, err := Add(path, "first", time.Now()); err != nil {
		t.Fatal(err)
	}
	expect("made", 0, group, 0o640)
	if err := errors.Join(os.Chown(path, 4712, 4713), os.Chmod(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Add(path, "second", time.Now()); err != nil {
		t.Fatal(err)
	}
	expect("rewritten", 4712, 4713, 0o600)
}

// TestKeysAddedAtTheSameTime: none is lost.
func TestKeysAddedAtTheSameTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := Add(path, fmt.Sprint("key", i), time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if keys, err := Read(path); err != nil || len(keys) != 20 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// TestRingFollowsItsFile: what is added and removed is taken over; a broken file leaves
// the keys as they were and is logged once.
func TestRingFollowsItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	log := &testlog.Buffer{}
	ring, err := NewRing(path, log.Logger())
	if err != nil {
		t.Fatal(err)
	}
	finds := func(key, want string) {
		t.Helper()
		ring.checked = time.Time{} // as if a second had passed
		if name, ok := ring.Find(key); name != want || ok != (want != "") {
			t.Errorf("found %q, want %q", name, want)
		}
	}
	finds("any", "")
	key, err := Add(path, "one", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	finds(key, "one")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	finds(key, "one")
	finds(key, "one")
	if n := log.Count("cannot be used"); n != 1 {
		t.Errorf("%d log lines about the broken file", n)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path, "one"); err != nil {
		t.Fatal(err)
	}
	finds(key, "")
}
