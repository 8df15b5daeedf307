package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/journal"
	"external-server/internal/support/testlog"
)

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

// TestPoison: deaths soon after a resume are counted, until a life of 10 s after Resumed or
// an orderly stop. Eight at once after one set the journals aside (RES-17).
func TestPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		opts := newOptions(t)
		opts.clock, opts.Logger = newMachine().clock(), log.Logger()
		d := open(t, opts)
		put(t, openShard(t, d, 0), "one")
		resume := func(deaths int, start, life time.Duration) *Dir {
			t.Helper()
			d := open(t, opts)
			if d.Poisoned() || d.Deaths() != deaths {
				t.Fatalf("%d deaths, expected %d; poisoned %v", d.Deaths(), deaths, d.Poisoned())
			}
			for range 2 { // counts once
				if err := d.Resuming(); err != nil {
					t.Fatal(err)
				}
			}
			pass(start)
			d.Resumed()
			pass(life)
			return d
		}
		opts = killed(t, opts)
		resume(0, 0, 9*time.Second)
		opts = killed(t, opts)
		resume(1, 0, 11*time.Second)
		opts = killed(t, opts)
		resume(0, time.Minute, 9*time.Second) // its modules needed long to begin
		opts = killed(t, opts)
		if err := resume(1, 0, time.Second).Close(false); err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 5; n++ {
			for deaths := range 8 {
				resume(deaths, 0, 3*time.Second)
				opts = killed(t, opts)
			}
			for deaths := range 8 {
				resume(8+deaths, 0, time.Second)
				opts = killed(t, opts)
			}
			d = open(t, opts)
			if !d.Poisoned() {
				t.Fatal("not poisoned")
			}
			to, err := d.SetAside()
			if err != nil || filepath.Base(to) != fmt.Sprintf("poisoned-%d", n) {
				t.Fatal(to, err)
			}
			if d.Poisoned() || !log.Has("level=ERROR", "died again and again", "deaths=8", fmt.Sprintf("poisoned-%d", n)) {
				t.Errorf("still poisoned, or not told: %s", &log)
			}
			s := openShard(t, d, 0)
			want(t, s.Replayed())
			if _, err := d.SetAside(); s.Declined != nil || err == nil {
				t.Errorf("declined %v; or set aside while open", s.Declined)
			}
			put(t, s, "again")
			opts = killed(t, opts)
		}
		names, err := filepath.Glob(filepath.Join(opts.Dir, "poisoned-*"))
		if err != nil || len(names) != 3 || filepath.Base(names[0]) != "poisoned-3" {
			t.Errorf("kept are %v, %v", names, err)
		}
	})
}

// TestOutlived: a process that has dealt with all that it has begun with was not ended by
// the journals, however soon it ends; what it begins to resume afterwards does not count.
func TestOutlived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := newOptions(t)
		opts.clock = newMachine().clock()
		d := open(t, opts)
		put(t, openShard(t, d, 0), "one")
		for n := range 3 * poisonDeaths {
			opts = killed(t, opts)
			d = open(t, opts)
			if d.Poisoned() || d.Deaths() != n {
				t.Fatalf("poisoned %v after %d deaths, %d are noted", d.Poisoned(), n, d.Deaths())
			}
			if err := d.Resuming(); err != nil {
				t.Fatal(err)
			}
			d.Resumed()
			d.Outlived()
			pass(10 * time.Millisecond)
		}
	})
}

// TestUnusedProcess: a process that ends in order before it has served a car does not make
// the end of the one before it an orderly one.
func TestUnusedProcess(t *testing.T) {
	opts := newOptions(t)
	d := open(t, opts)
	openShard(t, d, 0).Serving(true)
	opts = killed(t, opts)
	for range 2 {
		d = open(t, opts)
		if d.Clean() {
			t.Error("the killed process has stopped in order")
		}
		openShard(t, d, 0)
		if err := d.Close(false); err != nil {
			t.Fatal(err)
		}
	}
	d = open(t, opts)
	openShard(t, d, 0).Serving(true)
	if err := d.Close(false); err != nil {
		t.Fatal(err)
	}
	if !open(t, opts).Clean() {
		t.Error("the process that served has not stopped in order")
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
