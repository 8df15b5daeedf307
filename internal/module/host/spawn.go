package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleet-protocol/external-server/sdk/boundary"
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

// process is a started module process with its connection and its output, and the
// reaper around it.
type process struct {
	reaper         *exec.Cmd
	control        *os.File // to the reaper
	reports        *json.Decoder
	pid            int // of the module process
	conn           *boundary.Conn
	stdout, stderr *os.File // reading ends
}

// spawn starts the process with a socket as descriptor 3, /dev/null as standard
// input and pipes for its output. On error nothing is left behind.
func spawn(s *spawner, opts *Options) (_ *process, err error) {
	var ours, theirs []*os.File
	defer func() {
		if err != nil {
			closeAll(ours)
		}
	}()
	defer func() { closeAll(theirs) }()
	for _, name := range []string{"module", "control"} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("socket for the module process: %w", err)
		}
		// A module expects a socket that blocks.
		_ = unix.SetNonblock(pair[1], false)
		ours = append(ours, os.NewFile(uintptr(pair[0]), name))
		theirs = append(theirs, os.NewFile(uintptr(pair[1]), name))
	}
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("pipe for the output of the module process: %w", err)
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}

	cmd := exec.Command(opts.Command[0], opts.Command[1:]...)
	if cmd.Err != nil && !errors.Is(cmd.Err, exec.ErrDot) { // the operator wrote it: relative to the working directory
		return nil, startError(opts.Command[0], cmd.Err)
	}
	o := order{Path: cmd.Path, Args: cmd.Args, Env: append(opts.Env[:len(opts.Env):len(opts.Env)],
		boundary.EnvProtocol+"="+strconv.Itoa(boundary.Protocol), boundary.EnvFD+"="+strconv.Itoa(boundary.FD))}
	if opts.library {
		o.Args[0] = serverName
	}
	// Not os.Executable: after an upgrade that is another program.
	reaper := &exec.Cmd{Path: "/proc/self/exe", Args: []string{serverName, reaperCommand, opts.Name},
		Env: reaperEnvironment(), ExtraFiles: theirs[:2], Stdout: theirs[2], Stderr: theirs[3],
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}}
	if err := s.do(reaper.Start); err != nil {
		return nil, startError(opts.Command[0], err)
	}
	p := &process{reaper: reaper, control: ours[1], reports: json.NewDecoder(ours[1]), stdout: ours[2], stderr: ours[3]}
	closeAll(theirs[:2]) // so that a reaper that ends is seen
	if err := p.give(o, opts.StartTimeout); err != nil {
		p.killReaper()
		return nil, startError(opts.Command[0], err)
	}
	if p.conn, err = boundary.FromFile(ours[0]); err != nil {
		p.killReaper()
		return nil, err
	}
	return p, nil
}

// reaperEnvironment holds nothing that is meant for the module, such as LD_PRELOAD.
func reaperEnvironment() []string {
	env := []string{boundary.EnvFD + "=" + strconv.Itoa(boundary.FD)}
	if race, ok := os.LookupEnv("GORACE"); ok { // a build with the race detector waits for a second before it ends, unless told otherwise
		env = append(env, "GORACE="+race)
	}
	return env
}

// serverName is how processes that are this program are listed.
const serverName = "external-server"

// give hands the order to the reaper and waits until it is carried out.
func (p *process) give(o order, limit time.Duration) error {
	_ = p.control.SetDeadline(time.Now().Add(limit))
	var first report
	err := json.NewEncoder(p.control).Encode(o)
	if err == nil {
		err = p.reports.Decode(&first)
	}
	switch {
	case err != nil:
		return fmt.Errorf("the process that is to start it: %w", err)
	case first.Errno != 0:
		return first.Errno
	}
	p.pid = first.PID
	return p.control.SetDeadline(time.Time{})
}

// killReaper ends the reaper; the module process, if there is one, ends with it.
func (p *process) killReaper() {
	_ = p.reaper.Process.Kill()
	_ = p.reaper.Wait()
}

func startError(path string, err error) error {
	hint := ""
	switch {
	case filepath.Base(path) == hostProgram && errors.Is(err, os.ErrNotExist):
		hint = "; this server was built without cgo and cannot load module libraries itself: put " + hostProgram +
			" of the same release beside it, or use a server that was built with cgo"
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

// awaitEnd waits until the process has ended. The status is nil when the reaper
// ended without telling: it was killed, and the module process with it.
func (p *process) awaitEnd() *syscall.WaitStatus {
	var last report
	if err := p.reports.Decode(&last); err != nil || last.Status == nil {
		return nil
	}
	status := syscall.WaitStatus(*last.Status)
	return &status
}

// reap waits until everything that the process has started has ended, and the reaper
// with it. It returns the reaper's own status.
func (p *process) reap() syscall.WaitStatus {
	late := time.AfterFunc(2*sweepLimit, func() { _ = p.reaper.Process.Kill() })
	defer late.Stop()
	_ = p.reaper.Wait() // the state says it all
	_ = p.control.Close()
	status, _ := p.reaper.ProcessState.Sys().(syscall.WaitStatus)
	return status
}

// kill ends the process and everything that it has started. When the reaper cannot do
// it, because something has stopped it, both end a moment later.
func (p *process) kill() {
	_, _ = p.control.Write([]byte("true\n"))
	time.AfterFunc(killPatience, func() { _ = p.reaper.Process.Kill() }) // nothing, once it has ended
}

// killPatience is how long the reaper may take to kill the module process.
const killPatience = 2 * sweepLimit
