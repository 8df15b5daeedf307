// Package health asks a running server whether it is well: what a container's
// health check and a person do. It may import config and tlsfiles.
package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
)

// DefaultURL is where the admin endpoint listens unless configured otherwise.
const DefaultURL = "http://" + config.DefaultAdminListen

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 10

// Endpoint is an admin endpoint to ask.
type Endpoint struct {
	URL string // scheme://host:port
	TLS *tls.Config
}

// FromConfig returns the admin endpoint of a server on this machine, or nil when
// its configuration has none. The certificate is trusted because it is the one
// in the configured file.
func FromConfig(admin *config.Admin) (*Endpoint, error) {
	if admin == nil {
		return nil, nil
	}
	address, err := local(admin.Listen)
	if err != nil {
		return nil, err
	}
	if admin.TLS == nil {
		return &Endpoint{URL: "http://" + address}, nil
	}
	server, err := tlsfiles.Server(admin.TLS)
	if err != nil {
		return nil, fmt.Errorf("admin.tls: %w", err)
	}
	return &Endpoint{URL: "https://" + address, TLS: tlsfiles.Pinned(server)}, nil
}

// local replaces "every address" by the loopback one.
func local(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("admin.listen: %w", err)
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port), nil
}

// Ask requests path, "/healthz" or "/readyz", and returns the answer's text. An
// answer other than 2xx is an error with its text.
func (e *Endpoint) Ask(ctx context.Context, path string) (string, error) {
	base, err := url.Parse(e.URL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return "", fmt.Errorf("%q is not the address of an admin endpoint; expected http://HOST:PORT or https://HOST:PORT", e.URL)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(path).String(), nil)
	if err != nil {
		return "", err
	}
	// No proxy: the question is about this very server.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: e.TLS, DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return "", fmt.Errorf("%s does not answer in time", e.URL)
		}
		return "", fmt.Errorf("the server cannot be asked; is it running, with an admin endpoint at %s? %w", e.URL, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("read the answer of %s: %w", e.URL, err)
	}
	text := strings.TrimSpace(string(body))
	if answer.StatusCode/100 != 2 {
		return "", fmt.Errorf("%s says %s: %s", e.URL, answer.Status, text)
	}
	return text, nil
}
