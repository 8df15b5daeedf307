package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/support/testchild"
)

func TestMain(m *testing.M) {
	testchild.Run(writeForEver)
	os.Exit(m.Run())
}

// writeForEver appends records and acknowledges every third, and tells on
// standard output after each step.
func writeForEver(dir string) error {
	s, err := Open(Options{Dir: dir, SegmentBytes: 3000, MaxBytes: 1 << 30})
	if err != nil {
		return err
	}
	acked := 0
	for n := 0; ; n++ {
		if err := s.Append(record(n)); err != nil {
			return err
		}
		fmt.Println("appended", n)
		if n%3 == 0 {
			if _, err := s.Peek(1, 1); err != nil {
				return err
			}
			fmt.Println("acking", acked) // said before, as it may be done or not
			if err := s.Ack(1); err != nil {
				return err
			}
			acked++
		}
	}
}

// TestKill kills a process while it writes: everything that it had confirmed is
// there afterwards, in order and once, and nothing that was acknowledged before.
func TestKill(t *testing.T) {
	for round := range 8 {
		dir := t.TempDir()
		child := testchild.Start(t, dir)
		appended, acking := -1, -1
		for {
			line, more := child.Line()
			if !more {
				break
			}
			word, rest, _ := strings.Cut(line, " ")
			n, err := strconv.Atoi(rest)
			if err != nil {
				t.Fatalf("the process says %q", line)
			}
			switch word {
			case "appended":
				appended = n
			case "acking":
				acking = n
			}
			if appended == 200+150*round {
				child.Kill()
			}
		}
		child.WaitKilled()
		s := openAt(t, Options{Dir: dir})
		got := drain(t, s, 50)
		if len(got) == 0 {
			t.Fatal("nothing is left")
		}
		var first int
		if _, err := fmt.Sscanf(got[0], "record %d", &first); err != nil {
			t.Fatal(err)
		}
		last := first + len(got) - 1
		if first != acking && first != acking+1 {
			t.Errorf("it begins with record %d; %d was being acknowledged", first, acking)
		}
		if last < appended || last > appended+1 {
			t.Errorf("it ends with record %d; %d was confirmed last", last, appended)
		}
		check(t, got, want(first, last+1))
	}
}

// TestFullDisk runs on a file system of 256 KiB: appending fails with the disk's
// error, what was confirmed stays readable, and there is room again after
// acknowledgements.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("mounting needs root; the same path is taken by TestFailingDisk")
		return
	}
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Logf("mounting is not possible here (%v); the same path is taken by TestFailingDisk", err)
		return
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	opts := Options{Dir: filepath.Join(dir, "spool"), SegmentBytes: 40000, MaxBytes: 10 << 20}
	s := openAt(t, opts)
	var got []string
	n, failures := 0, 0
	for range 5 {
		for {
			err := s.Append(record(n))
			if err == nil {
				n++
				continue
			}
			if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrFull) {
				t.Fatalf("record %d: %v", n, err)
			}
			failures++
			break
		}
		for range 20 {
			records := peek(t, s, 100, 1<<20)
			for _, r := range records {
				got = append(got, string(r))
			}
			if err := s.Ack(len(records)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if failures != 5 || n < 3000 {
		t.Errorf("%d failures, %d records", failures, n)
	}
	s = openAt(t, opts)
	check(t, append(got, drain(t, s, 100)...), want(0, n))
}

// TestFailingDisk: files that cannot be made or written are errors of that call
// alone.
func TestFailingDisk(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, Options{Dir: dir, SegmentBytes: 1000})
	fill(t, s, 0, 5)
	s.mu.Lock()
	next := s.path(s.last().number + 1)
	s.mu.Unlock()
	if err := os.Mkdir(next, 0o700); err != nil { // in the way of the next segment
		t.Fatal(err)
	}
	n := 5
	for ; s.Append(record(n)) == nil; n++ {
		if n > 1000 {
			t.Fatal("a directory was written like a file")
		}
	}
	if err := s.Append(record(n)); err == nil || !strings.Contains(err.Error(), next) {
		t.Errorf("the error does not name the file: %v", err)
	}
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	fill(t, s, n, n+50)
	check(t, drain(t, s, 9), want(0, n+50))
}
