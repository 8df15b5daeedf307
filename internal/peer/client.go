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

	"external-server/internal/tlsfiles"
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
	secure    bool
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
	c := &Client{replica: o.Replica, token: o.Token.Reveal(), secure: files != nil}
	// HTTP/2 alone: thousands of requests wait on one connection.
	protocols := new(http.Protocols)
	protocols.SetHTTP2(c.secure)
	protocols.SetUnencryptedHTTP2(!c.secure)
	after, timeout := o.pings()
	c.transport = &http.Transport{
		Protocols:              protocols,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: after, PingTimeout: timeout, WriteByteTimeout: after + timeout},
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	if !c.secure {
		dialer.ControlContext = onlyPrivate
		c.transport.DialContext = dialer.DialContext
		return c, nil
	}
	c.transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		settings, err := files()
		if err != nil {
			return nil, fmt.Errorf("cluster.peer_tls: %w", err)
		}
		settings.MinVersion, settings.NextProtos = tls.VersionTLS13, []string{"h2"}
		ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
		defer cancel()
		return (&tls.Dialer{NetDialer: dialer, Config: settings}).DialContext(ctx, network, address)
	}
	return c, nil
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
	if c.secure {
		out.URL.Scheme = "https"
	}
	out.Host, out.RequestURI = "", ""
	out.Header.Del("Authorization")
	if c.token != "" {
		out.Header.Set("Authorization", "Bearer "+c.token)
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
		// In TLS 1.3 the server judges the client's certificate after the client's
		// handshake is over.
		e.Reason, e.Sent = Stranger, false
		e.Err = fmt.Errorf("it does not accept the certificate of this replica: %w; cluster.peer_tls of both must have the same CA, and the certificates must be for servers and clients", err)
	}
	return e
}

// Close ends the connections that no request uses.
func (c *Client) Close() { c.transport.CloseIdleConnections() }
