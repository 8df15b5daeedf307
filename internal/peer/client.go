package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"external-server/internal/config/tlsfiles"
)

// Times of the client's connections. A peer that is cut off is noticed after pingAfter
// and pingTimeout: nothing else ends a request that waits for it.
const (
	dialTimeout = 2 * time.Second
	pingAfter   = 2 * time.Second
	pingTimeout = 3 * time.Second
)

// Client asks other replicas. Its methods may be called from many goroutines.
type Client struct {
	replica   string
	token     string
	transport *http.Transport
}

// NewClient makes a client. The files are read once, so that a wrong one is an error at
// the start, and anew for each connection. Errors name the configuration key.
func NewClient(o Options) (*Client, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	files, err := tlsfiles.Client(o.TLS)
	if err != nil {
		return nil, fmt.Errorf("cluster.peer_tls: %w", err)
	}
	c := &Client{replica: o.Replica, token: o.Token.Reveal()}
	after, timeout := o.pings()
	// HTTP/2 alone: thousands of requests wait on one connection. What encrypts it is below
	// the transport, so that the transport takes it for unencrypted.
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	dialer := &net.Dialer{Timeout: dialTimeout}
	dial := dialer.DialContext
	if files == nil {
		dialer.ControlContext = onlyPrivate
	} else {
		dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			settings, err := files()
			if err != nil {
				return nil, fmt.Errorf("cluster.peer_tls: %w", err)
			}
			settings.MinVersion, settings.NextProtos = tls.VersionTLS13, []string{"h2"}
			ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
			defer cancel()
			conn, err := (&tls.Dialer{NetDialer: dialer, Config: settings}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return accepted(ctx, conn)
		}
	}
	c.transport = &http.Transport{
		DialContext:            dial,
		Protocols:              protocols,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: after, PingTimeout: timeout, WriteByteTimeout: after + timeout},
	}
	return c, nil
}

// acceptedConn is a connection of which the first byte has been read.
type acceptedConn struct {
	net.Conn
	first []byte // then empty
}

// accepted waits for the first byte of the server, which speaks first in HTTP/2: in TLS 1.3
// a server judges the client's certificate after the client's handshake is over, and
// the first byte, or the alert in its place, is its judgement.
func accepted(ctx context.Context, conn net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	first := make([]byte, 1)
	_, err := conn.Read(first)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close() // its fault is known
		return nil, err
	}
	return &acceptedConn{conn, first}, nil
}

// Read returns the byte that was read already first.
func (a *acceptedConn) Read(b []byte) (int, error) {
	if len(a.first) == 0 || len(b) == 0 {
		return a.Conn.Read(b)
	}
	n := copy(b, a.first)
	a.first = a.first[n:]
	return n, nil
}

// onlyPrivate keeps the token from leaving private networks, whatever a name resolves
// to.
func onlyPrivate(_ context.Context, _, address string, _ syscall.RawConn) error {
	if at, err := netip.ParseAddrPort(address); err != nil || !private(at.Addr()) {
		return fmt.Errorf("%s is a public address, and connections between replicas are not encrypted; set cluster.peer_tls on all replicas", address)
	}
	return nil
}

// Do sends a request to the replica at an address (HOST:PORT), whatever host and scheme
// its URL has, and returns the answer of the handler there, whatever its code. The answer's
// body is streamed and must be closed; the end of ctx ends the request there too. An
// *Error says that no handler answered, and an error of ctx that it ended.
//
// A ctx, or a request, that came from another replica is refused: one hop is all.
func (c *Client) Do(ctx context.Context, address string, req *http.Request) (*http.Response, error) {
	if from, ok := From(ctx); ok {
		return nil, &Error{Address: address, Reason: Loop, Err: fmt.Errorf("the request came from the replica %s and is not passed on again", from)}
	}
	if from, ok := FromRequest(req); ok {
		return nil, &Error{Address: address, Reason: Loop, Err: fmt.Errorf("the request came from the replica %s and is not passed on again", from)}
	}
	var sent atomic.Bool
	out := req.Clone(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}))
	out.URL = &url.URL{Scheme: "http", Host: address, Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery}
	out.Host, out.RequestURI = "", ""
	out.Header.Del("Authorization")
	if c.token != "" {
		out.Header.Set("Authorization", "Bearer "+c.token)
	}
	out.Header.Del(wantedHeader)
	if wanted, ok := ctx.Value(wantedKey{}).(string); ok {
		out.Header.Set(wantedHeader, wanted)
	}
	out.Header.Set(hopHeader, "1")
	out.Header.Set(replicaHeader, c.replica)
	answer, err := c.transport.RoundTrip(out)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, c.explain(address, sent.Load(), err)
	}
	if reason := Reason(answer.Header.Get(refusedHeader)); reason != "" {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) // what there is of it
		_ = answer.Body.Close()
		return nil, &Error{Address: address, Reason: reason, Err: errors.New(clean(string(text)))}
	}
	return answer, nil
}

// clean makes one line of what a peer says.
func clean(text string) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
}

// explain turns what went wrong into what to do.
func (c *Client) explain(address string, sent bool, err error) *Error {
	e := &Error{Address: address, Reason: Unreachable, Sent: sent, Err: err}
	var invalid *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var alert tls.AlertError
	switch {
	case errors.As(err, &host):
		e.Reason = Stranger
		e.Err = fmt.Errorf("%w; its certificate must name the host of its cluster.peer_address", err)
	case errors.As(err, &invalid), errors.As(err, &unknown):
		e.Reason = Stranger
		e.Err = fmt.Errorf("%w; its certificate must be signed by the CA in cluster.peer_tls.ca_file", err)
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		e.Reason = Stranger
		e.Err = fmt.Errorf("it does not accept the certificate of this replica: %w; cluster.peer_tls of both must have the same CA, and the certificates must be for servers and clients", err)
	case sent:
		e.Err = fmt.Errorf("it does not answer: %w", err)
	}
	return e
}

// Close ends the connections that no request uses.
func (c *Client) Close() { c.transport.CloseIdleConnections() }
