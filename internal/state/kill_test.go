package state

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/support/testwait"
)

// killDir tells the test binary that it is the process to be killed.
const killDir = "STATE_TEST_KILL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		fmt.Println("error:", serveForEver(dir))
		os.Exit(1)
	}
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
	time.Sleep(testwait.Patience) // or until it is killed
	return context.DeadlineExceeded
}

// TestKill: a process that serves is killed while another one waits. That one has
// the directory then, with what was flushed, and knows when the cars were served.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "serving\n" {
			t.Fatalf("the process says %q, %v", line, err)
		}
		d := open(t, Options{Dir: dir, Shards: 4, Waiting: func(holder string) {
			if !strings.Contains(holder, fmt.Sprintf("process %d on ", cmd.Process.Pid)) || !strings.Contains(holder, "version child") {
				t.Errorf("it waits for %s", holder)
			}
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}})
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the process ended with %v", err)
		}
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
