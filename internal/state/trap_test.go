package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"external-server/internal/journal"
	"external-server/internal/process"
	"external-server/internal/testlog"
	"external-server/internal/testwait"
)

// refused opens the directory and expects an error with these words.
func refused(t *testing.T, opts Options, target error, words ...string) {
	t.Helper()
	d, err := Open(t.Context(), opts)
	if err == nil {
		t.Fatal("opened", errors.Join(d.Close(false)))
	}
	if target != nil && !errors.Is(err, target) {
		t.Errorf("%v is not %v", err, target)
	}
	for _, w := range append(words, opts.Dir) {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// TestNoDirectory: a directory that cannot be used is told with its path and what
// to do.
func TestNoDirectory(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o770); err != nil {
		t.Fatal(err)
	}
	refused(t, Options{Dir: filepath.Join(base, "missing", "state")}, nil, filepath.Join(base, "missing")+" is missing: make it")
	refused(t, Options{Dir: file}, nil, "this is a file")
	refused(t, Options{Dir: filepath.Join(file, "state")}, nil, file+" is not a directory")
	refused(t, Options{Dir: open}, nil, "other users may write", "mode 0770", "chmod go-w "+open)
	refused(t, Options{Dir: filepath.Join(base, "x"), Shards: MaxShards + 1}, nil, "possible are 1 to 112")
	link := filepath.Join(base, "state")
	if err := os.Mkdir(link, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, filepath.Join(link, "lock")); err != nil {
		t.Fatal(err)
	}
	refused(t, Options{Dir: link}, syscall.ELOOP)
}

// TestUnwritable: an ordinary user is told which right is missing.
func TestUnwritable(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "state")
	if err := os.Mkdir(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(filepath.Dir(base), 0o755), os.Chmod(base, 0o555)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Chmod(base, 0o700); err != nil {
			t.Error(err)
		}
	}()
	if os.Geteuid() == 0 { // one thread becomes an ordinary user for the file system
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		theirs := filepath.Join(filepath.Dir(base), "theirs")
		if err := errors.Join(os.Mkdir(theirs, 0o700), os.Chown(theirs, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		refused(t, Options{Dir: theirs}, nil, "belongs to uid 65534", "chown 0 "+theirs)
		if _, err := unix.SetfsuidRetUid(65534); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := unix.SetfsuidRetUid(0); err != nil {
				t.Error(err)
			}
		}()
	}
	refused(t, Options{Dir: dir}, syscall.EACCES, "cannot write to it", "chown")
	refused(t, Options{Dir: filepath.Join(base, "new")}, syscall.EACCES, "cannot be made", "give this user")
}

// TestModes: other users cannot read what the directory holds.
func TestModes(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	put(t, openShard(t, d, 0), "one")
	err := filepath.WalkDir(opts.Dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNetworkFileSystems: where locks do not hold, the directory is refused.
func TestNetworkFileSystems(t *testing.T) {
	for kind, name := range map[int64]string{
		0x6969: "NFS", 0xFF534D42: "SMB", 0xFE534D42: "SMB", 0x65735546: "FUSE", 0x01021997: "9P", 0x00C36400: "Ceph",
	} {
		opts := newOptions(t)
		opts.fsType = func(string) (int64, error) { return kind, nil }
		refused(t, opts, ErrNetwork, "is on "+name, "on a disk of this machine")
	}
	for _, kind := range []int64{0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630} { // ext4, XFS, Btrfs, tmpfs, overlay
		if name, ok := networkType(kind); ok {
			t.Errorf("%x is taken for %s", kind, name)
		}
	}
}

// TestInUse: a second process waits, says for whom, and takes over when the first
// one is gone; when it may not wait any longer the error says so, too.
func TestInUse(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	s := openShard(t, d, 0)
	put(t, s, "one")
	s.Serving(true)
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan string, 10)
	opts.Waiting = func(holder string) { told <- holder }
	result := make(chan error)
	go func() {
		_, err := Open(ctx, opts)
		result <- err
	}()
	holder := <-told
	for _, w := range []string{fmt.Sprintf("process %d on ", os.Getpid()), "since ", "version 1.2.3"} {
		if !strings.Contains(holder, w) {
			t.Errorf("%q does not say %q", holder, w)
		}
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), holder) {
		t.Errorf("the end of waiting: %v", err)
	}
	opened := make(chan *Dir)
	go func() {
		d, err := Open(t.Context(), opts)
		if err != nil {
			t.Error(err)
		}
		opened <- d
	}()
	<-told
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	next := <-opened
	defer func() {
		if err := next.Close(false); err != nil {
			t.Error(err)
		}
	}()
	if down, known := next.Down(); !known || down > testwait.Patience || !next.Clean() {
		t.Errorf("down for %v, known %v, clean %v", down, known, next.Clean())
	}
	want(t, openShard(t, next, 0).Replayed(), "one")
	if len(told) > 0 {
		t.Errorf("told again: %s", <-told)
	}
}

// TestLockFileReplaced: removing the lock file does not let two processes in, nor make
// them wait for different files for ever.
func TestLockFileReplaced(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	if err := os.WriteFile(filepath.Join(opts.Dir, "lock"), []byte("{\"host\":\"\\u001b[31m\",\"pid\":1}"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	opts.Waiting = func(holder string) {
		if strings.Contains(holder, "\x1b") {
			t.Errorf("a line of the log has %q", holder)
		}
		cancel()
	}
	if _, err := Open(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
}

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

// TestMachineRestarted: after a restart of the machine no time is known, and what
// the kernel had not written is no damage (RES-20).
func TestMachineRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		opts := newOptions(t)
		opts.clock = m.clock()
		d := open(t, opts)
		s := openShard(t, d, 0)
		put(t, s, "one")
		put(t, s, "two")
		s.Serving(true)
		pass(2 * time.Second)
		opts = killed(t, opts)
		segment := filepath.Join(opts.Dir, "shards", "00", "0000000000000001.segment")
		if err := os.Truncate(segment, 64+24+4); err != nil {
			t.Fatal(err)
		}
		same := killed(t, opts)
		m.boot++
		m.start = m.start.Add(-time.Hour) // the clock is even later
		opts.clock = m.clock()
		d2 := open(t, opts)
		if down, known := d2.Down(); known {
			t.Errorf("down for %v is known", down)
		}
		s2 := openShard(t, d2, 0)
		want(t, s2.Replayed(), "one")
		if s2.Declined != nil {
			t.Error(s2.Declined)
		}
		// In the same boot a batch that is missing was taken away.
		s3 := openShard(t, open(t, same), 0)
		if !errors.Is(s3.Declined, journal.ErrDamaged) || !strings.Contains(s3.Declined.Error(), "although number 2") {
			t.Errorf("declined: %v", s3.Declined)
		}
		want(t, s3.Replayed())
		want(t, s3.Rest, "one")
		if _, known := s3.Down(); known {
			t.Error("a time is known for a shard that was declined")
		}
	})
}

// TestClockBackwards: a stamp of the future is not believed.
func TestClockBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		opts := newOptions(t)
		opts.clock = m.clock()
		d := open(t, opts)
		openShard(t, d, 0).Serving(true)
		pass(2 * time.Second)
		opts = killed(t, opts)
		m.start = m.start.Add(time.Minute)
		opts.clock = m.clock()
		if down, known := open(t, opts).Down(); known {
			t.Errorf("down for %v is known", down)
		}
	})
}

// TestStartsThatFail: processes that start and end without serving do not make an
// old session look young.
func TestStartsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		opts := newOptions(t)
		opts.clock = m.clock()
		d := open(t, opts)
		s := openShard(t, d, 0)
		s.Serving(true)
		pass(2 * time.Second)
		s.Serving(false) // as when the broker is away
		pass(5 * time.Second)
		for range 4 {
			opts = killed(t, opts)
			openShard(t, open(t, opts), 0)
			pass(5 * time.Second)
		}
		if down, known := open(t, killed(t, opts)).Down(); !known || down != 25*time.Second {
			t.Errorf("down for %v, known %v", down, known)
		}
	})
}

// TestPoison: two deaths soon after a resume set the journals aside; a life of 10 s
// or an orderly stop between them does not count (RES-17).
func TestPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		opts := newOptions(t)
		opts.clock, opts.Logger = newMachine().clock(), log.Logger()
		d := open(t, opts)
		put(t, openShard(t, d, 0), "one")
		resume := func(life time.Duration) *Dir {
			t.Helper()
			d := open(t, opts)
			if d.Poisoned() {
				t.Fatal("poisoned")
			}
			for range 2 { // counts once
				if err := d.Resuming(); err != nil {
					t.Fatal(err)
				}
			}
			pass(life)
			return d
		}
		opts = killed(t, opts)
		resume(9 * time.Second)
		opts = killed(t, opts)
		resume(11 * time.Second)
		opts = killed(t, opts)
		resume(9 * time.Second)
		opts = killed(t, opts)
		if err := resume(time.Second).Close(false); err != nil {
			t.Fatal(err)
		}
		resume(9 * time.Second)
		opts = killed(t, opts)
		resume(9 * time.Second)
		for n := 1; n <= 5; n++ {
			opts = killed(t, opts)
			d = open(t, opts)
			if !d.Poisoned() {
				t.Fatal("not poisoned")
			}
			if err := d.SetAside(); err != nil {
				t.Fatal(err)
			}
			if d.Poisoned() || !log.Has("level=ERROR", "died twice", fmt.Sprintf("poisoned-%d", n)) {
				t.Errorf("still poisoned, or not told: %s", &log)
			}
			s := openShard(t, d, 0)
			want(t, s.Replayed())
			if s.Declined != nil || d.SetAside() == nil {
				t.Errorf("declined %v; or set aside while open", s.Declined)
			}
			put(t, s, "again")
			for range 2 {
				opts = killed(t, opts)
				resume(time.Second)
			}
		}
		names, err := filepath.Glob(filepath.Join(opts.Dir, "poisoned-*"))
		if err != nil || len(names) != 3 || filepath.Base(names[0]) != "poisoned-3" {
			t.Errorf("kept are %v, %v", names, err)
		}
	})
}

// TestDamagedShard: the other shards do not notice.
func TestDamagedShard(t *testing.T) {
	var log testlog.Buffer
	opts := newOptions(t)
	opts.Logger = log.Logger()
	for n := 1; n <= 5; n++ {
		d := open(t, opts)
		s := openShard(t, d, 2)
		if n > 1 && (!errors.Is(s.Declined, journal.ErrDamaged) || !log.Has("level=WARN", "shard=2", "connect anew", fmt.Sprintf("damaged-%d", n-1))) {
			t.Errorf("declined %v: %s", s.Declined, &log)
		}
		other := openShard(t, d, 3)
		if other.Declined != nil {
			t.Error(other.Declined)
		}
		put(t, s, "one")
		put(t, s, "two")
		put(t, other, "three")
		if err := d.Close(false); err != nil {
			t.Fatal(err)
		}
		segment := filepath.Join(opts.Dir, "shards", "02", "0000000000000001.segment")
		b, err := os.ReadFile(segment)
		if err != nil {
			t.Fatal(err)
		}
		b[70] ^= 1
		if err := os.WriteFile(segment, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := filepath.Glob(filepath.Join(opts.Dir, "damaged-*")); err != nil || len(names) != 3 {
		t.Errorf("kept are %v, %v", names, err)
	}
}

// TestAlivePage: a page that is damaged, cut, missing or of another directory makes
// nothing be resumed.
func TestAlivePage(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	s := openShard(t, d, 0)
	put(t, s, "one")
	s.Serving(true)
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(opts.Dir, "alive"))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := decodePage(page)
	if err != nil {
		t.Fatal(err)
	}
	foreign.identity = "abcdefghijklmnop"
	flipped := append([]byte(nil), page...)
	flipped[600] ^= 4
	for name, b := range map[string][]byte{
		"flipped": flipped, "cut": page[:1000], "longer": append(page[:len(page):len(page)], 0),
		"foreign": foreign.encode(), "text": []byte(strings.Repeat("x", pageBytes)), "empty": {},
	} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			opts := killed(t, opts)
			opts.Logger = log.Logger()
			if err := os.WriteFile(filepath.Join(opts.Dir, "alive"), b, 0o600); err != nil {
				t.Fatal(err)
			}
			d := open(t, opts)
			s := openShard(t, d, 0)
			if _, known := d.Down(); known || !errors.Is(s.Declined, ErrUnfinished) || !log.Has("level=WARN") {
				t.Errorf("known %v, declined %v: %s", known, s.Declined, &log)
			}
			want(t, s.Replayed())
			want(t, s.Rest, "one")
		})
	}
}

// TestBrokenJournal: a journal that could not be written to its end is not resumed
// from, unless it has begun anew.
func TestBrokenJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// In a bubble the page is not written while it is copied.
		opts := newOptions(t)
		d := open(t, opts)
		var faults int
		s, err := d.OpenShard(1, ShardOptions{NewFold: newLines, SegmentBytes: 100, OnFault: func(error) { faults++ }})
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, "one")
		path := filepath.Join(opts.Dir, "shards", "01")
		if err := os.Rename(path, path+"x"); err != nil { // the next segment has no place
			t.Fatal(err)
		}
		s.Append([]byte(strings.Repeat("x", 100)))
		if err := s.Flush(); err == nil || faults != 1 {
			t.Fatalf("error %v, %d faults", err, faults)
		}
		if err := os.Rename(path+"x", path); err != nil {
			t.Fatal(err)
		}
		now := openShard(t, open(t, killed(t, opts)), 1)
		if !errors.Is(now.Declined, ErrUnfinished) {
			t.Errorf("declined: %v", now.Declined)
		}
		want(t, now.Replayed())
		s.Restart()
		put(t, s, "anew")
		if err := d.Close(false); err != nil {
			t.Fatal(err)
		}
		now = openShard(t, open(t, opts), 1)
		want(t, now.Replayed(), "anew")
		if now.Declined != nil {
			t.Error(now.Declined)
		}
	})
}

// TestDirectoryVanishes: one warning, and everything goes on.
func TestDirectoryVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		opts := newOptions(t)
		opts.Logger, opts.clock = log.Logger(), newMachine().clock()
		d, err := Open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		s := openShard(t, d, 0)
		put(t, s, "one")
		s.Serving(true)
		pass(2 * time.Second)
		if d.Trouble() != nil {
			t.Error(d.Trouble())
		}
		away := opts.Dir + "-away"
		if err := os.Rename(opts.Dir, away); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		put(t, s, "two")
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || d.Trouble() == nil || !log.Has("served on", opts.Dir) {
			t.Errorf("%d warnings, trouble %v: %s", n, d.Trouble(), &log)
		}
		if err := os.Rename(away, opts.Dir); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if d.Trouble() != nil || !log.Has("level=INFO", "can be used again") {
			t.Errorf("trouble %v: %s", d.Trouble(), &log)
		}
		if err := os.Truncate(filepath.Join(opts.Dir, "alive"), 0); err != nil { // would end a process that had mapped it
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if err := d.Close(false); err != nil {
			t.Fatal(err)
		}
		d2 := open(t, opts)
		if _, known := d2.Down(); !known || !d2.Clean() {
			t.Error("the page was not written again")
		}
	})
}

// TestFinal: after a final stop the next process begins clean, as the same one.
func TestFinal(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	for n := range 2 {
		s := openShard(t, d, n)
		put(t, s, "one")
		s.Serving(true)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	d2 := open(t, opts)
	openShard(t, d2, 1).Serving(true)
	if err := d2.Close(true); err != nil {
		t.Fatal(err)
	}
	d3 := open(t, opts)
	if _, known := d3.Down(); known || d3.Identity() != d.Identity() {
		t.Errorf("a time is known: %v; identity %s, before %s", known, d3.Identity(), d.Identity())
	}
	for n := range 2 {
		want(t, openShard(t, d3, n).Replayed())
	}
}

// TestReadOnlyAndFullDisk: a first start on a disk that takes nothing is an error
// that names the directory; on a disk that fills up the journal breaks, and the next
// process knows (RES-19).
func TestReadOnlyAndFullDisk(t *testing.T) {
	base := t.TempDir()
	if err := syscall.Mount("tmpfs", base, "tmpfs", 0, "size=256k"); err != nil {
		t.Logf("mounting is not possible here: %v; TestBrokenJournal takes the same path", err)
		return
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(base, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	opts := Options{Dir: filepath.Join(base, "state"), Shards: 4}
	d := open(t, opts)
	s := openShard(t, d, 0)
	put(t, s, "one")
	if err := os.WriteFile(filepath.Join(base, "other"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	s.Append(make([]byte, 8192))
	if err := s.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	d = open(t, opts) // the page has its place
	if s := openShard(t, d, 0); !errors.Is(s.Declined, ErrUnfinished) {
		t.Errorf("declined: %v", s.Declined)
	}
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	fresh := Options{Dir: filepath.Join(base, "fresh"), Shards: 4}
	refused(t, fresh, syscall.ENOSPC)
	if err := syscall.Mount("", base, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refused(t, opts, nil, "read-only")
	refused(t, Options{Dir: filepath.Join(base, "new"), Shards: 4}, syscall.EROFS, "cannot be made")
}

// TestHolderFile: what is in the lock file is bounded and cannot forge lines.
func TestHolderFile(t *testing.T) {
	h := holder{ID: process.ID{PID: 1, Started: 2}, Host: "a\nb" + strings.Repeat("x", 500), Since: time.Unix(0, 0).UTC(), Version: "\x1b[2J"}
	if s := h.String(); strings.ContainsAny(s, "\n\x1b") || len(s) > 300 {
		t.Errorf("%q", s)
	}
	if b, err := json.Marshal(h); err != nil || len(b) > 1000 {
		t.Error(err)
	}
}

// FuzzPage: whatever the page holds, the directory opens or says why not.
func FuzzPage(f *testing.F) {
	p := page{identity: "abcdefghijklmnop", poison: 1<<32 - 1}
	p.shards[0] = shardPage{served: -1, sequence: 1<<64 - 1, broken: true}
	f.Add(p.encode())
	f.Add([]byte(pageMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePage(b)
		if err != nil {
			return
		}
		for n := range MaxShards {
			if down, known := p.down(n, 1<<62, p.boot); known && down < 0 {
				t.Errorf("shard %d is down for %v", n, down)
			}
		}
		again, err := decodePage(p.encode())
		if err != nil || again != p {
			t.Errorf("%v, read again %v, %v", p, again, err)
		}
	})
}
