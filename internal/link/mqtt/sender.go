package mqtt

import (
	"log/slog"

	"external-server/internal/link/mqtt/socket"
)

// sender is the writing side of a connection, guarded by conn.sendMu.
type sender struct {
	socket.Writer
	buf     []byte // packets
	records []byte // what Sessions.Records has emitted, followed by buf
}

// trySend writes what may be sent if that needs no waiting; c.mu is not held. False:
// something is left for the writer.
func (c *conn) trySend() bool {
	if !c.send.CanTry() || c.Persistent && c.link.opts.Sessions.FlushWaits || !c.sendMu.TryLock() {
		return false
	}
	defer c.sendMu.Unlock()
	c.sendNow()
	return !c.send.HasRest()
}

// sendAll writes what may be sent until there is nothing more.
func (c *conn) sendAll() error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	s := c.send
	for {
		packets := s.TakeRest()
		if len(packets) == 0 {
			s.buf = c.collect(s.buf[:0])
			if len(s.buf) > 0 {
				c.flush()
			}
			packets = c.withRecords()
		}
		if len(packets) == 0 {
			return nil
		}
		c.writing.Store(true)
		n, err := s.Write(packets)
		c.writing.Store(false)
		c.stats.BytesOut.Add(uint64(n))
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
	for !s.HasRest() {
		s.buf = c.collect(s.buf[:0])
		if len(s.buf) == 0 {
			return
		}
		c.flush()
		c.stats.BytesOut.Add(uint64(s.Try(c.withRecords())))
		if !s.HasRest() {
			s.shrink()
		}
	}
}

// flush puts on record what the packets to be written say.
func (c *conn) flush() {
	if !c.Persistent || c.link.opts.Sessions.Flush == nil {
		return
	}
	c.flushing.Store(true)
	defer c.flushing.Store(false)
	if err := c.link.opts.Sessions.Flush(c.index); err != nil {
		c.stats.FlushFailed.Add(1)
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
	if s := c.link.opts.Sessions; s != nil && c.Persistent && c.Retain && c.isShard() {
		return s.Records
	}
	return nil
}

// emitRecord appends one record; sendMu is held.
func (c *conn) emitRecord(topic string, payload []byte) {
	if size := c.Version.PublishSize(topic, len(payload), 0); c.MaxPacket > 0 && size > c.MaxPacket {
		c.link.reports.Limit.Log(c.log, slog.LevelWarn, "the broker takes no packet that large: should this server fail, the session of the car ends",
			slog.String("topic", topic), slog.Int("bytes", size), slog.Int("limit", c.MaxPacket))
		payload = nil // rather nothing than what is outdated
	}
	c.send.records = c.Version.AppendPublish(c.send.records, topic, payload, 0, 0, true, false)
}

func (s *sender) shrink() {
	if cap(s.buf) > 4*batchBytes {
		s.buf = nil
	}
	if cap(s.records) > 4*batchBytes {
		s.records = nil
	}
}
