package broker

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// conn is the connection of one client as the library sees it. Write never
// waits: the library holds locks meanwhile that others need to publish to this
// client, so a client that does not read would hold them up. Small packets are
// written together.
type conn struct {
	net.Conn
	broker *Broker
	gone   chan struct{} // closed when nothing of the client runs any more

	mu      sync.Mutex
	pending []byte
	closing bool
	failed  error
	started bool
	wake    chan struct{} // capacity 1
	written sync.WaitGroup

	unacked unacked
}

var errSlow = errors.New("the client does not read or acknowledge what it is sent")

func newConn(nc net.Conn, b *Broker) *conn {
	_ = nc.SetDeadline(time.Now().Add(b.opts.ConnectTimeout)) // it fails only when the client has gone, as Read will say
	return &conn{Conn: nc, broker: b, gone: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// start begins to write, unless the connection was closed before: nobody would wake
// the writer any more.
func (c *conn) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.failed != nil {
		return
	}
	c.started = true
	c.written.Go(c.writeLoop)
}

// Write queues p. It fails when the client is too slow or gone.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.failed != nil:
		return 0, c.failed
	case c.closing:
		return 0, net.ErrClosed
	case len(c.pending)+len(p) > c.broker.opts.MaxPendingBytes:
		c.fail(errSlow)
		return 0, errSlow
	}
	c.pending = append(c.pending, p...)
	c.signal()
	return len(p), nil
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// fail gives the client up; c.mu is held.
func (c *conn) fail(err error) {
	c.failed = err
	c.signal()
	c.Conn.Close() // the library notices by its Read
	if errors.Is(err, errSlow) {
		c.broker.limit.Log(c.broker.log, slog.LevelInfo, "client of the embedded broker does not keep up, disconnecting it",
			slog.String("remote", c.RemoteAddr().String()))
	}
}

// giveUp ends a client that does not keep up.
func (c *conn) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil && !c.closing {
		c.fail(errSlow)
	}
}

func (c *conn) writeLoop() {
	var buf []byte
	for range c.wake {
		for {
			c.mu.Lock()
			buf, c.pending = c.pending, buf[:0]
			failed, closing := c.failed != nil, c.closing
			c.mu.Unlock()
			if failed {
				return
			}
			if len(buf) == 0 {
				if closing {
					c.Conn.Close()
					return
				}
				break
			}
			timeout := c.broker.opts.WriteTimeout
			if closing {
				timeout = min(timeout, time.Second)
			}
			err := c.Conn.SetWriteDeadline(time.Now().Add(timeout))
			if err == nil {
				_, err = c.Conn.Write(buf)
			}
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					err = errSlow
				}
				c.mu.Lock()
				c.fail(err)
				c.mu.Unlock()
				return
			}
			if cap(buf) > 256<<10 { // a burst is over
				buf = nil
			}
		}
	}
}

// SetDeadline is called by the library before it reads; writing has its own.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// Close lets what was written leave, within a bound, and ends reading at once.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.failed != nil {
		return nil
	}
	c.closing = true
	if !c.started {
		return c.Conn.Close()
	}
	c.signal()
	_ = c.SetReadDeadline(time.Unix(1, 0)) // it fails only when the connection has ended already
	return c.Conn.SetWriteDeadline(time.Now().Add(time.Second))
}

// end closes the connection and waits for the writer.
func (c *conn) end() {
	c.Close()
	c.written.Wait()
	c.Conn.Close()
	close(c.gone)
}
