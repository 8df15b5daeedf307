package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/httpapi"
	"external-server/internal/support/apitest"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// connect makes a connection that the server has accepted.
func connect(t *testing.T, s *Server) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	testwait.Until(t, "the connection is accepted", func() bool {
		s.visitors.mu.Lock()
		defer s.visitors.mu.Unlock()
		return len(s.visitors.heard) == 1
	})
	return nc
}

// ask posts a status over a connection, and returns the answer.
func ask(t *testing.T, nc net.Conn) *http.Response {
	t.Helper()
	body, err := json.Marshal([]httpapi.Message{apitest.Status(1, 1, "a", `{}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = fmt.Fprintf(nc, "POST /v2/protocol/status/company/car_0 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatalf("the request was not sent: %v", err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatalf("the request was not answered: %v", err)
	}
	return answer
}

// ends begins to end the server, and returns when it takes no more connections; ended waits for the end.
func ends(t *testing.T, s *Server, stop func()) (ended func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		stop()
	}()
	testwait.Until(t, "no connection is taken", func() bool {
		nc, err := net.Dial("tcp", s.Addr().String())
		if err == nil {
			_ = nc.Close()
		}
		return err != nil
	})
	return func() { testwait.Returns(t, func() { <-done }) }
}

// TestStopHearsClients: a server that ends answers the request of a client that had connected before, and does not wait for
// the client longer than that.
func TestStopHearsClients(t *testing.T) {
	s := startServer(t, Options{farewell: testwait.Patience})
	nc := connect(t, s)
	ended := ends(t, s, func() { _ = s.Shutdown(context.Background()) })
	if answer := ask(t, nc); answer.StatusCode != http.StatusServiceUnavailable && answer.StatusCode != http.StatusOK || !answer.Close {
		t.Errorf("the answer is %s, and the connection seems to be kept: %v", answer.Status, !answer.Close)
	}
	ended()
}

// TestReplicaTakesLeave: a replica that ends answers requests over connections that clients use again and again, and tells
// them to make another connection.
func TestReplicaTakesLeave(t *testing.T) {
	c := startReplicas(t, func(o *Options) { o.farewell = testwait.Patience }, 0)
	r := c.all[0]
	c.give(r, 0, 1, 2, 3)
	nc := connect(t, r.server)
	if answer := ask(t, nc); answer.Close {
		t.Error("the connection is not kept")
	}
	ended := ends(t, r.server, func() { _ = r.server.Shutdown(context.Background()) })
	if answer := ask(t, nc); answer.StatusCode != http.StatusOK || !answer.Close {
		t.Errorf("the answer is %s, and the connection seems to be kept: %v", answer.Status, !answer.Close)
	}
	ended()
}

// TestSilentClientsHoldNoStop: clients that ask for nothing do not keep a server from its end. net/http alone waits 5 s
// for a client that has just connected.
func TestSilentClientsHoldNoStop(t *testing.T) {
	s := startServer(t, Options{farewell: time.Millisecond})
	connect(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// TestStopHearsHTTP2: connections of HTTP/2, with TLS and without, count as heard with their first request too.
func TestStopHearsHTTP2(t *testing.T) {
	certs := brokertest.NewCerts(t)
	for scheme, files := range map[string]*config.ServerTLS{"http": nil, "https": {CertFile: certs.Server.CertFile, KeyFile: certs.Server.KeyFile}} {
		s := startServer(t, Options{Config: config.HTTPAPI{TLS: files}})
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(files == nil)
		protocols.SetHTTP2(files != nil)
		transport := &http.Transport{Protocols: protocols, TLSClientConfig: certs.ClientConfig(nil)}
		t.Cleanup(transport.CloseIdleConnections)
		answer, err := (&http.Client{Transport: transport}).Get(scheme + "://" + s.Addr().String() + httpapi.BasePath + "/available-cars")
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.ProtoMajor != 2 {
			t.Fatalf("the protocol is %s", answer.Proto)
		}
		s.visitors.mu.Lock()
		if open, silent := len(s.visitors.heard), s.visitors.silent; open != 1 || silent != 0 {
			t.Errorf("%s: %d connections, %d of them silent", scheme, open, silent)
		}
		s.visitors.mu.Unlock()
	}
}
