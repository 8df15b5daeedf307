package faults

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"external-server/internal/support/servertest"
)

var underClockFlag = flag.String("under-clock", "", "run the command that follows with a clock that the listener at this `socket` sets; used by the tests themselves")

// clock is the wall clock of one server process, for which a jump is meant, and of
// no other process on the machine: the kernel stops the server in each
// clock_gettime(CLOCK_REALTIME) and asks this process for the answer
// (seccomp_unotify(2)). The monotonic clock stays the kernel's, as it does when
// somebody sets the time of a real machine.
type clock struct {
	r       *rig
	socket  string
	listen  *net.UnixListener
	ahead   atomic.Int64 // nanoseconds
	answers sync.WaitGroup
}

// newClock returns a clock and the command prefix with which a server that asks
// (askingBuild) runs under it.
func newClock(r *rig) (c *clock, prefix []string) {
	r.Helper()
	if auditArch() == 0 {
		r.Skipf("the fault of the clock knows amd64 and arm64, not %s", runtime.GOARCH)
	}
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "clock-") // of a short name, as that of a socket has to be
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = os.RemoveAll(dir) })
	c = &clock{r: r, socket: filepath.Join(dir, "clock")}
	if c.listen, err = net.ListenUnix("unix", &net.UnixAddr{Name: c.socket, Net: "unix"}); err != nil {
		r.Fatal(err)
	}
	// The servers end first, and with them the questions.
	r.Cleanup(func() {
		_ = c.listen.Close()
		c.answers.Wait()
	})
	c.answers.Go(c.accept)
	return c, []string{self, "-under-clock=" + c.socket}
}

// accept takes the notification descriptors of the processes under the clock.
func (c *clock) accept() {
	for {
		conn, err := c.listen.AcceptUnix()
		if err != nil {
			return // closed
		}
		oob := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
		var messages []unix.SocketControlMessage
		if err == nil {
			messages, err = unix.ParseSocketControlMessage(oob[:n])
		}
		var fds []int
		if err == nil && len(messages) == 1 {
			fds, err = unix.ParseUnixRights(&messages[0])
		}
		_ = conn.Close()
		if err != nil || len(fds) != 1 {
			c.r.Errorf("a process under the clock sent no descriptor: %v", err)
			continue
		}
		c.answers.Go(func() { c.answer(fds[0]) })
	}
}

// notification and response are struct seccomp_notif and seccomp_notif_resp of
// linux/seccomp.h.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type response struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// answer tells the time until the last process that asks has ended.
func (c *clock) answer(fd int) {
	defer unix.Close(fd)
	for {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil || ready[0].Revents&unix.POLLIN == 0 {
			return // POLLHUP
		}
		var q notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&q))); errno != 0 {
			continue // a signal came first; the call is made again
		}
		a := response{id: q.id}
		if err := c.tell(&q); err != nil {
			a.errno = -int32(unix.EFAULT)
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&a)))
	}
}

// tell writes the time to where the call wants it.
func (c *clock) tell(q *notification) error {
	now := time.Now().Add(time.Duration(c.ahead.Load()))
	buf := make([]byte, 16) // struct timespec
	binary.NativeEndian.PutUint64(buf, uint64(now.Unix()))
	binary.NativeEndian.PutUint64(buf[8:], uint64(now.Nanosecond()))
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	_, err := unix.ProcessVMWritev(int(q.pid), local, []unix.RemoteIovec{{Base: uintptr(q.args[1]), Len: len(buf)}}, 0)
	return err
}

// jump makes the clock differ from the machine's by that much.
func (c *clock) jump(ahead time.Duration) { c.ahead.Store(int64(ahead)) }

// askingBuild returns a copy of a Go program that asks the kernel for the time. Go
// reads the clock by code that the kernel lends every process (vdso(7)), found by its
// name, and makes the system call where there is none of that name.
func askingBuild(r *rig, program string) string {
	r.Helper()
	const name, none = "__vdso_clock_gettime", "__none_clock_gettime"
	code := r.read(program)
	if !bytes.Contains(code, []byte(name)) {
		r.Fatalf("%s does not look for %s any more", program, name)
	}
	path := filepath.Join(r.dir, filepath.Base(program))
	servertest.WriteProgram(r, path, bytes.ReplaceAll(code, []byte(name), []byte(none)))
	return path
}

// runUnderClock is the other side: it becomes the command whose clock can be set.
func runUnderClock(socket string, command []string) error {
	runtime.LockOSThread() // the filter is the thread's, and what it becomes
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	// struct seccomp_data: number of the call, architecture, address, arguments.
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip}
	}
	filter := []unix.SockFilter{
		load(4), unless(auditArch(), 5),
		load(0), unless(unix.SYS_CLOCK_GETTIME, 3),
		load(16), unless(unix.CLOCK_REALTIME, 1), // both architectures are little-endian
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if _, _, err := conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil); err != nil {
		return err
	}
	return syscall.Exec(command[0], command, os.Environ()) //nolint:gosec // the tests' own command
}

func auditArch() uint32 {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64
	}
	return 0
}
