package health_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/console/health"
	"external-server/internal/support/brokertest"
)

func TestAsk(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "link: not ready: no broker")
	})
	mux.HandleFunc("GET /slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	defer server.Close()

	closed := httptest.NewServer(nil)
	closed.Close()
	for _, c := range []struct {
		name, url, path string
		limit           time.Duration
		text, err       string
	}{
		{"well", server.URL, "/healthz", time.Minute, "alive", ""},
		{"slash at the end", server.URL + "/", "/healthz", time.Minute, "alive", ""},
		{"not ready", server.URL, "/readyz", time.Minute, "", "503 Service Unavailable: link: not ready: no broker"},
		{"not a server of ours", server.URL, "/nothing", time.Minute, "", "404"},
		{"silent", server.URL, "/slow", 50 * time.Millisecond, "", "in time"},
		{"not running", closed.URL, "/healthz", time.Minute, "", "is it running"},
		{"no scheme", "127.0.0.1:8090", "/healthz", time.Minute, "", "expected http://HOST:PORT"},
		{"empty", "", "/healthz", time.Minute, "", "expected http://HOST:PORT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), c.limit)
			defer cancel()
			text, err := (&health.Endpoint{URL: c.url}).Ask(ctx, c.path)
			if text != c.text {
				t.Errorf("text %q, expected %q", text, c.text)
			}
			switch {
			case c.err == "" && err != nil:
				t.Error(err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("error %v, expected %q in it", err, c.err)
			}
		})
	}
}

func TestFromConfig(t *testing.T) {
	if e, err := health.FromConfig(nil); e != nil || err != nil {
		t.Errorf("without admin block: %v, %v", e, err)
	}
	for listen, url := range map[string]string{
		"127.0.0.1:8090": "http://127.0.0.1:8090",
		"0.0.0.0:80":     "http://127.0.0.1:80",
		":81":            "http://127.0.0.1:81",
		"[::]:82":        "http://[::1]:82",
		"10.0.0.1:83":    "http://10.0.0.1:83",
	} {
		e, err := health.FromConfig(&config.Admin{Listen: listen})
		if err != nil || e.URL != url {
			t.Errorf("%s: %v, %v, expected %s", listen, e, err, url)
		}
	}
}

// The certificate of the configuration is trusted without an authority.
func TestTLS(t *testing.T) {
	certs := brokertest.NewCerts(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "alive") })}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(listener, certs.Server.CertFile, certs.Server.KeyFile)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	e, err := health.FromConfig(&config.Admin{
		Listen: listener.Addr().String(),
		TLS:    &config.ServerTLS{CertFile: certs.Server.CertFile, KeyFile: certs.Server.KeyFile},
	})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := e.Ask(t.Context(), "/healthz"); text != "alive" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := (&health.Endpoint{URL: e.URL}).Ask(t.Context(), "/healthz"); err == nil {
		t.Error("a certificate of nobody's was trusted")
	}
}
