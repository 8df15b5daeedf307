package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"external-server/internal/module/wire"
)

// spawner starts processes on one operating system thread that lives as long as
// the spawner. The kernel sends the parent-death signal when the *thread* that
// forked ends, and the Go runtime ends threads as it likes.
type spawner struct {
	work chan func()
	done sync.WaitGroup
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func())}
	s.done.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range s.work {
			f()
		}
	})
	return s
}

func (s *spawner) do(f func() error) error {
	result := make(chan error)
	s.work <- func() { result <- f() }
	return <-result
}

// close ends the thread; nothing it started may be running any more.
func (s *spawner) close() {
	close(s.work)
	s.done.Wait()
}

// process is a started process with its connection and its output.
type process struct {
	cmd            *exec.Cmd
	pid            int
	conn           *wire.Conn
	stdout, stderr *os.File // reading ends
}

// spawn starts the process with a socket as descriptor 3, /dev/null as standard
// input and pipes for its output. On error nothing is left behind.
func spawn(s *spawner, opts *Options) (_ *process, err error) {
	var ours []*os.File
	defer func() {
		if err != nil {
			closeAll(ours)
		}
	}()
	var theirs []*os.File
	defer func() { closeAll(theirs) }()

	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket for the module process: %w", err)
	}
	socket := os.NewFile(uintptr(pair[0]), "module")
	ours = append(ours, socket)
	theirs = append(theirs, os.NewFile(uintptr(pair[1]), "server"))
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("pipe for the output of the module process: %w", err)
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}

	cmd := exec.Command(opts.Command[0], opts.Command[1:]...)
	if errors.Is(cmd.Err, exec.ErrDot) {
		cmd.Err = nil // the operator wrote it: relative to the working directory
	}
	if opts.handlesOrphaning {
		cmd.Args[0] = "external-server"
	}
	cmd.Env = append(opts.Env[:len(opts.Env):len(opts.Env)],
		wire.EnvProtocol+"="+strconv.Itoa(wire.Protocol), wire.EnvFD+"="+strconv.Itoa(wire.FD))
	cmd.Stdout, cmd.Stderr = theirs[1], theirs[2]
	cmd.ExtraFiles = theirs[:1]
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// A group of its own: what the module forks can be ended with it, and
		// Ctrl-C in a terminal reaches the server alone, which stops in order.
		Setpgid:   true,
		Pdeathsig: syscall.SIGKILL,
	}
	if opts.handlesOrphaning {
		// The host ends its whole group then, which SIGKILL would prevent.
		cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	}
	if err := s.do(cmd.Start); err != nil {
		return nil, startError(opts.Command[0], err)
	}
	conn, err := wire.FromFile(socket)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	return &process{cmd: cmd, pid: cmd.Process.Pid, conn: conn, stdout: ours[1], stderr: ours[2]}, nil
}

func startError(path string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		hint = "; no such program: correct \"command\", a path is relative to the working directory, " +
			"a script needs its interpreter in the first line"
	case errors.Is(err, os.ErrPermission):
		hint = "; give it execute permission for the server's user"
	}
	return fmt.Errorf("module process %s cannot be started: %w%s", filepath.Clean(path), err, hint)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// awaitEnd waits until the process has ended; it stays a zombie, so that nobody
// else can have its number, until reap.
func (p *process) awaitEnd() {
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func (p *process) reap() *os.ProcessState {
	_ = p.cmd.Wait() // the state says it all
	return p.cmd.ProcessState
}

// kill ends the process and everything in its group. It must not be called after
// reap.
func (p *process) kill() { _ = unix.Kill(-p.pid, unix.SIGKILL) }
