package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleet-protocol/external-server/sdk/boundary"
)

// The reaper is a small process between the server and a module process, one for
// each module process. It is the child subreaper of everything that the module
// starts: a process whose parent has ended becomes a child of the reaper, also when
// it has left the process group and the session, as daemons do. So the reaper can
// end all of them, in whatever way the module process or the server has ended. The
// server cannot do that itself: it may be killed, and the processes that libraries
// start inside the server are none of its business.
const (
	// reaperCommand is the sub-command that is the reaper.
	reaperCommand = "module-reaper"
	// controlFD is the descriptor on which the reaper is told what to start.
	controlFD = boundary.FD + 1
	// sweepLimit is how long the reaper tries to end what a module has left behind.
	// Only what the kernel cannot end, or what belongs to another user, takes longer.
	sweepLimit = 3 * time.Second
)

// order is what the server tells the reaper to start. "true" after it means: end it
// now.
type order struct {
	Path string
	Args []string
	Env  []string
}

// report is what the reaper tells the server: first the number of the module
// process or why there is none, later how it ended.
type report struct {
	PID    int           `json:",omitempty"`
	Errno  syscall.Errno `json:",omitempty"`
	Status *uint32       `json:",omitempty"` // of wait4
}

// RunReaper is the process around one module process. It returns when the module
// process and all its descendants have ended.
func RunReaper() error {
	if os.Getenv(boundary.EnvFD) == "" {
		return errors.New("the server starts this itself; to try a module, run: external-server module check")
	}
	// The module's parent-death signal belongs to the thread that starts it.
	runtime.LockOSThread()
	parent := os.Getppid()
	syscall.CloseOnExec(controlFD)
	control := os.NewFile(controlFD, "control")
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the child subreaper: %w", err)
	}
	// Service managers send these to all processes of a service, while the server
	// still needs its modules to stop in order. Caught and not ignored, because what
	// is ignored stays so in the module.
	signal.Reset(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP) // the program around may exit with them
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)

	in, out := json.NewDecoder(control), json.NewEncoder(control)
	var o order
	if err := in.Decode(&o); err != nil {
		return fmt.Errorf("order of the server: %w", err)
	}
	pid, err := syscall.ForkExec(o.Path, o.Args, &syscall.ProcAttr{
		Env:   o.Env,
		Files: []uintptr{0, 1, 2, boundary.FD},
		// A group of its own: Ctrl-C in a terminal reaches the server alone, which
		// stops in order.
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	_ = syscall.Close(boundary.FD) // the module must be alone with it, so that its end is seen
	if err != nil {
		errno, ok := errors.AsType[syscall.Errno](err)
		if !ok {
			errno = syscall.EINVAL
		}
		return out.Encode(report{Errno: errno})
	}
	if err := out.Encode(report{PID: pid}); err != nil {
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
	m := &reaped{pid: pid}
	go func() { // until the process ends
		for range signals {
			if os.Getppid() != parent { // the parent-death signal, which may come several times
				m.endSoon()
			}
		}
	}()
	go func() {
		var now bool
		if in.Decode(&now) == nil && now {
			m.kill()
			return
		}
		m.endSoon() // the server is gone
	}()
	status := uint32(m.await())
	_ = out.Encode(report{Status: &status}) // without a reader when the server is gone
	if left := sweep(sweepLimit); len(left) > 0 {
		return fmt.Errorf("the module has left processes that cannot be ended: %v", left)
	}
	return nil
}

// reaped is the module process as the reaper sees it.
type reaped struct {
	pid int

	mu    sync.Mutex
	ended bool // the number may be another process's by now
}

// kill ends the module process and its group, which is most of what there is to end.
func (m *reaped) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		_ = unix.Kill(-m.pid, unix.SIGKILL)
		_ = unix.Kill(m.pid, unix.SIGKILL)
	}
}

// endSoon lets the module process end by itself, because its connection has ended
// with the server, and ends it when it does not.
func (m *reaped) endSoon() { time.AfterFunc(endGrace, m.kill) }

// await collects the processes that end, until the module process has.
func (m *reaped) await() unix.WaitStatus {
	for {
		// Not collected at once: the number must stay the module's until kill knows.
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			continue // interrupted: the module process is a child until it is collected here
		}
		m.mu.Lock()
		var status unix.WaitStatus
		pid, _ := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if pid == m.pid {
			m.ended = true
			m.mu.Unlock()
			return status
		}
		m.mu.Unlock()
	}
}

// sweep ends all children, and with each round those that have become children by
// it, until none is left. It returns those that did not end within the limit. Only
// children are signalled: their numbers stay theirs until they are collected here.
func sweep(limit time.Duration) []int {
	deadline := time.Now().Add(limit)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return nil
			}
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		children := childrenByThread()
		if children == nil {
			children = childrenByParent()
		}
		for _, pid := range children {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if time.Now().After(deadline) {
			return children
		}
		// Looked at again after a while, because the kernel signals the end of a child
		// and not that a process has become one, and its list may lack one that does so
		// while it is read.
		time.Sleep(pause)
	}
}

// childrenByThread asks the kernel for the children of this process; nil when the
// kernel is built without that.
func childrenByThread() []int {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	if len(lists) == 0 {
		return nil
	}
	children := []int{}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may be gone
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				children = append(children, pid)
			}
		}
	}
	return children
}

// childrenByParent looks at all processes of the machine.
func childrenByParent() []int {
	children := []int{}
	self := strconv.Itoa(os.Getpid())
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, _ := os.ReadFile(path)
		// The name between the parentheses may hold anything.
		_, after, _ := strings.Cut(string(text[max(strings.LastIndexByte(string(text), ')'), 0):]), " ")
		if fields := strings.Fields(after); len(fields) > 1 && fields[1] == self {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				children = append(children, pid)
			}
		}
	}
	return children
}
