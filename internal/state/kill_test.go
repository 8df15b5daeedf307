package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"external-server/internal/support/testchild"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) {
	testchild.Run(serveForEver)
	os.Exit(m.Run())
}

// serveForEver is a process that serves one shard until it is killed.
func serveForEver(dir string) error {
	d, err := Open(context.Background(), Options{Dir: dir, Shards: 4, Version: "child"})
	if err != nil {
		return err
	}
	s, err := d.OpenShard(3, ShardOptions{NewFold: newLines})
	if err != nil {
		return err
	}
	if err := d.Resuming(); err != nil {
		return err
	}
	d.Resumed()
	s.Serving(true)
	s.Append([]byte("from the child"))
	if err := s.Flush(); err != nil {
		return err
	}
	// The time is written by a goroutine.
	for deadline := time.Now().Add(testwait.Patience); ; {
		p, _, err := readPage(d.alive) // fails in the middle of a write
		if err == nil && p.shards[3].served > d.before.shards[3].served {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the time of service was not written: %w", err)
		}
		runtime.Gosched()
	}
	fmt.Println("serving")
	testchild.UntilKilled()
	return errors.New("the test has ended without killing this process")
}

// TestKill: a process that serves is killed while another one waits. That one has
// the directory then, with what was flushed, and knows when the cars were served.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	for round := range 3 {
		child := testchild.Start(t, dir)
		started := time.Now()
		if line, _ := child.Line(); line != "serving" {
			t.Fatalf("the process says %q", line)
		}
		d := open(t, Options{Dir: dir, Shards: 4, Waiting: func(holder string) {
			if !strings.Contains(holder, fmt.Sprintf("process %d on ", child.PID())) || !strings.Contains(holder, "version child") {
				t.Errorf("it waits for %s", holder)
			}
			child.Kill()
		}})
		child.WaitKilled()
		s := openShard(t, d, 3)
		down, known := s.Down()
		if !known || down <= 0 || down > time.Since(started) || d.Clean() || s.Declined != nil {
			t.Errorf("down for %v, known %v, clean %v, declined %v", down, known, d.Clean(), s.Declined)
		}
		if d.Poisoned() {
			t.Error("poisoned after a single death")
		}
		records := make([]string, round+1)
		for i := range records {
			records[i] = "from the child"
		}
		want(t, s.Replayed(), records...)
		if err := d.Close(false); err != nil {
			t.Fatal(err)
		}
	}
}
