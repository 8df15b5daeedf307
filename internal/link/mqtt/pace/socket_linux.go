package pace

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"external-server/internal/link/mqtt/direct"

	"golang.org/x/sys/unix"
)

// stillBytes is how much has to come for a still socket to wake anyone. It is less than the
// kernel keeps for a socket, so that a broker is never held up by it.
const stillBytes = 16 << 10

// socket is that of a reader that pauses. While it is kept still, it wakes no thread of the
// process for what comes.
type socket struct {
	*direct.Conn
	on bool // it is kept still
}

// newSocket returns nil for a connection without a socket of its own.
func newSocket(nc net.Conn) *socket {
	if c, ok := nc.(*direct.Conn); ok {
		return &socket{Conn: c}
	}
	return nil
}

func (s *socket) begin() {
	if !s.on {
		s.on = s.wakeAt(stillBytes) == nil
	}
}

// end lets any byte wake who waits for it.
func (s *socket) end() {
	if s.on && s.wakeAt(1) == nil {
		s.on = false
	}
}

// wakeAt sets how much has to come; a closed socket is no error, its reader meets that.
func (s *socket) wakeAt(bytes int) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes)
	}); err != nil {
		return nil
	}
	return failed
}

// read returns what has come. done is false when the caller has to wait for more by a read
// of the connection, which any byte wakes again.
func (s *socket) read(b []byte) (n int, err error, done bool) {
	if s == nil || !s.on {
		return 0, nil, false
	}
	n, err = s.TryRead(b)
	var errno syscall.Errno
	switch {
	case n > 0:
		return n, nil, true
	case err == nil, !errors.As(err, &errno): // ended or closed: the read of the connection says so
	case errno != unix.EAGAIN && errno != unix.EINTR: // the kernel tells it once
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", errno)}, true
	}
	s.end()
	if s.on {
		return 0, os.NewSyscallError("setsockopt", unix.EINVAL), true
	}
	return 0, nil, false
}

// threadSleep pauses the calling thread, which keeps its processor of the runtime. The runtime's own
// sleep would park the goroutine and, below a millisecond, return late.
func threadSleep(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil) // a signal ends it early, which does no harm
}
