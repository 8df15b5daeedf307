package broker

import (
	"crypto/tls"
	"errors"
	"io"
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
	net.Conn          // the socket, or TLS over it
	socket   net.Conn // closing it never waits
	broker   *Broker
	gone     chan struct{} // closed when nothing of the client runs any more
	quit     chan struct{} // closed when the connection is being ended

	head     []byte // what introduce has read, for the library
	ours     bool   // announced with Own
	bridge   bool   // the client says that it is the bridge of another broker
	delivery delivery

	mu      sync.Mutex
	pending []byte
	resume  func() // called when pending is written, see takes
	closing bool
	failed  error
	started bool
	linger  bool
	wake    chan struct{} // capacity 1
	written sync.WaitGroup

	unacked unacked
	lookups lookups

	subscribing uint16 // identifier of the SUBSCRIBE that is being processed, see OnSubscribe
	demand      demand
	kept        *kept // nil: its session ends with the connection
	present     bool  // kept was there before
}

// holdLimit is for how long a client waits for Broker.Open.
const holdLimit = 5 * time.Second

// await waits until the broker is open for the client; false: the client is being ended.
func (c *conn) await() bool {
	if c.ours {
		return true
	}
	select {
	case <-c.broker.opened:
		return true
	default:
	}
	late := time.NewTimer(holdLimit)
	defer late.Stop()
	select {
	case <-c.broker.opened:
	case <-late.C:
	case <-c.quit:
		return false
	}
	return true
}

// lingerTimeout bounds how long a client that has not acknowledged everything may go on
// when the broker ends.
const lingerTimeout = 500 * time.Millisecond

var errSlow = errors.New("the client does not read or acknowledge what it is sent")

func newConn(nc net.Conn, b *Broker) *conn {
	_ = nc.SetDeadline(time.Now().Add(b.opts.ConnectTimeout)) // it fails only when the client has gone, as Read will say
	c := &conn{Conn: nc, socket: nc, broker: b, gone: make(chan struct{}), quit: make(chan struct{}), wake: make(chan struct{}, 1)}
	if b.opts.TLS != nil {
		c.Conn = tls.Server(nc, b.opts.TLS)
	}
	return c
}

// Read gives the library first what introduce has read.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		if c.head = c.head[n:]; len(c.head) == 0 {
			c.head = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// writable tells whether the client can still be sent something.
func (c *conn) writable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closing && c.failed == nil
}

// start begins to write, unless the connection was closed before: the writer
// would not be woken any more.
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

// takes tells whether the client may be sent so many bytes at once that can wait: half of what may be pending is for
// what cannot. If not, resume is called, on the goroutine that writes, when that has written what is pending.
func (c *conn) takes(size int, resume func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 || len(c.pending)+size <= c.broker.opts.MaxPendingBytes/2 {
		return true
	}
	c.resume = resume
	return false
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// fail gives the client up; c.mu is held.
func (c *conn) fail(err error) {
	if c.failed == nil && !c.closing {
		close(c.quit)
	}
	c.failed = err
	c.signal()
	c.socket.Close() // the library notices by its Read
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
					c.finish()
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
			c.mu.Lock()
			resume := c.resume
			c.resume = nil
			c.mu.Unlock()
			if resume != nil {
				resume()
			}
		}
	}
}

// SetDeadline is called by the library before it reads; writing has its own.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// Close ends reading at once. What was written before has one second to leave.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.failed != nil {
		return nil
	}
	c.closing = true
	close(c.quit)
	if !c.started {
		return c.socket.Close()
	}
	c.signal()
	_ = c.SetReadDeadline(time.Unix(1, 0)) // it fails only when the connection has ended already
	return c.Conn.SetWriteDeadline(time.Now().Add(time.Second))
}

// finish is called when everything is written. A client that has not acknowledged all
// of it is left time to: what it sends to a closed socket would make the system throw
// away what is still on its way to it.
func (c *conn) finish() {
	c.mu.Lock()
	linger := c.linger
	c.mu.Unlock()
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !linger || !ok || half.CloseWrite() != nil {
		c.Conn.Close()
	}
}

// prepareToLinger is called before the broker ends the client because it ends itself.
func (c *conn) prepareToLinger() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linger = c.unacked.len() > 0
}

// closeAndWait closes the connection and waits for the writer.
func (c *conn) closeAndWait() {
	c.Close()
	c.written.Wait()
	c.mu.Lock()
	linger := c.linger && c.failed == nil
	c.mu.Unlock()
	if linger && c.Conn.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
		_, _ = io.Copy(io.Discard, c.socket) // until the client has closed, or the time is over
	}
	c.Conn.Close()
	close(c.gone)
}
