package boundary

import (
	"encoding/binary"
	"net"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"
)

// pace is between two writes of frames that no caller waits for. A wake-up of the other
// process costs many times what such a frame costs.
const pace = time.Millisecond

// Post hands the message over without waiting for the socket. It leaves at once if
// nothing was written for a millisecond, else together with what comes until then.
// Frames that are posted and sent keep their order. An error of a write is that of later
// calls.
func (c *Conn) Post(m proto.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.closed {
		return net.ErrClosed
	}
	if err := c.append(m); err != nil {
		return err
	}
	if c.writing || c.timed {
		return nil
	}
	wait := pace - time.Since(c.last)
	if wait > 0 {
		c.timed = true
		c.flushes.Add(1)
		if c.timer == nil {
			c.timer = time.AfterFunc(wait, c.due)
		} else {
			c.timer.Reset(wait)
		}
		return nil
	}
	c.tryLocked()
	if len(c.pending) > 0 && c.err == nil { // the other side does not read
		c.writing = true
		c.flushes.Go(c.flush)
	}
	return c.err
}

// due writes what was posted.
func (c *Conn) due() {
	defer c.flushes.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timed = false
	if c.writing || c.err != nil || len(c.pending) == 0 {
		return
	}
	c.writing = true
	c.writeLocked()
	for len(c.pending) > 0 && c.err == nil {
		c.writeLocked()
	}
	c.writing = false
}

// tryLocked writes what the socket takes now.
func (c *Conn) tryLocked() {
	if c.raw == nil {
		return
	}
	c.last = time.Now()
	var n int
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		n, failed = syscall.Write(int(fd), c.pending)
		return true
	})
	switch {
	case err != nil:
		c.err = err
	case failed == syscall.EAGAIN || failed == syscall.EINTR:
	case failed != nil:
		c.err = failed
	case n == len(c.pending) && cap(c.pending) <= maxKept:
		c.pending = c.pending[:0]
	default:
		c.pending = append([]byte(nil), c.pending[n:]...)
	}
	if n > 0 {
		c.written += uint64(n)
		c.progress.Broadcast()
	}
}

// Append lets the message leave with the next one that is sent, or with Flush. It
// returns its place in the stream.
func (c *Conn) Append(m proto.Message) (place uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	err = c.append(m)
	return c.appended, err
}

// Flush returns when everything up to the place is in the socket.
func (c *Conn) Flush(place uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.written < place && c.err == nil {
		if c.writing {
			c.progress.Wait()
			continue
		}
		c.writing = true
		c.writeLocked()
		c.writing = false
		if len(c.pending) > 0 && c.err == nil && c.written >= place {
			c.writing = true
			c.flushes.Go(c.flush)
		}
	}
	return c.err
}

// more tells whether a whole frame was read from the socket already.
func (c *Conn) more() bool {
	n := c.reader.Buffered()
	if n < prefix {
		return false
	}
	head, err := c.reader.Peek(prefix)
	return err == nil && uint64(n) >= prefix+uint64(binary.LittleEndian.Uint32(head))
}

// FlushAll writes what was appended, unless a write is under way, which takes it along.
func (c *Conn) FlushAll() error {
	c.mu.Lock()
	if c.writing || len(c.pending) == 0 || c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	place := c.appended
	c.mu.Unlock()
	return c.Flush(place)
}
