// Package tlsfiles turns certificate files into TLS settings for the client
// side and for listeners, and picks up files that were replaced while the
// server runs.
//
// It may import config only.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"external-server/internal/config"
)

// Client returns a function that makes the settings of the next connection from
// the files as they are then (CONN-31): server certificate and host name are
// verified, a client certificate is offered when one is configured. The files
// are read once before Client returns, so that a wrong file is an error at the
// start. Nil files mean no TLS and give a nil function.
func Client(files *config.TLS) (func() (*tls.Config, error), error) {
	if files == nil {
		return nil, nil
	}
	read := func() (*tls.Config, error) {
		out := &tls.Config{MinVersion: tls.VersionTLS12}
		if files.CAFile != "" {
			pool, err := readCA(files.CAFile)
			if err != nil {
				return nil, err
			}
			out.RootCAs = pool
		}
		if files.CertFile != "" {
			cert, err := readPair(files.CertFile, files.KeyFile)
			if err != nil {
				return nil, err
			}
			out.Certificates = []tls.Certificate{cert}
		}
		return out, nil
	}
	if _, err := read(); err != nil {
		return nil, err
	}
	return read, nil
}

// Server returns the settings of a listener as Watch does, for a listener whose
// files stay where they are.
func Server(files *config.ServerTLS, protocols ...string) (*tls.Config, error) {
	w, err := Watch(files, protocols...)
	return w.Config(), err
}

// Pinned trusts exactly the certificate a listener of this process presents, so
// that the server's own connection to it needs no further files.
func Pinned(server *tls.Config) *tls.Config {
	if server.GetConfigForClient != nil {
		if latest, err := server.GetConfigForClient(nil); err == nil && latest != nil {
			server = latest
		}
	}
	pool := x509.NewCertPool()
	name := "localhost"
	if leaf := server.Certificates[0].Leaf; leaf != nil {
		pool.AddCert(leaf)
		switch {
		case len(leaf.DNSNames) > 0:
			name = leaf.DNSNames[0]
		case len(leaf.IPAddresses) > 0:
			name = leaf.IPAddresses[0].String()
		}
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: name, Certificates: server.Certificates}
}

func readCA(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA certificate %s: no PEM certificate found; expected a file with BEGIN CERTIFICATE blocks", path)
	}
	return pool, nil
}

func readPair(cert, key string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		var notExist *os.PathError
		if errors.As(err, &notExist) {
			return tls.Certificate{}, fmt.Errorf("TLS file: %w", err)
		}
		return tls.Certificate{}, fmt.Errorf("certificate %s with key %s: %w; expected a PEM certificate and its unencrypted PEM key", cert, key, err)
	}
	return pair, nil
}
