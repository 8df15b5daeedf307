package httpapi

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"sync"

	"external-server/internal/config"
)

func newTransport(t *config.TLS) (*http.Transport, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ForceAttemptHTTP2 = true
	transport.MaxIdleConns = 0
	transport.MaxIdleConnsPerHost = idleConnections
	transport.ReadBufferSize, transport.WriteBufferSize = 2<<10, 2<<10 // thousands of long polls
	transport.MaxResponseHeaderBytes = 64 << 10
	if t == nil {
		return transport, nil
	}
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pool, err := readCA(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	if t.CertFile != "" || t.KeyFile != "" {
		last, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		var mu sync.Mutex
		// Connections are few and long; each new one reads what may have been
		// replaced, and falls back to what could be read last.
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			fresh, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				last = fresh
			}
			offered := last
			return &offered, nil
		}
	}
	return transport, nil
}

func readCA(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate in PEM form", path)
	}
	return pool, nil
}
