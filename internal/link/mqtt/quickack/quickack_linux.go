// Package quickack has the system acknowledge at once what was read from a TCP connection.
//
// A peer that leaves Nagle's algorithm on sends the second of two small packets when the first
// is acknowledged, which the system otherwise puts off by 40 ms. Gateways do, and mosquitto
// unless it is told set_tcp_nodelay.
package quickack

import (
	"net"
	"syscall"
)

// conn is a connection on which the system falls back to late acknowledgements by itself, so
// that it is asked anew after each Read.
type conn struct {
	*net.TCPConn
	raw syscall.RawConn
}

// Wrap returns c as a connection that acknowledges at once; one that is not TCP stays as it is.
func Wrap(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	return &conn{TCPConn: tcp, raw: raw}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 {
		_ = c.raw.Control(quicken) // it fails only when the connection has ended, as the next Read will say
	}
	return n, err
}

func quicken(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) // a mere hint
}
