// Package reason tells operators why a connection to the broker could not be made or has
// ended, and what they can do about it.
//
// Where the time or a port of this machine would make each error another one, the text
// leaves them out: the same reason has the same text, so that it is logged once.
package reason

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"external-server/internal/link/mqtt/wire"
)

// Refused is the return code of a CONNACK that is not "accepted".
type Refused byte

// Error says it in words.
func (e Refused) Error() string {
	switch e {
	case 1:
		return "the broker refuses MQTT 3.1.1"
	case 2:
		return "the broker refuses the client identifier (letters and digits, 20 characters)"
	case 3:
		return "the broker says that its service is unavailable"
	case 4:
		return "the broker refuses the credentials: check user name and password"
	case 5:
		return "the broker does not authorise this server: check user name, password and the broker's rights"
	}
	return fmt.Sprintf("the broker refuses the connection with the unknown code %d", byte(e))
}

// Refused5 is the reason of a CONNACK of version 5 that is not "success".
type Refused5 struct {
	Code   byte
	Reason string // of the broker, in its words; empty: none
}

// Version tells whether the broker does not speak version 5.
func (e Refused5) Version() bool { return e.Code == 0x84 || e.Code == 1 }

// Error says it in words.
func (e Refused5) Error() string {
	older := map[byte]Refused{0x84: 1, 0x85: 2, 0x88: 3, 0x89: 3, 0x86: 4, 0x87: 5}
	if e.Code < 0x80 {
		return Refused(e.Code).Error() // in the form of an older version
	}
	if same, ok := older[e.Code]; ok && e.Code != 0x85 {
		return same.Error() + withReason(e.Reason)
	}
	return "the broker refuses the connection: " + Text(e.Code, e.Reason)
}

// Disconnected is a DISCONNECT of the broker (version 5).
type Disconnected struct {
	Code   byte
	Reason string // of the broker, in its words; empty: none
}

// Error says it in words.
func (e Disconnected) Error() string {
	return "the broker ended the connection: " + Text(e.Code, e.Reason)
}

// Text says in words what a reason code of version 5 means.
func Text(code byte, reason string) string {
	text := fmt.Sprintf("reason %#x", code)
	switch code {
	case 0x00:
		text = "it gives no reason"
	case 0x82, 0x81:
		text = "it sees an error in what it was sent"
	case 0x85:
		text = "the client identifier is not valid"
	case 0x87:
		text = "not authorised"
	case 0x89:
		text = "it is busy"
	case 0x8a:
		text = "this client is banned"
	case 0x8b:
		text = "it is shutting down"
	case 0x8d:
		text = "nothing was heard within the keepalive"
	case 0x8e:
		text = "another client with the same client identifier has connected"
	case 0x93:
		text = "too many messages were not acknowledged"
	case 0x95:
		text = "a packet was too large"
	case 0x96, 0x9f:
		text = "too many messages or connections in a short time"
	case 0x97:
		text = "a quota is exceeded"
	case 0x98:
		text = "an administrator ended it"
	case 0x9a:
		text = "it keeps no retained messages"
	case 0x9b:
		text = "it does not support the quality of service"
	}
	return text + withReason(reason)
}

func withReason(reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf(" (it says %q)", reason)
}

// NoAnswer is a connection that ended before CONNACK.
type NoAnswer struct {
	Err error
	TLS bool // after a TLS handshake
}

// Error returns the cause.
func (e NoAnswer) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e NoAnswer) Unwrap() error { return e.Err }

// Handshake is a TLS handshake that failed.
type Handshake struct{ Err error }

// Error returns the cause.
func (e Handshake) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e Handshake) Unwrap() error { return e.Err }

// timeError is an error about a certificate's time without the time at which it was
// met: the same reason shall have the same text.
type timeError struct {
	text string
	err  error
}

func (e timeError) Error() string { return e.text }
func (e timeError) Unwrap() error { return e.err }

// ClosedAfterSubscribe is a connection that the broker ended instead of answering the
// subscriptions. How the end is seen differs from time to time; the text is the same.
type ClosedAfterSubscribe struct{ Err error }

// Error says what to look at.
func (e ClosedAfterSubscribe) Error() string {
	return "the broker closes the connection right after subscribing: rights? Allow the user of this server to read the cars' topics"
}

// Unwrap returns the cause.
func (e ClosedAfterSubscribe) Unwrap() error { return e.Err }

// closedError is a connection that the broker ended. Whether that is seen as an end or
// as a reset is chance; the text is the same.
type closedError struct{ err error }

func (e closedError) Error() string { return "the broker closed the connection" }
func (e closedError) Unwrap() error { return e.err }

// WithoutAddresses takes the addresses out of an error of a connection. Our port
// is another one each time, and the same reason shall have the same text.
func WithoutAddresses(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Source != nil {
		return op.Err
	}
	return err
}

// Explain adds to an error what an operator can do about it. patience is how long the
// connection was given to be made.
func Explain(err error, patience time.Duration) error {
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		host      x509.HostnameError
		record    tls.RecordHeaderError
		op        *net.OpError
		unknown   NoAnswer
		handshake Handshake
	)
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("the broker's certificate is signed by none of the authorities that this server trusts: check the key ca_certs_file; without it those of the system are trusted: %w", err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if time.Now().Before(invalid.Cert.NotBefore) {
			return timeError{"the broker's certificate is not valid before " + invalid.Cert.NotBefore.Format(time.RFC3339) + ": check the clock", err}
		}
		return timeError{"the broker's certificate has expired on " + invalid.Cert.NotAfter.Format(time.RFC3339) + ": renew it", err}
	case errors.As(err, &invalid):
		return fmt.Errorf("the broker's certificate is not valid: %w", err)
	case errors.As(err, &host) && host.Certificate != nil && len(host.Certificate.DNSNames)+len(host.Certificate.IPAddresses) == 0:
		return fmt.Errorf("the broker's certificate names its host only as common name (%s), which is not accepted: reissue it with subjectAltName: %w", host.Certificate.Subject.CommonName, err)
	case errors.As(err, &host):
		return fmt.Errorf("the broker's certificate is for another host name: use a name that it lists as the broker's address: %w", err)
	case errors.As(err, &record):
		return fmt.Errorf("the broker does not speak TLS on this port: check port and TLS settings: %w", err)
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "expired certificate"):
		return fmt.Errorf("the broker refuses our certificate, it has expired: renew it: %w", err)
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate"):
		return fmt.Errorf("the broker refuses our certificate or wants one: check certificate and key files: %w", err)
	case errors.As(err, &handshake) && IsClosed(err):
		return fmt.Errorf("the broker closed the connection during the TLS handshake: check whether the port expects TLS: %w", err)
	case errors.As(err, &unknown) && unknown.TLS:
		return fmt.Errorf("the broker closed the connection without an answer, it may not accept our certificate: check certificate and key files: %w", err)
	case errors.As(err, &unknown) && IsClosed(err):
		return fmt.Errorf("the broker closed the connection without an answer: check whether the port expects TLS: %w", err)
	case errors.As(err, &unknown) && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, wire.ErrMalformed)):
		return fmt.Errorf("no MQTT broker answers at this address: check host and port: %w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no connection within %v: check host, port and firewall: %w", patience, err)
	case IsClosed(err):
		return closedError{err}
	}
	return err
}

// IsClosed tells whether the other end has closed the connection.
func IsClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
