package mqtt

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"
)

// sender is what the writing side of a connection needs. It is guarded by
// conn.sendMu.
type sender struct {
	nc       net.Conn
	records  []byte          // what Sessions.Records has emitted, followed by buf
	raw      syscall.RawConn // for writes that do not wait; nil: TLS
	try      func(fd uintptr) bool
	deadline time.Time // as set on the connection
	buf      []byte
	pending  []byte // what a try writes
	rest     []byte // part of it that the reader could not write; to be sent first
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
		n, err := syscall.Write(int(fd), s.pending)
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
			if len(s.buf) > 0 {
				c.flush()
			}
			packets = c.withRecords()
		}
		if len(packets) == 0 {
			return nil
		}
		if err := s.extend(); err != nil {
			return err
		}
		c.writing.Store(true)
		n, err := s.nc.Write(packets)
		c.writing.Store(false)
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
		s.pending = c.withRecords()
		s.n = 0
		if s.extend() != nil || s.raw.Write(s.try) != nil {
			s.n = 0 // the writer meets the error again
		}
		c.stats.bytesOut.Add(uint64(s.n))
		if s.rest = s.pending[s.n:]; len(s.rest) == 0 {
			s.shrink()
		}
	}
}

// flush puts on record what the packets to be written say.
func (c *conn) flush() {
	if !c.persistent || c.link.opts.Sessions.Flush == nil {
		return
	}
	c.flushing.Store(true)
	defer c.flushing.Store(false)
	if err := c.link.opts.Sessions.Flush(c.index); err != nil {
		c.stats.flushFailed.Add(1)
	}
}

// withRecords returns what is to be written: the packets in buf, and before them what another
// server needs to know of what they say.
func (c *conn) withRecords() []byte {
	s := c.send
	records := c.records()
	if records == nil {
		return s.buf
	}
	s.records = s.records[:0]
	records(c.index, c.emitRecord)
	if len(s.records) == 0 {
		return s.buf
	}
	s.records = append(s.records, s.buf...)
	return s.records
}

// records returns what the connection has to ask for records, nil: nothing.
func (c *conn) records() func(int, func(string, []byte)) {
	if s := c.link.opts.Sessions; s != nil && c.persistent && c.retain && c.isShard() {
		return s.Records
	}
	return nil
}

// emitRecord appends one record; sendMu is held.
func (c *conn) emitRecord(topic string, payload []byte) {
	if size := c.version.PublishSize(topic, len(payload), 0); c.maxPacket > 0 && size > c.maxPacket {
		c.link.reports.limit.Log(c.log, slog.LevelWarn, "the broker takes no packet that large: should this server fail, the session of the car ends",
			slog.String("topic", topic), slog.Int("bytes", size), slog.Int("limit", c.maxPacket))
		payload = nil // rather nothing than what is outdated
	}
	c.send.records = c.version.AppendPublish(c.send.records, topic, payload, 0, 0, true, false)
}

func (s *sender) shrink() {
	if cap(s.buf) > 4*batchBytes {
		s.buf = nil
	}
	if cap(s.records) > 4*batchBytes {
		s.records = nil
	}
}
