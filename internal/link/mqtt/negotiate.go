package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"external-server/internal/link/mqtt/reason"
	"external-server/internal/link/mqtt/socket"
	"external-server/internal/link/mqtt/terms"
	"external-server/internal/link/mqtt/wire"
)

// negotiate returns a connection in the best version that serves the purpose: 5 for a
// session that is kept, otherwise 3.1.1.
func (c *conn) negotiate(ctx context.Context) (net.Conn, *wire.Reader, terms.Terms, error) {
	if !c.isShard() {
		return c.connect(ctx, wire.V311)
	}
	nc, reader, t, err := c.connect(ctx, wire.V5)
	var refused reason.Refused5
	switch {
	case err == nil:
		c.closes = 0
		return nc, reader, t, nil
	case errors.As(err, &refused) && refused.Version():
	case errors.As(err, &refused) && refused.Code == 0x9a && !c.noRetain:
		c.noRetain = true
		return c.connect(ctx, wire.V5)
	case errors.As(err, &refused) && refused.Code == 0x9b && !c.noWill:
		c.noWill = true
		return c.connect(ctx, wire.V5)
	case errors.As(err, new(reason.NoAnswer)) && reason.IsClosed(err) && ctx.Err() == nil:
		if c.closes++; c.closes < 2 { // it may just have been starting
			return nil, nil, t, err
		}
	default:
		return nil, nil, t, err
	}
	if c.keeps(wire.V311) && c.beginsAnew() {
		if err := c.clear(ctx); err != nil {
			return nil, nil, t, err
		}
	}
	return c.connect(ctx, wire.V311)
}

// clear removes the session of version 3.1.1 that the broker keeps.
func (c *conn) clear(ctx context.Context) error {
	c.clearing = true
	defer func() { c.clearing = false }()
	nc, _, _, err := c.connect(ctx, wire.V311)
	if err != nil {
		return err
	}
	_, err = nc.Write(wire.AppendDisconnect(nil))
	return errors.Join(err, nc.Close())
}

// connect returns a connection that the broker has accepted.
func (c *conn) connect(ctx context.Context, version wire.Version) (_ net.Conn, _ *wire.Reader, _ terms.Terms, result error) {
	opts := &c.link.opts
	ctx, cancel := context.WithTimeout(ctx, opts.ConnectTimeout)
	defer cancel()
	nc, err := socket.Dial(ctx, opts.Address, opts.Dialed, opts.TLS)
	if err != nil {
		return nil, nil, terms.Terms{}, err
	}
	defer func() {
		if result != nil {
			nc.Close()
		}
	}()
	c.pace = c.link.pacing.Reader(nc)
	reader := wire.NewReader(&countingReader{nc, c}, 0)
	reader.LimitBy(func() int { return c.link.tuning.Load().MaxPayload })
	reader.Speak(version)
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	t, err := c.handshake(nc, reader, version)
	if !stop() && err == nil { // the deadline may have been set
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, nil, t, err
	}
	return nc, reader, t, nil
}

// handshake sends CONNECT and waits for CONNACK.
func (c *conn) handshake(nc net.Conn, reader *wire.Reader, version wire.Version) (terms.Terms, error) {
	asked := c.ask(version)
	_, isTLS := nc.(*tls.Conn) // version 1.3 refuses a client certificate after the handshake
	if _, err := nc.Write(wire.AppendConnect(nil, asked.Connect())); err != nil {
		return terms.Terms{}, reason.NoAnswer{Err: reason.WithoutAddresses(err), TLS: isTLS}
	}
	var p wire.Packet
	if err := reader.Next(&p); err != nil {
		return terms.Terms{}, reason.NoAnswer{Err: reason.WithoutAddresses(err), TLS: isTLS}
	}
	if p.Type != wire.Connack {
		return terms.Terms{}, fmt.Errorf("%w: %v instead of CONNACK", wire.ErrMalformed, p.Type)
	}
	switch {
	case p.Code == 0:
		t := asked.Agree(&p, c.beginsAnew())
		c.agreed(t)
		if t.Unfit != "" && c.link.opts.Sessions.fenced() {
			return terms.Terms{}, fmt.Errorf("a cluster needs a broker that speaks MQTT 5 and keeps sessions and retained messages: %s", t.Unfit)
		}
		return t, nil
	case version == wire.V5:
		return terms.Terms{}, reason.Refused5{Code: p.Code, Reason: p.Reason}
	}
	return terms.Terms{}, reason.Refused(p.Code)
}
