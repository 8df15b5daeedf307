package app

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"external-server/internal/config"
)

// clientTLS prepares the connection to the broker (CONN-31): server certificate
// and host name are verified, a client certificate is offered when configured.
// Nil means no TLS.
func clientTLS(files *config.TLS) (*tls.Config, error) {
	if files == nil {
		return nil, nil
	}
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

// serverTLS prepares the listener of the embedded broker. Nil means no TLS.
func serverTLS(files *config.ServerTLS) (*tls.Config, error) {
	if files == nil {
		return nil, nil
	}
	cert, err := readPair(files.CertFile, files.KeyFile)
	if err != nil {
		return nil, err
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if files.ClientCAFile != "" {
		pool, err := readCA(files.ClientCAFile)
		if err != nil {
			return nil, err
		}
		out.ClientCAs, out.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return out, nil
}

// pinned trusts exactly the certificate the embedded broker itself presents, so
// that the server's own connection needs no further files.
func pinned(server *tls.Config) *tls.Config {
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
