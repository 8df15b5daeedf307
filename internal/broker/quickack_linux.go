package broker

import (
	"net"
	"syscall"
)

// quickAck is a TCP connection on which the system acknowledges at once what was read.
// Gateways leave Nagle's algorithm on: they send the second of two small packets when
// the first is acknowledged, which the system otherwise puts off by 40 ms. The system
// falls back to that by itself, so it is asked anew after each Read.
type quickAck struct {
	*net.TCPConn
	raw syscall.RawConn
}

func withQuickAck(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	return &quickAck{TCPConn: tcp, raw: raw}
}

// Read implements net.Conn.
func (c *quickAck) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 {
		_ = c.raw.Control(quicken) // it fails only when the connection has ended, as the next Read will say
	}
	return n, err
}

func quicken(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) // a mere hint
}
