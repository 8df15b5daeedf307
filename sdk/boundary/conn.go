// Package boundary is the module's side of the process boundary between the External
// Server and a module, in the messages of moduleproto
// (modules/include/fleet_module.proto), and the frames that both sides use. Programs
// that are modules use package module, which is easier; this one is for those who
// build on the protocol itself, as the server's own host of shared libraries does.
//
// A frame is four bytes of length, little-endian like the size prefix of the
// Fleet Protocol, and one protobuf message. Nothing else travels, so that a
// module in any language needs no more than a socket and a protobuf library.
package boundary

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"
)

const (
	// MaxFrame is the largest frame in bytes: the largest command buffer that is
	// accepted from a library (64 MiB) and room around it.
	MaxFrame = 65 << 20
	// Protocol is the version both sides announce.
	Protocol = 1
	// FD is the descriptor on which a module process finds the socket.
	FD = 3
	// EnvFD and EnvProtocol are the environment variables of a module process.
	EnvFD       = "FLEET_MODULE_FD"
	EnvProtocol = "FLEET_MODULE_PROTOCOL"

	prefix  = 4
	maxKept = 1 << 20 // bytes of a buffer kept for reuse
)

// ErrFrame reports bytes that are not a frame of the protocol.
var ErrFrame = errors.New("not a frame of the module protocol")

// Conn sends and receives frames. Send may be called by any goroutine, Receive
// by one at a time.
//
// There is no queue and no writer thread: a sender that finds the socket free writes
// its own frame at once, which is the shortest way for a lone one. Frames that
// come while a write is under way are collected and leave together in the next
// write, so that the number of system calls falls as the load grows. Frames that
// no caller waits for can wait for others (Post, Append).
type Conn struct {
	socket net.Conn
	raw    syscall.RawConn // nil: the socket has none
	reader *bufio.Reader
	frame  []byte // of Receive

	mu      sync.Mutex
	pending []byte // frames to be written
	spare   []byte
	writing bool
	err     error // of an earlier write
	closed  bool
	flushes sync.WaitGroup

	last  time.Time   // of a write
	timer *time.Timer // writes what was posted
	timed bool        // it runs

	appended, written uint64 // bytes
	progress          sync.Cond
}

// New takes ownership of the socket.
func New(socket net.Conn) *Conn {
	c := &Conn{socket: socket, reader: bufio.NewReaderSize(socket, 64<<10)}
	c.progress.L = &c.mu
	if s, ok := socket.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn() // without it, frames that are posted leave from another goroutine
	}
	return c
}

// FromFile makes a Conn of a connected socket; the file is closed either way.
func FromFile(f *os.File) (*Conn, error) {
	defer f.Close()
	socket, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor of the module protocol: %w", err)
	}
	return New(socket), nil
}

// Send writes the message or hands it to the write under way; an error of that
// one is returned by later calls and ends Receive of the other side.
func (c *Conn) Send(m proto.Message) error {
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	if err := c.append(m); err != nil {
		c.mu.Unlock()
		return err
	}
	if c.writing {
		c.mu.Unlock()
		return nil
	}
	c.writing = true
	// Those who are ready to send as well may join this write.
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
	c.writeLocked()
	if len(c.pending) > 0 && c.err == nil {
		// Others kept coming. The caller has other things to do than to write
		// for them.
		c.flushes.Go(c.flush)
		c.mu.Unlock()
		return nil
	}
	c.writing = false
	err := c.err
	c.mu.Unlock()
	return err
}

// SendNow is Send that returns when the message is in the socket: it reaches the
// other side even if this process ends in the next moment.
func (c *Conn) SendNow(m proto.Message) error {
	if err := c.Send(m); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for target := c.appended; c.written < target && c.err == nil; {
		c.progress.Wait()
	}
	return c.err
}

// append adds a frame to pending, or leaves it unchanged.
func (c *Conn) append(m proto.Message) error {
	start := len(c.pending)
	buf, err := proto.MarshalOptions{}.MarshalAppend(append(c.pending, 0, 0, 0, 0), m)
	if err != nil {
		return fmt.Errorf("frame cannot be encoded: %w", err)
	}
	size := len(buf) - start - prefix
	if size > MaxFrame {
		return fmt.Errorf("frame of %d bytes: %w, at most %d bytes are allowed", size, ErrFrame, MaxFrame)
	}
	binary.LittleEndian.PutUint32(buf[start:], uint32(size))
	c.pending = buf
	c.appended += uint64(prefix + size)
	return nil
}

// writeLocked writes what is pending, without the lock meanwhile.
func (c *Conn) writeLocked() {
	buf := c.pending
	c.pending = c.spare[:0]
	c.spare = nil
	c.last = time.Now()
	c.mu.Unlock()
	_, err := c.socket.Write(buf)
	c.mu.Lock()
	if err != nil {
		c.err = err
	}
	c.written += uint64(len(buf))
	c.progress.Broadcast()
	if cap(buf) <= maxKept {
		c.spare = buf
	}
}

func (c *Conn) flush() {
	c.mu.Lock()
	for len(c.pending) > 0 && c.err == nil {
		c.writeLocked()
	}
	c.writing = false
	c.mu.Unlock()
}

// Receive reads the next frame into m. io.EOF means that the other side ended
// the connection between two frames; ErrFrame that it sent something else.
func (c *Conn) Receive(m proto.Message) error {
	var head [prefix]byte
	if _, err := io.ReadFull(c.reader, head[:]); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > MaxFrame {
		return fmt.Errorf("a frame claims %d bytes: %w, at most %d bytes are allowed", size, ErrFrame, MaxFrame)
	}
	if err := c.read(int(size)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := proto.Unmarshal(c.frame, m); err != nil {
		return fmt.Errorf("a frame of %d bytes: %w: %w", size, ErrFrame, err)
	}
	if cap(c.frame) > maxKept {
		c.frame = nil
	}
	return nil
}

// read fills frame, growing with what really arrives: a length costs its sender
// nothing.
func (c *Conn) read(size int) error {
	c.frame = c.frame[:0]
	for len(c.frame) < size {
		n := min(size, max(2*len(c.frame), 64<<10))
		if cap(c.frame) < n {
			c.frame = append(make([]byte, 0, n), c.frame...)
		}
		from := len(c.frame)
		c.frame = c.frame[:n]
		if _, err := io.ReadFull(c.reader, c.frame[from:]); err != nil {
			return err
		}
	}
	return nil
}

// ExpireReads makes Receive fail after d, unless frames keep it busy.
func (c *Conn) ExpireReads(d time.Duration) error {
	return c.socket.SetReadDeadline(time.Now().Add(d))
}

// CloseWrite tells the other side that nothing more comes; what it still sends
// can be received.
func (c *Conn) CloseWrite() error {
	if half, ok := c.socket.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.socket.Close()
}

// Close ends the connection; Receive and Send fail from now on.
func (c *Conn) Close() error {
	err := c.socket.Close()
	c.mu.Lock()
	c.closed = true
	if c.timed && c.timer.Stop() {
		c.timed = false
		c.flushes.Done()
	}
	c.mu.Unlock()
	c.flushes.Wait()
	return err
}
