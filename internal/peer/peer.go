// Package peer carries requests between the replicas of one cluster: a server and a
// client that authenticate each other by certificates of one CA or by one shared
// token.
//
// A request makes one hop. What came from a replica is never passed on to another:
// Client.Do refuses it, and a server refuses what says that it has made more.
//
// It may import config, crowd and tlsfiles. It does not know what the requests mean.
package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"external-server/internal/config"
)

// Options are what both sides are made from. Errors name the keys of the block
// cluster of the configuration.
type Options struct {
	// Replica is the name of this replica, which the others are told.
	Replica string
	// TLS names the CA of all replicas, and this replica's certificate and key, which
	// it uses as server and as client. Nil: connections are not encrypted, and Token is
	// needed.
	TLS *config.TLS
	// Token is the secret that the replicas share; empty: certificates decide alone.
	// Without TLS it is sent to and taken from private addresses only.
	Token config.Secret
	// Logger is required.
	Logger *slog.Logger

	pingAfter, pingTimeout time.Duration // for tests
}

// pings returns the times after which a silent connection is asked and given up.
func (o *Options) pings() (after, timeout time.Duration) {
	if o.pingAfter == 0 {
		return pingAfter, pingTimeout
	}
	return o.pingAfter, o.pingTimeout
}

// minToken is the shortest token in bytes: a stranger that can connect may try tokens.
const minToken = 16

// check tells what is wrong with the options.
func (o *Options) check() error {
	if o.TLS == nil && o.Token.IsZero() {
		return errors.New("cluster: replicas must recognise each other; set cluster.peer_tls (ca_file, cert_file, key_file) or, on a private network, cluster.peer_token")
	}
	if n := len(o.Token.Reveal()); n > 0 && n < minToken {
		return fmt.Errorf("cluster.peer_token: it has %d characters; expected %d or more, such as the output of 'openssl rand -hex 32'", n, minToken)
	}
	if strings.ContainsFunc(o.Token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("cluster.peer_token: it contains a blank or a character beyond ASCII; expected letters, digits and punctuation")
	}
	if o.TLS != nil && (o.TLS.CAFile == "" || o.TLS.CertFile == "" || o.TLS.KeyFile == "") {
		return errors.New("cluster.peer_tls: ca_file, cert_file and key_file are all needed: each replica shows its certificate and checks those of the others")
	}
	return nil
}

// Headers between replicas.
const (
	hopHeader     = "X-Fleet-Hop"     // how many times the request was passed on
	replicaHeader = "X-Fleet-Replica" // who asks; in an answer: who answers
	wantedHeader  = "X-Fleet-Wanted"  // who is asked; a peer of an earlier version does not look
	refusedHeader = "X-Fleet-Refused" // in an answer: the Reason why no handler was asked
)

// Reason says why a peer did not answer a request.
type Reason string

// Reasons.
const (
	Unreachable Reason = "unreachable" // no connection, or it ended before the answer began
	Stranger    Reason = "stranger"    // one of the two does not recognise the other
	Busy        Reason = "busy"        // too many requests of this kind are under way there
	Unknown     Reason = "unknown"     // it has no such endpoint: another version
	Loop        Reason = "loop"        // the request has been passed on already
	Misled      Reason = "misled"      // another replica than the wanted one answers at the address
)

// Error says that a peer's handler gave no answer.
type Error struct {
	Address string
	Reason  Reason
	// Sent says that the request, or a part of it, may have reached the handler.
	Sent bool
	Err  error
}

// Error names the peer's address, the cause and what to do. It contains no secret.
func (e *Error) Error() string { return "the replica at " + e.Address + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of an *Error in err, "" if there is none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

type wantedKey struct{}

// For returns a context for Client.Do whose request is for the replica of that name alone.
// Addresses may be wrong: a loopback address leads each machine to itself. Any other replica
// that answers there refuses the request, with the reason Misled.
func For(ctx context.Context, replica string) context.Context {
	return context.WithValue(ctx, wantedKey{}, replica)
}

type fromKey struct{}

// From returns the name of the replica whose request the context belongs to, and
// whether there is one.
func From(ctx context.Context) (replica string, ok bool) {
	replica, ok = ctx.Value(fromKey{}).(string)
	return replica, ok
}

// FromRequest is From of the request's context.
func FromRequest(r *http.Request) (replica string, ok bool) { return From(r.Context()) }

// shared is the address space of carriers (RFC 6598), which overlay networks use.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// private tells whether an address belongs to this machine or to a private network.
func private(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

// public returns an address at which strangers could reach a listener, "" if there is
// none. The host may be a name: then what it resolves to decides.
func public(ctx context.Context, listen string) (string, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("cluster.peer_listen: %q: expected HOST:PORT, such as 10.0.0.5:7400", listen)
	}
	var all []netip.Addr
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		interfaces, err := net.InterfaceAddrs()
		if err != nil {
			return "", fmt.Errorf("cluster.peer_listen: addresses of this machine: %w", err)
		}
		for _, i := range interfaces {
			if p, err := netip.ParsePrefix(i.String()); err == nil {
				all = append(all, p.Addr())
			}
		}
	} else if all, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
		return "", fmt.Errorf("cluster.peer_listen: %w", err)
	}
	for _, a := range all {
		if !private(a) {
			return a.Unmap().String(), nil
		}
	}
	return "", nil
}
