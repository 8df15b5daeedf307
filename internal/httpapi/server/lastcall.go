package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// quietTime is how long no connection may have come before a listener is closed.
	quietTime = 10 * time.Millisecond
	// lastCallTime bounds the wait for that; after it, clients are not waited for any more.
	lastCallTime = 250 * time.Millisecond
	// drainTime bounds how long the connections that were made until then may take to be accepted.
	drainTime = time.Second
)

// lastCall is a listener that can be closed without a loss. The system completes connections before
// they are accepted, and resets those that wait when a listener is closed: a client whose request
// was on the way cannot tell whether it was carried out.
type lastCall struct {
	*net.TCPListener
	mu     sync.Mutex
	begun  bool          // no more connections are wanted
	silent chan struct{} // closed when the queue of the system is empty, and the listener closed
	quiet  sync.Once     // closes silent
	deaf   sync.Once     // lets the system make no more connections
	once   sync.Once
	closed chan struct{} // by Close
}

// listen listens at an address. Without MPTCP, whose listeners take no filter.
func listen(ctx context.Context, address string) (*lastCall, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T is no TCP listener", l), l.Close())
	}
	return &lastCall{TCPListener: tcp, silent: make(chan struct{}), closed: make(chan struct{})}, nil
}

// Accept implements net.Listener.
func (l *lastCall) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	l.mu.Lock()
	begun := l.begun
	l.mu.Unlock()
	switch {
	case !begun:
		return c, err
	case err == nil:
		_ = l.TCPListener.SetDeadline(time.Now().Add(quietTime)) // fails when it is closed
		return c, nil
	}
	// The deadline is over: it was quiet, or this process stood still. What waits is accepted, and
	// nothing comes after it.
	l.deafen()
	if c := l.waiting(); c != nil {
		return c, nil
	}
	_ = l.TCPListener.Close()
	l.quiet.Do(func() { close(l.silent) })
	<-l.closed
	return nil, net.ErrClosed
}

// noSYN drops the packets with which clients ask for a connection: SYN without ACK. A filter of a
// listener sees packets from their TCP header on, whose flags are byte 13.
var noSYN = [...]unix.SockFilter{ //nolint:gochecknoglobals // it never changes
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x02, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
}

// deafen lets the system make no more connections. A client that asks for one meanwhile asks again
// a second later, and is refused then.
func (l *lastCall) deafen() {
	l.deaf.Do(func() {
		l.control(func(fd int) {
			filter := noSYN
			// Where the system has no filters, connections of the last microseconds are lost.
			_ = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
		})
	})
}

// control calls do with the descriptor, whatever the deadline is; not after Close.
func (l *lastCall) control(do func(fd int)) {
	if raw, err := l.TCPListener.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { do(int(fd)) })
	}
}

// waiting accepts a connection that is there; nil: there is none.
func (l *lastCall) waiting() (c net.Conn) {
	l.control(func(fd int) {
		for {
			accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			switch {
			case err == nil:
				file := os.NewFile(uintptr(accepted), "")
				c, _ = net.FileConn(file) // a copy; nil without descriptors
				_ = file.Close()
				return
			case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED):
				return
			}
		}
	})
	return c
}

// end has the connections accepted that wait, and closes the listener. Somebody has to accept.
func (l *lastCall) end() {
	l.mu.Lock()
	l.begun = true
	_ = l.TCPListener.SetDeadline(time.Now().Add(quietTime)) // fails when it is closed
	l.mu.Unlock()
	if !l.over(lastCallTime) {
		l.deafen()
		l.over(drainTime)
	}
}

// over waits until the listener is closed, at most so long, and tells whether it is.
func (l *lastCall) over(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-l.silent:
	case <-l.closed:
	case <-timer.C:
		return false
	}
	return true
}

// Close implements net.Listener.
func (l *lastCall) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		close(l.closed)
		err = nil
		select {
		case <-l.silent:
		default:
			err = l.TCPListener.Close()
		}
	})
	return err
}
