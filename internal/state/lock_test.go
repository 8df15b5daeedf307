package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/state/process"
	"external-server/internal/support/testwait"
)

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

// TestLockLeftBehind: a lock that only a process holds which the one that is gone has left
// behind, with all its files, does not keep the directory from the next one. A process that
// may live keeps it.
func TestLockLeftBehind(t *testing.T) {
	self, err := process.Self()
	if err != nil {
		t.Fatal(err)
	}
	gone := process.ID{PID: self.PID, Started: self.Started + 1} // another one had this number
	here, err := process.Here()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		holder holder
		free   bool
	}{
		"ended":                     {holder{ID: gone, Space: here}, true},
		"alive":                     {holder{ID: self, Space: here}, false},
		"of another container":      {holder{ID: gone, Space: process.Space{Boot: here.Boot, Processes: "pid:[1]"}}, false},
		"of another machine":        {holder{ID: gone, Space: process.Space{Boot: "x", Processes: here.Processes}}, false},
		"of an older version":       {holder{ID: gone}, false},
		"has not said its name yet": {holder{Space: here}, false},
	} {
		t.Run(name, func(t *testing.T) {
			opts := newOptions(t)
			d := open(t, opts)
			put(t, openShard(t, d, 0), "one")
			if err := d.Close(false); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(opts.Dir, "lock")
			text, err := json.Marshal(c.holder)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if ok, err := flock(f); err != nil || !ok {
				t.Fatal(ok, err)
			}
			left := exec.Command("sleep", "600") // has the lock as well, and is alone with it soon
			left.ExtraFiles = []*os.File{f}
			if err := left.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = left.Process.Kill(); _ = left.Wait() }()
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if _, _, err := Holder(opts.Dir); errors.Is(err, ErrFree) != c.free {
				t.Errorf("Holder: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			waited := false
			opts.Waiting = func(string) {
				waited = true
				cancel()
			}
			next, err := Open(ctx, opts)
			if waited == c.free || (err == nil) != c.free {
				t.Fatalf("waited %v, %v", waited, err)
			}
			if !c.free {
				return
			}
			want(t, openShard(t, next, 0).Replayed(), "one")
			if id, _, err := Holder(opts.Dir); err != nil || id != self {
				t.Errorf("now it is %+v's, %v", id, err)
			}
			if err := next.Close(false); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestLockFileIsTakenOnce: of many that try when the process that had the lock has ended, one
// gets it at a time.
func TestLockFileIsTakenOnce(t *testing.T) {
	dir := t.TempDir()
	self, err := process.Self()
	if err != nil {
		t.Fatal(err)
	}
	here, err := process.Here()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(holder{ID: process.ID{PID: self.PID, Started: self.Started + 1}, Space: here})
	if err != nil {
		t.Fatal(err)
	}
	var owners atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for taken := 0; taken < 20; {
				l, _, err := tryLock(dir)
				if err != nil {
					t.Error(err)
					return
				}
				if l == nil {
					runtime.Gosched()
					continue
				}
				if taken++; owners.Add(1) != 1 {
					t.Error("two have the lock")
				}
				// It ends, and leaves a process behind that has the lock.
				if _, err := l.file.WriteAt(text, 0); err != nil {
					t.Error(err)
				}
				owners.Add(-1)
				l.named()
				t.Cleanup(func() { _ = l.Close() })
			}
		})
	}
	all.Wait()
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
