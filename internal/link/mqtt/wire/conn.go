package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
)

// DialOptions say which broker to connect to, and as whom.
type DialOptions struct {
	Address    string      // host:port
	TLS        *tls.Config // nil: plain TCP
	Connect    ConnectOptions
	MaxPayload int                     // bytes of the longest payload that is received, see NewReader
	Buffer     int                     // bytes that are read at once; 0: as many as the largest topic needs
	Lend       bool                    // see Reader.Lend
	Wrap       func(net.Conn) net.Conn // of the TCP connection; nil: it stays as it is
}

// Conn is a connection on which a broker has accepted a client. One goroutine may read
// packets while another writes bytes that the Append functions have made; what is sent
// when, pings included, is up to them. Deadlines are those of net.Conn.
type Conn struct {
	net.Conn
	packets *Reader
	present bool
}

// Present tells whether the broker has kept a session from before the connection.
func (c *Conn) Present() bool { return c.present }

// RefusedError is a CONNACK that says no.
type RefusedError struct{ Code byte }

// Error names the code.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("the broker refuses the connection with code %d (4 and 5: user name or password)", e.Code)
}

// Dial connects to a broker, sends CONNECT and waits until the broker has accepted it.
// ctx bounds all of that and has no effect afterwards. The error wraps *RefusedError
// when the broker said no. The caller closes the Conn.
func Dial(ctx context.Context, o DialOptions) (*Conn, error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", o.Address, err)
	}
	if o.Wrap != nil {
		nc = o.Wrap(nc)
	}
	if o.TLS != nil {
		if nc, err = secure(ctx, nc, o); err != nil {
			return nil, fmt.Errorf("connect to %s: %w", o.Address, err)
		}
	}
	c := &Conn{Conn: nc, packets: newReader(nc, o.Buffer, o.MaxPayload)}
	if o.Lend {
		c.packets.Lend()
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	err = c.introduce(o.Connect)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to %s: %w", o.Address, err)
	}
	return c, nil
}

// secure speaks TLS over a connection, which it closes when that fails.
func secure(ctx context.Context, nc net.Conn, o DialOptions) (net.Conn, error) {
	settings := o.TLS
	if settings.ServerName == "" {
		settings = settings.Clone()
		settings.ServerName, _, _ = net.SplitHostPort(o.Address)
	}
	c := tls.Client(nc, settings)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = nc.Close() // nothing was said
		return nil, err
	}
	return c, nil
}

func (c *Conn) introduce(o ConnectOptions) error {
	if o.Version != 0 {
		c.packets.Speak(o.Version)
	}
	if _, err := c.Write(AppendConnect(nil, o)); err != nil {
		return err
	}
	var p Packet
	switch err := c.packets.Next(&p); {
	case err != nil:
		return fmt.Errorf("no answer to CONNECT: %w", err)
	case p.Type != Connack:
		return fmt.Errorf("%v instead of CONNACK", p.Type)
	case p.Code != 0:
		return &RefusedError{p.Code}
	}
	c.present = p.Present
	return nil
}

// Next reads the next packet, see Reader.Next.
func (c *Conn) Next(p *Packet) error { return c.packets.Next(p) }

// Ready tells whether Next will not wait, see Reader.Ready.
func (c *Conn) Ready() bool { return c.packets.Ready() }
