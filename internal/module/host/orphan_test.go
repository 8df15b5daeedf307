package host

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
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

// startServer runs a server with one module in a process of its own and returns
// the number of the module process.
func startServer(t *testing.T, attack, gate string, module ...string) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{"test-child", "server", attack, gate}, module...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the server said %q", line)
	}
	return cmd, pid
}

// TestNoOrphans kills a server so that it can do nothing about it, while its
// module is in various conditions.
func TestNoOrphans(t *testing.T) {
	for _, attack := range []string{"none", "forward_status:block", "forward_status:spin", "forward_status:forkblock", "forward_status:close",
		"forward_status:forkthenprint", "forward_status:forkthensegv", "forward_status:forkthenexit"} {
		t.Run(attack, func(t *testing.T) {
			t.Parallel()
			cmd, pid := startServer(t, attack, "", library(t))
			want := 1
			if strings.Contains(attack, ":fork") {
				want = 2
			}
			if !strings.HasSuffix(attack, "close") { // the server replaces that one
				testwait.Until(t, "the module process runs", func() bool { return len(group(t, pid)) == want })
			}
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			testwait.Until(t, "no process is left", func() bool { return len(group(t, pid)) == 0 })
		})
	}
}

// numberIn waits for the file that a daemon writes its process number to.
func numberIn(t *testing.T, path string) int {
	t.Helper()
	var pid int
	testwait.Until(t, "the daemon says who it is", func() bool {
		text, _ := os.ReadFile(path)
		if !strings.HasSuffix(string(text), "\n") {
			return false
		}
		var err error
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	return pid
}

// daemon is a shell command that starts a process which leaves group, session and
// parent and writes its number to the file.
func daemon(file string) string {
	return "setsid sh -c 'setsid sleep 1000 & echo $! >" + file + "' & "
}

func gone(pid int) func() bool { return func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH } }

// TestNoDaemons kills a server whose module has started a daemon.
func TestNoDaemons(t *testing.T) {
	for _, attack := range []string{"daemon", "daemonblock", "command"} {
		t.Run(attack, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pid")
			module := []string{library(t)}
			if attack == "command" {
				module = []string{"sh", "-c", daemon(file) + "exec " + executable(t) + " test-child idle"}

			}
			cmd, pid := startServer(t, "forward_status:"+attack, file, module...)
			left := numberIn(t, file)
			if err := syscall.Kill(left, 0); err != nil {
				t.Fatalf("the daemon does not run: %v", err)
			}
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			testwait.Until(t, "the module process has ended", gone(pid))
			testwait.Until(t, "the daemon has ended", gone(left))
		})
	}
}

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	must(t, err)
	return path
}

// TestDaemonsEndWithTheProcess: they do when the server lives, too. When the next
// process has taken over, nothing of the one before is left.
func TestDaemonsEndWithTheProcess(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, m *Module){
		"replaced": replace,
		"closed":   func(t *testing.T, m *Module) { must(t, m.Close()) },
		"daemonsegv": func(t *testing.T, m *Module) {
			testwait.Until(t, "it is replaced", func() bool { return m.State().Restarts > 0 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log testlog.Buffer
			m := openModule(t, &log, nil)
			dir := t.TempDir()
			file := filepath.Join(dir, "pid")
			attack := "daemon"
			if name == "daemonsegv" {
				attack = name
			}
			car := openCar(t, m, spec("car", "", "gate="+file, "attack=forward_status:"+attack, "once="+filepath.Join(dir, "once")))
			must(t, car.ForwardStatus(t.Context(), device("r"), nil))
			left := numberIn(t, file)
			end(t, m)
			if !gone(left)() {
				t.Error("the daemon still runs")
			}
		})
	}
}

// TestReaperIsKilled: the module process ends with it and is replaced.
func TestReaperIsKilled(t *testing.T) {
	var log testlog.Buffer
	m := openModule(t, &log, nil)
	car := openCar(t, m, spec("car", ""))
	before := m.State().PID
	m.mu.Lock()
	reaper := m.current.reaper.Process
	m.mu.Unlock()
	must(t, reaper.Kill())
	testwait.Until(t, "it is replaced", func() bool { return m.State().Restarts == 1 && m.State().Ready })
	testwait.Until(t, "the module process has ended", gone(before))
	must(t, car.ForwardStatus(t.Context(), device("r"), nil))
}

// TestChildrenOfProcess: both ways find them.
func TestChildrenOfProcess(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	must(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if children := childrenByParent(); !slices.Contains(children, cmd.Process.Pid) {
		t.Errorf("%d is not among the children %v", cmd.Process.Pid, children)
	}
	if children := childrenByThread(); children != nil && !slices.Contains(children, cmd.Process.Pid) {
		t.Errorf("%d is not among the children %v, by thread", cmd.Process.Pid, children)
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
	text, err := exec.Command("sh", "-c", "cat /proc/"+strconv.Itoa(os.Getpid())+"/task/*/children 2>/dev/null; true").Output() // a thread may end meanwhile
	if err != nil {
		t.Fatal(err)
	}
	return len(strings.Fields(string(text))) - 1 // the shell
}

// TestManyRestarts: nothing is left of them.
func TestManyRestarts(t *testing.T) {
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
	testwait.Until(t, "20 restarts", func() bool { return m.State().Restarts >= 20 })
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
