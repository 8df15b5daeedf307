package mqtt

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// sender is what the writing side of a connection needs. It is guarded by
// conn.sendMu.
type sender struct {
	nc       net.Conn
	raw      syscall.RawConn // for writes that do not wait; nil: TLS
	try      func(fd uintptr) bool
	deadline time.Time // as set on the connection
	buf      []byte
	rest     []byte // part of buf that the reader could not write; to be sent first
	n        int    // of the last try
}

func newSender(nc net.Conn) *sender {
	s := &sender{nc: nc}
	if t, ok := nc.(*net.TCPConn); ok {
		if raw, err := t.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	s.try = func(fd uintptr) bool {
		n, err := syscall.Write(int(fd), s.buf)
		if s.n = n; err != nil {
			s.n = 0 // whatever it is, the writer meets it again
		}
		return true
	}
	return s
}

// trySend writes what may be sent if that needs no waiting; c.mu is not held. False:
// something is left for the writer.
func (c *conn) trySend() bool {
	if c.send.raw == nil || c.persistent && c.link.opts.Sessions.FlushWaits || !c.sendMu.TryLock() {
		return false
	}
	defer c.sendMu.Unlock()
	c.sendNow()
	return len(c.send.rest) == 0
}

// extend moves the deadline of writes away when it comes near; setting it is not
// free.
func (s *sender) extend() error {
	now := time.Now()
	if s.deadline.Sub(now) >= writeTimeout/2 {
		return nil
	}
	s.deadline = now.Add(writeTimeout)
	return s.nc.SetWriteDeadline(s.deadline)
}

// sendAll writes what may be sent until there is nothing more.
func (c *conn) sendAll() error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	s := c.send
	for {
		packets := s.rest
		if s.rest = nil; len(packets) == 0 {
			s.buf = c.collect(s.buf[:0])
			packets = s.buf
		}
		if len(packets) == 0 {
			return nil
		}
		c.flush()
		if err := s.extend(); err != nil {
			return err
		}
		n, err := s.nc.Write(packets)
		c.stats.bytesOut.Add(uint64(n))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("the broker has not read for %v", writeTimeout/2)
		}
		if err != nil {
			return err
		}
		s.shrink()
	}
}

// sendNow writes what may be sent without ever waiting. What the connection does
// not take at once is left to the writer. c.sendMu is held.
func (c *conn) sendNow() {
	s := c.send
	for len(s.rest) == 0 {
		s.buf = c.collect(s.buf[:0])
		if len(s.buf) == 0 {
			return
		}
		c.flush()
		s.n = 0
		if s.extend() != nil || s.raw.Write(s.try) != nil {
			s.n = 0 // the writer meets the error again
		}
		c.stats.bytesOut.Add(uint64(s.n))
		if s.rest = s.buf[s.n:]; len(s.rest) == 0 {
			s.shrink()
		}
	}
}

// flush puts on record what the packets to be written say.
func (c *conn) flush() {
	if !c.persistent || c.link.opts.Sessions.Flush == nil {
		return
	}
	if err := c.link.opts.Sessions.Flush(c.index); err != nil {
		c.stats.flushFailed.Add(1)
	}
}

func (s *sender) shrink() {
	if cap(s.buf) > 4*batchBytes {
		s.buf = nil
	}
}
