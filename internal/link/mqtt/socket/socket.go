// Package socket is the TCP or TLS connection to a broker: how it is made, written to with and without
// waiting, and broken off. It knows no packets.
package socket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"external-server/internal/link/mqtt/direct"
	"external-server/internal/link/mqtt/reason"
)

// writeTimeout ends a connection whose broker does not read.
const writeTimeout = 10 * time.Second

// Dial connects to address, host:port, until ctx ends. dialed is told the local address before
// anything is sent, nil: it is not. settings are asked for those of TLS; nil, and a nil
// result, mean none. An empty ServerName means the host of address.
func Dial(ctx context.Context, address string, dialed func(net.Addr), settings func() (*tls.Config, error)) (_ net.Conn, result error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() {
		if result != nil {
			nc.Close()
		}
	}()
	if dialed != nil {
		dialed(nc.LocalAddr())
	}
	if t, ok := nc.(*net.TCPConn); ok {
		if err := t.SetNoDelay(true); err != nil { // CONN-12
			return nil, err
		}
	}
	nc = direct.New(nc)
	if settings == nil {
		return nc, nil
	}
	cfg, err := settings()
	if err != nil || cfg == nil {
		return nc, err
	}
	cfg = cfg.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(address)
	}
	t := tls.Client(nc, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, reason.Handshake{Err: reason.WithoutAddresses(err)}
	}
	return t, nil
}

// Abort closes a connection whose other end is not there: nothing is sent, or waits to be.
func Abort(nc net.Conn) {
	if t, ok := nc.(*tls.Conn); ok { // its Close would say goodbye
		nc = t.NetConn()
	}
	if t, ok := nc.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0) // closed already
	}
	_ = nc.Close()
}

// Writer writes to a connection for one goroutine at a time. What Try could not write is the
// rest; it is to be taken and written before anything else, because it begins within a packet.
type Writer struct {
	nc       net.Conn
	direct   *direct.Conn // for writes that do not wait; nil: TLS
	deadline time.Time    // as set on the connection
	rest     []byte
}

// NewWriter returns the writer of a connection that Dial has made.
func NewWriter(nc net.Conn) Writer {
	c, _ := nc.(*direct.Conn)
	return Writer{nc: nc, direct: c}
}

// CanTry tells whether Try can be used.
func (w *Writer) CanTry() bool { return w.direct != nil }

// HasRest tells whether there is a rest.
func (w *Writer) HasRest() bool { return len(w.rest) > 0 }

// TakeRest returns the rest, which the caller writes.
func (w *Writer) TakeRest() []byte {
	rest := w.rest
	w.rest = nil
	return rest
}

// Try writes what the socket takes at once, and returns how much. The rest refers to packets. An error is
// left for the next Write.
func (w *Writer) Try(packets []byte) int {
	n := 0
	if w.extend() == nil {
		n = w.direct.TryWrite(packets)
	}
	w.rest = packets[n:]
	return n
}

// Write writes everything, and waits for the broker to read.
func (w *Writer) Write(packets []byte) (int, error) {
	if err := w.extend(); err != nil {
		return 0, err
	}
	n, err := w.nc.Write(packets)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the broker has not read for %v", writeTimeout/2)
	}
	return n, err
}

// WriteLast writes the last packets of a connection, which have so much time.
func (w *Writer) WriteLast(packets []byte, within time.Duration) error {
	if err := w.nc.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	_, err := w.nc.Write(packets)
	return err
}

// extend moves the deadline of writes away when it comes near; setting it is not free.
func (w *Writer) extend() error {
	now := time.Now()
	if w.deadline.Sub(now) >= writeTimeout/2 {
		return nil
	}
	w.deadline = now.Add(writeTimeout)
	return w.nc.SetWriteDeadline(w.deadline)
}
