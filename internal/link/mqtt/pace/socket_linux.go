package pace

import (
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stillBytes is how much has to come for a still socket to wake anyone. It is less than the
// kernel keeps for a socket, so that a broker is never held up by it.
const stillBytes = 16 << 10

// socket is that of a reader that pauses. While it is kept still, it wakes no thread of the
// process for what comes.
type socket struct {
	raw syscall.RawConn
	on  bool   // it is kept still
	buf []byte // of the read under way
	n   int    // its result
	err error
	try func(fd uintptr) bool
}

// newSocket returns nil for a connection without a socket of its own.
func newSocket(nc net.Conn) *socket {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw}
	s.try = func(fd uintptr) bool {
		s.n, s.err = unix.Read(int(fd), s.buf)
		return true
	}
	return s
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
	var failed error
	if err := s.raw.Control(func(fd uintptr) {
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
	s.buf = b
	err = s.raw.Read(s.try)
	s.buf = nil
	switch {
	case err != nil: // closed: the read of the connection says so
	case s.err == nil && s.n > 0:
		return s.n, nil, true
	case s.err != nil && s.err != unix.EAGAIN && s.err != unix.EINTR: // the kernel tells it once
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", s.err)}, true
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
