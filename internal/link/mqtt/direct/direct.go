// Package direct is a TCP connection that is read and written without telling the scheduler of the
// Go runtime.
//
// The scheduler is told of each ordinary system call, because it might wait. In a process
// that was idle, that wakes a thread of the runtime, which looks whether anything runs for long,
// several times before it sleeps again. When statuses come one by one, this thread costs a third of
// what a status costs. The socket of a connection does not wait, so no such watch is needed.
//
// It imports nothing of the project.
package direct

import (
	"io"
	"net"
	"os"
	"syscall"
)

// ordinaryEvery is which call is an ordinary one all the same: a reader that finds more each time
// it looks would otherwise keep its processor for as long as that thread sleeps.
const ordinaryEvery = 64

// Conn is a TCP connection. One goroutine at a time may read, and one may write.
type Conn struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out side
}

// side is one direction of a connection.
type side struct {
	call      func(fd int, b []byte, ordinary bool) (int, error)
	try, wait func(fd uintptr) bool // call once, and until it need not wait
	calls     uint8
	b         []byte // of the call under way
	n         int    // its result
	err       error
}

// New returns nc, or a Conn if it is a TCP connection whose socket can be reached.
func New(nc net.Conn) net.Conn {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nc
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nc
	}
	c := &Conn{TCPConn: t, raw: raw}
	c.in.init(read)
	c.out.init(write)
	return c
}

func (s *side) init(call func(fd int, b []byte, ordinary bool) (int, error)) {
	s.call = call
	s.try = func(fd uintptr) bool {
		s.once(int(fd))
		return true
	}
	s.wait = func(fd uintptr) bool {
		for {
			if s.once(int(fd)); s.err != syscall.EINTR {
				return s.err != syscall.EAGAIN
			}
		}
	}
}

func (s *side) once(fd int) {
	s.calls++
	s.n, s.err = s.call(fd, s.b, s.calls%ordinaryEvery == 0)
}

// do makes calls by way of through until when says that it is enough. A connection that was closed, or whose
// deadline has passed, is the error.
func (s *side) do(through func(func(uintptr) bool) error, when func(uintptr) bool, b []byte) error {
	s.b, s.n, s.err = b, 0, nil
	err := through(when)
	s.b = nil
	return err
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 || c.in.do(c.raw.Read, c.in.wait, b) != nil {
		return c.TCPConn.Read(b) // and says why
	}
	switch {
	case c.in.err != nil:
		return 0, failed("read", c.in.err)
	case c.in.n == 0:
		return 0, io.EOF
	}
	return c.in.n, nil
}

// TryRead reads what has come. Nothing is syscall.EAGAIN, and the end 0 without an error.
func (c *Conn) TryRead(b []byte) (int, error) {
	if err := c.in.do(c.raw.Read, c.in.try, b); err != nil {
		return 0, err
	}
	return max(0, c.in.n), c.in.err
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		if c.out.do(c.raw.Write, c.out.wait, b[written:]) != nil {
			n, err := c.TCPConn.Write(b[written:]) // and says why
			return written + n, err
		}
		if c.out.err != nil {
			return written, failed("write", c.out.err)
		}
		written += c.out.n
	}
	return written, nil
}

// TryWrite writes what the socket takes at once, and returns how much. An error is left for the next Write.
func (c *Conn) TryWrite(b []byte) int {
	if c.out.do(c.raw.Write, c.out.try, b) != nil || c.out.err != nil {
		return 0
	}
	return c.out.n
}

func failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, err)}
}
