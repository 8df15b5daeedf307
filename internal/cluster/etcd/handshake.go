package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// handshakeTime bounds the look at why etcd cannot be used.
const handshakeTime = time.Second

// preface is what a client of HTTP/2 says first, with empty settings: the server answers
// with its own.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// explain returns why etcd cannot be used, in words for an operator, and whether it has found
// a cause. The client of etcd tells of a handshake that fails over and over only that the time
// has passed, so one more connection is made to see.
func (o *Options) explain(ctx context.Context, err error) (_ error, found bool) {
	if mute := (*silence)(nil); !errors.As(err, &mute) {
		return err, false
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	for _, endpoint := range o.Endpoints {
		if cause := o.handshake(ctx, endpoint); cause != nil {
			return cause, true
		}
	}
	return err, false
}

// handshake returns what keeps this server and the etcd at a URL from speaking to each other,
// nil when nothing does or when it is no matter of TLS.
func (o *Options) handshake(ctx context.Context, endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil // the client of etcd tells the same
	}
	defer func() { _ = conn.Close() }()
	end, _ := ctx.Deadline()
	if conn.SetDeadline(end) != nil {
		return nil
	}
	var own *x509.Certificate
	if u.Scheme == "https" {
		settings := &tls.Config{MinVersion: tls.VersionTLS12}
		if o.TLS != nil {
			if settings, err = o.TLS(); err != nil {
				return err
			}
			settings = settings.Clone()
		}
		settings.ServerName, settings.NextProtos = u.Hostname(), []string{"h2"}
		if len(settings.Certificates) > 0 {
			own = settings.Certificates[0].Leaf
		}
		secure := tls.Client(conn, settings)
		if err := secure.HandshakeContext(ctx); err != nil {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("etcd at %s closes a connection with TLS; if it speaks no TLS, write http:// in cluster.etcd", u.Host)
			}
			return refusal(u.Host, own, err)
		}
		conn = secure
	}
	if _, err := conn.Write([]byte(preface)); err != nil {
		return refusal(u.Host, own, err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return nil
		}
		if u.Scheme == "http" {
			return fmt.Errorf("etcd at %s closes a connection without TLS; if it speaks TLS, write https:// in cluster.etcd", u.Host)
		}
		return refusal(u.Host, own, err) // TLS 1.3 refuses a client's certificate only now
	}
	return nil
}

// refusal says what an error of a handshake means; nil when that is unknown. own is the
// certificate that was shown, if any.
func refusal(host string, own *x509.Certificate, err error) error {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	var remote *net.OpError
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("the certificate of etcd at %s is signed by none of the authorities that this server trusts (cluster.tls.ca_file): %w", host, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("the certificate of etcd at %s is not valid now, but from %s to %s: %w", host, moment(invalid.Cert.NotBefore), moment(invalid.Cert.NotAfter), err)
	case errors.As(err, &name):
		return fmt.Errorf("the certificate of etcd at %s is for another name; in cluster.etcd, write a name that the certificate has: %w", host, err)
	case errors.As(err, &record):
		return fmt.Errorf("etcd at %s speaks no TLS; write http:// in cluster.etcd, or switch TLS on at etcd: %w", host, err)
	case errors.As(err, &remote) && remote.Op == "remote error" && own == nil:
		return fmt.Errorf("etcd at %s demands a certificate of this server (cluster.tls.cert_file, cluster.tls.key_file): %w", host, err)
	case errors.As(err, &remote) && remote.Op == "remote error":
		text := fmt.Sprintf("etcd at %s refuses the certificate of this server (cluster.tls.cert_file)", host)
		if now := time.Now(); now.After(own.NotAfter) || now.Before(own.NotBefore) {
			text += fmt.Sprintf(", which is not valid now, but from %s to %s", moment(own.NotBefore), moment(own.NotAfter))
		}
		return fmt.Errorf("%s: %w", text, err)
	case strings.Contains(err.Error(), "x509: "), strings.Contains(err.Error(), "tls: "):
		return fmt.Errorf("etcd at %s: %w", host, err)
	}
	return nil
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }
