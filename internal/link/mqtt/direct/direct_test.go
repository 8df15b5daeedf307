package direct

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"external-server/internal/support/testwait"
)

// pair returns a Conn and its other end.
func pair(tb testing.TB) (*Conn, *net.TCPConn) {
	tb.Helper()
	near, far := tcp(tb)
	c, ok := New(near).(*Conn)
	if !ok {
		tb.Fatal("a TCP connection has no socket")
	}
	return c, far
}

func tcp(tb testing.TB) (near net.Conn, far *net.TCPConn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { near.Close() })
	other, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { other.Close() })
	return near, other.(*net.TCPConn)
}

// Everything comes, in order, both ways at once, with many more bytes than a socket takes.
func TestBothWays(t *testing.T) {
	c, far := pair(t)
	sent := make([]byte, 8<<20)
	for i := range sent {
		sent[i] = byte(i % 251)
	}
	echoed := make(chan error, 1)
	go func() {
		_, err := io.Copy(far, far)
		echoed <- errors.Join(err, far.CloseWrite())
	}()
	written := make(chan error, 1)
	go func() {
		n, err := c.Write(sent)
		if n != len(sent) && err == nil {
			err = io.ErrShortWrite
		}
		written <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
	if err := errors.Join(<-written, <-echoed); err != nil {
		t.Error(err)
	}
}

// What ends a connection is told as by any other, and what does not wait does not wait.
func TestEnds(t *testing.T) {
	b := make([]byte, 10)
	for name, tc := range map[string]struct {
		end         func(c *Conn, far *net.TCPConn)
		read, write error
	}{
		"closed there": {func(_ *Conn, far *net.TCPConn) { far.Close() }, io.EOF, nil},
		"closed here":  {func(c *Conn, _ *net.TCPConn) { c.Close() }, net.ErrClosed, net.ErrClosed},
		"reset there": {func(c *Conn, far *net.TCPConn) {
			_ = far.SetLinger(0)
			far.Close()
		}, syscall.ECONNRESET, nil},
		"too late": {func(c *Conn, _ *net.TCPConn) { _ = c.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			c, far := pair(t)
			if n, err := c.TryRead(b); n != 0 || err != syscall.EAGAIN {
				t.Errorf("%d bytes of nothing, %v", n, err)
			}
			tc.end(c, far)
			if tc.write != nil {
				if n := c.TryWrite(b); n != 0 {
					t.Errorf("%d bytes were written", n)
				}
				if n, err := c.Write(b); n != 0 || !errors.Is(err, tc.write) {
					t.Errorf("%d bytes were written, %v; expected %v", n, err, tc.write)
				}
			} else {
				_ = c.SetReadDeadline(time.Now().Add(testwait.Patience))
			}
			if n, err := c.Read(b); n != 0 || !errors.Is(err, tc.read) {
				t.Errorf("%d bytes, %v; expected %v", n, err, tc.read)
			}
		})
	}
}

// A reader that finds more each time it looks, and one that waits each time, let the runtime see an ordinary
// call again and again.
func TestOrdinaryCalls(t *testing.T) {
	var s side
	ordinary := 0
	s.init(func(_ int, _ []byte, o bool) (int, error) {
		if o {
			ordinary++
		}
		return 1, nil
	})
	for range 10 * ordinaryEvery {
		s.try(0)
	}
	if ordinary != 10 {
		t.Errorf("%d of %d calls are ordinary", ordinary, 10*ordinaryEvery)
	}
}

// Only a TCP connection has a socket of which it is known that it does not wait.
func TestOthersStay(t *testing.T) {
	near, _ := tcp(t)
	over := tls.Client(near, nil)
	if New(over) != net.Conn(over) {
		t.Error("a TLS connection is taken for its socket")
	}
}
