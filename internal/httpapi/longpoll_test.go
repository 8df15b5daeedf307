package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestLongPoller: requests that wait share connections one after the other, get
// over one that the server has closed, read answers of every form and end with
// their context.
func TestLongPoller(t *testing.T) {
	var connections atomic.Int64
	held := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/command/acme/hints":
			w.Header().Set("Link", "</x>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
		case "/command/acme/chunks":
			_, _ = io.WriteString(w, "[")
			w.(http.Flusher).Flush()
		case "/command/acme/last":
			w.Header().Set("Connection", "close")
		case "/command/acme/large":
			_, _ = w.Write(bytes.Repeat([]byte(" "), 2<<20))
		case "/command/acme/held":
			close(held)
			<-r.Context().Done()
			return
		case "/command/acme/moved":
			w.Header().Set("Location", "/elsewhere?api_key=secret")
			w.WriteHeader(http.StatusFound)
		}
		if r.URL.Path != "/command/acme/chunks" {
			_, _ = io.WriteString(w, "[")
		}
		_, _ = io.WriteString(w, "]")
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	c := newTestClient(t, ClientOptions{URL: server.URL, MaxResponse: 1 << 20})
	poll := func(ctx context.Context, name string) error {
		id := car1
		id.Company, id.Car = "acme", name
		_, err := c.Commands(ctx, id, Query{Since: 1, Wait: true})
		return err
	}
	fine := func(name string, want int64) {
		t.Helper()
		if err := poll(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := connections.Load(); n != want {
			t.Errorf("%s: %d connections, expected %d", name, n, want)
		}
	}
	fine("plain", 1)
	fine("hints", 1)
	fine("chunks", 1)
	server.CloseClientConnections()
	fine("plain", 2)
	fine("last", 2)
	fine("plain", 3)
	if err := poll(t.Context(), "large"); err == nil || !strings.Contains(err.Error(), "larger than 1048576 bytes") {
		t.Errorf("too large an answer: %v", err)
	}
	if err := poll(t.Context(), "moved"); StatusOf(err) != http.StatusFound || !strings.Contains(err.Error(), "set api_url to the final address") {
		t.Errorf("redirection: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-held
		cancel()
	}()
	if err := poll(ctx, "held"); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	server.Close()
	if err := poll(t.Context(), "plain"); err == nil || StatusOf(err) != 0 {
		t.Errorf("no server: %v", err)
	}
}

// TestLongPollerSilence: a server that accepts and says nothing costs one request
// its time, and what is no HTTP is an error.
func TestLongPollerSilence(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answers := []string{"SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n[", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 1<<18), ""}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, answer := range answers {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(connection, answer)
			if answer == "" {
				_, _ = io.Copy(io.Discard, connection) // until the client gives up
			}
			_ = connection.Close()
		}
	}()
	c := newTestClient(t, ClientOptions{URL: "http://" + listener.Addr().String(), Timeout: 200 * time.Millisecond, MaxResponse: 1 << 10})
	for _, answer := range answers {
		if _, err := c.Commands(t.Context(), car1, Query{Wait: true}); err == nil || StatusOf(err) != 0 {
			t.Errorf("answer %.20q: %v", answer, err)
		}
	}
	_ = listener.Close()
	<-done
}
