package peer

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/support/brokertest"
)

const secret = "a-token-of-more-than-sixteen-bytes"

// files are those of a replica of the cluster whose authority certs is.
func files(certs *brokertest.Certs) *config.TLS {
	return &config.TLS{CAFile: certs.CAFile, CertFile: certs.Replica.CertFile, KeyFile: certs.Replica.KeyFile}
}

func options(t testing.TB, o Options) Options {
	t.Helper()
	if o.Replica == "" {
		o.Replica = "b"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// start serves handle until the test is over, or stop is called, which waits.
func start(t testing.TB, o Options, handle func(*Server)) (address string, stop func()) {
	t.Helper()
	s, err := Listen(t.Context(), "127.0.0.1:0", options(t, o))
	if err != nil {
		t.Fatal(err)
	}
	if handle != nil {
		handle(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	done := false
	stop = func() {
		if done {
			return
		}
		done = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("the server does not end")
		}
	}
	t.Cleanup(stop)
	return s.Addr().String(), stop
}

func client(t testing.TB, o Options) *Client {
	t.Helper()
	o.Replica = "a"
	c, err := NewClient(options(t, o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func request(t testing.TB, method, path string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ways are the ways in which replicas recognise each other.
func ways(t testing.TB) map[string]Options {
	certs := brokertest.NewCerts(t)
	return map[string]Options{
		"token":         {Token: config.NewSecret(secret)},
		"TLS":           {TLS: files(certs)},
		"TLS and token": {TLS: files(certs), Token: config.NewSecret(secret)},
	}
}
