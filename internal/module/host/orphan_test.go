package host

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/testlog"
	"external-server/internal/testwait"
)

// group returns the processes of a process group.
func group(t *testing.T, pgid int) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var members []string
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		_, after, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(after) // state ppid pgrp
		if len(fields) > 2 && fields[2] == strconv.Itoa(pgid) && fields[0] != "Z" {
			members = append(members, string(text))
		}
	}
	return members
}

// TestNoOrphans kills a server so that it can do nothing about it, while its
// module is in various conditions.
func TestNoOrphans(t *testing.T) {
	for _, attack := range []string{"none", "forward_status:block", "forward_status:spin", "forward_status:forkblock", "forward_status:close",
		"forward_status:forkthenprint", "forward_status:forkthensegv", "forward_status:forkthenexit"} {
		t.Run(attack, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe", "test-child", "server", library(t), attack)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, _ := bufio.NewReader(out).ReadString('\n')
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatalf("the server said %q", line)
			}
			want := 1
			if strings.Contains(attack, ":fork") {
				want = 2
			}
			if !strings.HasSuffix(attack, "close") { // the server replaces that one
				testwait.Until(t, "the module process runs", func() bool { return len(group(t, pid)) == want })
			}
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			testwait.Until(t, "no process is left", func() bool { return len(group(t, pid)) == 0 })
		})
	}
}

// TestSignalsAreNotForTheHost: a service manager sends them to all processes, and
// the kernel sends the parent-death signal once for every thread of the server that
// the process is handed on to.
func TestSignalsAreNotForTheHost(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	car := openCar(t, m, spec("car", ""))
	for range 100 {
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			if err := syscall.Kill(m.State().PID, s); err != nil {
				t.Fatal(err)
			}
		}
		must(t, car.ForwardStatus(t.Context(), device("r"), nil))
	}
	if s := m.State(); s.Restarts != 0 {
		t.Errorf("the process was replaced: %s", s.LastExit)
	}
}

// TestThreadOfTheStarterEnds: the parent-death signal must not come when the
// thread that called Open ends.
func TestThreadOfTheStarterEnds(t *testing.T) {
	var log testlog.Buffer
	opened := make(chan *Module)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		opts := ForLibrary(library(t), Options{Expect: 66, Logger: log.Logger()})
		m, err := Open(context.Background(), opts)
		if err != nil {
			t.Error(err)
		}
		opened <- m
	}()
	m := <-opened
	if m == nil {
		return
	}
	defer m.Close()
	car := openCar(t, m, spec("car", ""))
	for range 20 {
		runtime.Gosched()
		if err := car.ForwardStatus(t.Context(), device("r"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if s := m.State(); s.Restarts != 0 {
		t.Errorf("the process was restarted: %s\n%s", s.LastExit, &log)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// children counts the processes whose parent we are, zombies included.
func children(t *testing.T) int {
	t.Helper()
	text, err := exec.Command("sh", "-c", "cat /proc/"+strconv.Itoa(os.Getpid())+"/task/*/children").Output()
	if err != nil {
		t.Fatal(err)
	}
	return len(strings.Fields(string(text))) - 1 // the shell
}

// TestThousandRestarts: nothing is left of them.
func TestThousandRestarts(t *testing.T) {
	tiny, err := buildC(t.TempDir(), "tiny.c")
	if err != nil {
		t.Fatal(err)
	}
	if n := children(t); n != 0 {
		t.Fatalf("%d children before the test", n)
	}
	before := descriptors(t)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	m, err := Open(t.Context(), Options{Command: []string{tiny, "1"}, Expect: 66, BackoffMin: time.Microsecond,
		BackoffMax: 2 * time.Microsecond, CallTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "1000 restarts", func() bool { return m.State().Restarts >= 1000 })
	if s := m.State(); s.LastExit != "exit code 7" {
		t.Errorf("last exit: %s", s.LastExit)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if n := children(t); n != 0 {
		t.Errorf("%d processes left", n)
	}
	if n := descriptors(t); n > before+2 { // the runtime's own poller may have come
		t.Errorf("%d descriptors, before %d", n, before)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) != 0 {
		t.Errorf("files left in %s: %v, %v", temporary, left, err)
	}
}
